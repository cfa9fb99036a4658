"""What a mixer knows before the first byte: weights, rates, and what bit histories mean.

Learned offline on text of the checkpoint's kind, and part of the frozen checkpoint (tensors `mixer.*`) and of
its id. It matters for short files, which end before the mixer has learned by itself.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..graph import PRIOR_TENSORS
from . import layout as k
from .experts import EXPERTS

INPUTS = k.FIRST_EXPERT + 2 * len(EXPERTS) + 2  # with one model, whose inputs are the last two
MAPS = len(EXPERTS) + 4  # and order 1, and the three of ends
LEARNED_COUNT = 30  # uses that the maps of a checkpoint's prior are worth

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Prior:
    """First values of a mixer, for all experts and one model; a level takes those that it uses.

    Attributes:
        weights: int32 [SETS, INPUTS], units of 2^-16, for every vector of a set.
        maps: uint16 [MAPS, 256], the probability of a one after each bit history, units of 2^-16.
        matches: int32 [2 * MATCH_LENGTHS * 2], the same for matches by their length and expected bit.
        rates: int32 [3]: the lasting learning rate, what is added at first, the final mixer's rate.
        count: uses that the maps are worth.
    """

    weights: Int32
    maps: npt.NDArray[np.uint16]
    matches: Int32
    rates: Int32
    count: int = 0

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """As a checkpoint keeps it."""
        return dict(zip(PRIOR_TENSORS, (self.weights, self.maps, self.matches, self.rates), strict=True))
