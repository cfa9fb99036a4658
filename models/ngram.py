"""Interpolated modified Kneser-Ney over the n-grams that are worth their place, and from it to integers.

p(w | h) = max(0, C(hw) - D) / C(h.) + g(h) p(w | h'), where h' is h without its first token, and D depends on
whether C(hw) is 1, 2 or more (Chen and Goodman 1998). For the longest n-grams C counts occurrences; for
shorter ones an n-gram that is kept counts once in its suffix, and one that is not as often as it occurs: what
the longer n-grams no longer say is left to the shorter ones (Siivola, Hirsimaki and Virpioja 2007).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..coder.ngram import CONTINUED, LAST, VALUE_BITS, VALUE_MAX, NgramConfig

Float = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Index = NDArray[np.signedinteger[Any]]

MOST_BITS = VALUE_MAX / 2**VALUE_BITS  # that a node can add
LEAST = 1e-6  # a discount, below which nothing may be left for what was not seen


class Counts(Protocol):
    """The n-grams of one order: `data/ngrams.py` says what these are."""

    @property
    def parents(self) -> NDArray[np.int32]: ...
    @property
    def tokens(self) -> NDArray[np.int32]: ...
    @property
    def suffixes(self) -> NDArray[np.int32]: ...
    @property
    def counts(self) -> Int64: ...
    @property
    def followed(self) -> Int64: ...
    @property
    def left_out(self) -> list[int]: ...


def discounts(counts: Int64, left_out: Sequence[int]) -> Float:
    """What is taken from a count of 0, 1, 2, and of 3 or more, by the numbers of n-grams with counts 1 to 4.

    Where the numbers give nothing usable, as with very little text, a half of 1 and 3/4 of more.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5] + np.array(left_out, dtype=np.float64)
    found = np.array([0.0, 0.5, 0.75, 0.75])
    share = n[0] / (n[0] + 2 * n[1]) if n[0] else 0.0
    for k in range(1, 4):
        value = k - (k + 1) * share * n[k] / n[k - 1] if n[k - 1] else 0.0
        if LEAST < value < k:
            found[k] = value
    return found


def _discounted(counts: Int64, discount: Float) -> Float:
    """What is left of each count."""
    return counts - discount[np.minimum(counts, 3)]


def _sum_by(index: NDArray[Any], values: NDArray[Any], size: int) -> Float:
    return np.bincount(index, weights=values, minlength=size).astype(np.float64)


def _unigrams(counts: Int64) -> Float:
    """p of each token: discounted counts, and the rest to all alike."""
    left, total = _discounted(counts, discounts(counts, [0] * 4)), int(counts.sum())
    return left / total + (1 - left.sum() / total) / len(counts)


def worth(orders: Sequence[Counts]) -> list[NDArray[np.float32]]:
    """Bits of the training text that each n-gram saves, or one that cannot be without it; tokens: infinite.

    The saving is that over its suffix, estimated with plain counts, for what is left of its count. An n-gram
    cannot be without its parent, nor without its suffix.
    """
    lower = _unigrams(orders[0].counts)
    gains = [np.full(len(lower), np.inf, dtype=np.float32)]
    for below, these in pairwise(orders):
        left = _discounted(these.counts, discounts(these.counts, these.left_out))
        followed = np.maximum(below.followed, 1)
        rest = 1 - _sum_by(these.parents, left, len(followed)) / followed
        before = lower[these.suffixes]
        lower = left / followed[these.parents] + rest[these.parents] * before
        gains.append((left * np.log2(lower / before)).astype(np.float32))
    for number in range(len(gains) - 1, 1, -1):
        np.maximum.at(gains[number - 1], orders[number].parents, gains[number])
        np.maximum.at(gains[number - 1], orders[number].suffixes, gains[number])
    return gains


def select(gains: Sequence[NDArray[np.float32]], most: int) -> list[Bool]:
    """Which n-grams of each order are kept: those that save most, `most` beside the tokens, or all."""
    longer = np.concatenate([np.zeros(0, dtype=np.float32), *gains[1:]])
    least = -np.inf
    if len(longer) > most:
        place = len(longer) - most - 1  # of the best that is not kept; its equals are not kept either
        least = np.partition(longer, place)[place]
    return [gain > least for gain in gains]


@dataclass(frozen=True)
class Estimate:
    """The model in float64: of each order, the n-grams that are kept.

    Attributes:
        parents, suffixes: [n], places in the order below.
        tokens: int32 [n].
        probability: float64 [n], p(w | h).
        rest: float64 [n], g of the n-gram as a context.
    """

    parents: Index
    suffixes: Index
    tokens: Index
    probability: Float
    rest: Float


def estimate(orders: Sequence[Counts], kept: Sequence[Bool]) -> list[Estimate]:
    """Kneser-Ney over the n-grams of `kept`, which has the parent and the suffix of all that it has."""
    counts = _modified(orders, kept)
    places = [np.cumsum(mask) - 1 for mask in kept]
    first, size = orders[0], len(counts[0])
    found = [Estimate(first.parents, first.suffixes, first.tokens, _unigrams(counts[0]), np.ones(size))]
    for number in range(1, len(orders)):
        below, these, mask = orders[number - 1], orders[number], kept[number]
        parents, suffixes = these.parents[mask], these.suffixes[mask]
        left = _discounted(counts[number], discounts(counts[number], these.left_out))[mask]
        # What follows each context, as far as longer n-grams do not say it; what is left out is among it.
        said = _sum_by(these.parents, these.counts - counts[number], len(below.counts))
        total = below.followed - said
        rest = 1 - _sum_by(parents, left, len(total)) / np.maximum(total, 1)
        found[-1].rest[:] = rest[kept[number - 1]]
        backed_off = rest[parents] * found[-1].probability[places[number - 1][suffixes]]
        found.append(
            Estimate(
                places[number - 1][parents],
                places[number - 1][suffixes],
                these.tokens[mask],
                left / total[parents] + backed_off,
                np.ones(len(left)),
            )
        )
    return found


def _modified(orders: Sequence[Counts], kept: Sequence[Bool]) -> list[Int64]:
    """C of each n-gram, kept or not."""
    counts = [orders[-1].counts.astype(np.int64)]
    for number in range(len(orders) - 1, 0, -1):
        above, own = orders[number], counts[0]
        passed_on = np.where(kept[number], np.minimum(own, 1), own)
        said = _sum_by(above.suffixes, above.counts - passed_on, len(orders[number - 1].counts))
        counts.insert(0, orders[number - 1].counts - said.astype(np.int64))
    return counts


def quantise(found: Sequence[Estimate]) -> list[NDArray[np.uint8]]:
    """What each n-gram adds to its token's logit, in units of 2^-2 bits, 0 to 127.

    A logit is log2 p up to a sum that all tokens of a context share: with every g left out, an n-gram that is
    not kept has the logit of its suffix. Each is rounded beyond what was rounded below it.
    """
    unit = 2.0**VALUE_BITS
    added = [np.clip(np.rint((np.log2(found[0].probability) + MOST_BITS) * unit), 0, VALUE_MAX)]
    logits, shared = added[0] / unit, np.log2(found[0].rest)
    for these in found[1:]:
        exact = np.log2(these.probability) + MOST_BITS - shared[these.parents]
        added.append(np.clip(np.rint((exact - logits[these.suffixes]) * unit), 0, VALUE_MAX))
        logits = logits[these.suffixes] + added[-1] / unit
        shared = np.log2(these.rest) + shared[these.suffixes]
    return [each.astype(np.uint8) for each in added]


def freeze(found: Sequence[Estimate], vocab_size: int) -> tuple[NgramConfig, dict[str, NDArray[Any]]]:
    """The trie (coder/ngram.py); an n-gram that adds nothing and is no context of others is left out."""
    added = quantise(found)
    continued = [np.zeros(len(each), dtype=bool) for each in added]
    useful: list[Bool] = [np.ones(len(added[0]), dtype=bool)]
    for number in range(len(found) - 1, 0, -1):
        useful.insert(1, (added[number] > 0) | continued[number])
        continued[number - 1][found[number].parents[useful[1]]] = True
    values, gaps = list[NDArray[Any]](), [np.zeros(0, dtype=np.int64)]
    for number, (these, value, more, mask) in enumerate(zip(found, added, continued, useful, strict=True)):
        values.append((value | np.where(more, CONTINUED, 0))[mask])
        if number:
            parents, tokens = these.parents[mask], these.tokens[mask].astype(np.int64)
            first = np.diff(parents, prepend=-1) != 0
            last = np.diff(parents, append=-1) != 0
            before = np.where(first, -1, np.concatenate([[-1], tokens])[:-1])
            gaps.append((tokens - before - 1) | np.where(last, LAST, 0))
    return NgramConfig(vocab_size, len(found)), {
        "ngram.values": np.concatenate(values).astype(np.uint8),
        "ngram.gaps": np.concatenate(gaps).astype(np.uint16),
    }
