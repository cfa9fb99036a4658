"""How the coders tell how far they are."""

from collections.abc import Callable

Report = Callable[[float], None]  # is told what part of the segment is done, 0 to 1

on_wait: Callable[[str], None] | None = None  # told once in a process why nothing seems to happen


def tell(what: str) -> None:
    """Say why nothing seems to happen, where somebody listens."""
    global on_wait
    listener, on_wait = on_wait, None
    if listener is not None:
        listener(what)
