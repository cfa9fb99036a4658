"""How the coders tell how far they are."""

from collections.abc import Callable

Report = Callable[[float], None]  # is told what part of the segment is done, 0 to 1
