"""Which process this is, of those that train together.

A rank is told its place by the variables that torchrun sets, whoever starts it.
"""

import os

from ..coder.errors import LaconicError

PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def rank_and_world() -> tuple[int, int] | None:
    """This process's place among those that were started together; None where it was started alone."""
    if not all(name in os.environ for name in PLACE):
        return None
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    place = rank_and_world()
    return place is None or place[0] == 0


def require_alone(what: str) -> None:
    """Raises LaconicError where this process is one of several: `what` is for one."""
    place = rank_and_world()
    if place is not None and place[1] > 1:
        raise LaconicError(
            f"`laconic {what}` is work for one process, and {place[1]} were started: "
            "torchrun is for `laconic pretrain` and `laconic distill` (docs/cluster.md)"
        )
