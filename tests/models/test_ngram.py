"""Kneser-Ney against its formulas in plain Python; integers against Kneser-Ney."""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.engines.ngram_reference import NgramReference
from laconic.coder.graph import token_tensors
from laconic.data.ngrams import count_ngrams
from laconic.data.tokenshard import ShardWriter, TokenShard
from laconic.models.ngram import discounts, estimate, freeze, select, worth

VOCAB, ORDER = 6, 4


def documents(seed=0):
    """Markov chains: what comes next depends on the two tokens before."""
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(VOCAB, 0.3), (VOCAB, VOCAB))
    texts = []
    for _ in range(40):
        ids = [0, int(rng.integers(VOCAB))]
        for _ in range(int(rng.integers(1, 60))):
            ids.append(int(rng.choice(VOCAB, p=table[ids[-2], ids[-1]])))
        texts.append(ids)
    return texts


def counts_of(texts, folder, min_count=1):
    writer = ShardWriter(folder / "train.tokens", VOCAB, bytes(32))
    for ids in texts:
        writer.add([bytes(ids)], [np.array(ids, dtype=np.int32)])
    writer.close()
    return count_ngrams(TokenShard.open(folder / "train.tokens"), ORDER, min_count, folder / "counts")


class Plain:
    """Interpolated modified Kneser-Ney over everything, by dictionaries."""

    def __init__(self, texts):
        raw = [
            Counter(tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1))
            for n in range(1, ORDER + 1)
        ]
        self.counts = [*raw[:-1], raw[-1]]
        for n in range(ORDER - 1):  # how many tokens stand before, and how often none does
            first = Counter(tuple(text[: n + 1]) for text in texts)
            before = Counter(longer[1:] for longer in raw[n + 1])
            self.counts[n] = {ngram: before[ngram] + first[ngram] for ngram in raw[n]}
        self.discounts = [discounts(np.array(list(c.values())), [0] * 4) for c in self.counts]
        self.following = [defaultdict(dict) for _ in range(ORDER)]
        for n, table in enumerate(self.counts):
            for ngram, count in table.items():
                self.following[n][ngram[:-1]][ngram[-1]] = count

    def probability(self, context, token):
        n = len(context)
        shorter = self.probability(context[1:], token) if n else 1 / VOCAB
        here = self.following[n].get(context)
        if not here:
            return shorter
        d, total = self.discounts[n], sum(here.values())
        rest = sum(d[min(count, 3)] for count in here.values()) / total
        count = here.get(token, 0)
        return (count - d[min(count, 3)]) / total + rest * shorter


def probabilities(found, context):
    """p of each token after a context, from the estimate; by the rule of backing off."""
    names, table, rests = [()], {}, {(): None}
    for these in found:
        parents = [()] * len(these.tokens) if these is found[0] else [names[i] for i in these.parents]
        names = [(*parent, int(token)) for parent, token in zip(parents, these.tokens, strict=True)]
        table |= dict(zip(names, these.probability, strict=True))
        rests |= dict(zip(names, these.rest, strict=True))

    def of(context, token):
        if (*context, token) in table:
            return table[(*context, token)]
        return rests.get(context, 1.0) * of(context[1:], token)

    return [of(context, token) for token in range(VOCAB)]


def contexts():
    return [context for n in range(ORDER) for context in product(range(VOCAB), repeat=n)]


def test_without_pruning_it_is_kneser_ney(tmp_path):
    texts = documents()
    orders = counts_of(texts, tmp_path)
    found = estimate(orders, select(worth(orders), 1 << 30))
    plain = Plain(texts)
    for context in contexts():
        expected = [plain.probability(context, token) for token in range(VOCAB)]
        np.testing.assert_allclose(probabilities(found, context), expected, rtol=1e-9)


@pytest.mark.parametrize("min_count", [1, 2, 3])
@pytest.mark.parametrize("most", [0, 1, 20, 150])
def test_probabilities_sum_to_one_whatever_is_left_out(tmp_path, min_count, most):
    orders = counts_of(documents(1), tmp_path, min_count)
    kept = select(worth(orders), most)
    assert kept[0].all()
    assert sum(int(mask.sum()) for mask in kept[1:]) <= most
    found = estimate(orders, kept)
    for context in contexts():
        values = probabilities(found, context)
        assert min(values) > 0
        assert sum(values) == pytest.approx(1)


def test_what_is_kept_has_its_parent_and_its_suffix_and_saves_most(tmp_path):
    orders = counts_of(documents(2), tmp_path)
    gains = worth(orders)
    kept = select(gains, 100)
    assert sum(int(mask.sum()) for mask in kept[1:]) > 80  # equals of the last are left out too
    for below, mask, these in zip(kept, kept[1:], orders[1:], strict=False):
        assert below[these.parents[mask]].all()
        assert below[these.suffixes[mask]].all()
    assert min(g[m].min() for g, m in zip(gains, kept, strict=True)) > max(
        g[~m].max() for g, m in zip(gains[1:], kept[1:], strict=True) if (~m).any()
    )


def test_text_that_repeats_or_hardly_exists_still_has_probabilities(tmp_path):
    for number, texts in enumerate(([[3] * 500], [[0]], [[0, 1, 2, 3, 4, 5]])):
        folder = tmp_path / str(number)
        folder.mkdir()
        orders = counts_of(texts, folder)
        found = estimate(orders, select(worth(orders), 1 << 30))
        for context in contexts():
            values = probabilities(found, context)
            assert min(values) > 0
            assert sum(values) == pytest.approx(1)


def test_discounts():
    # n1..n4 = 40, 20, 10, 5: Y = 40 / 80
    counts = np.repeat([1, 2, 3, 4, 9], [30, 20, 10, 5, 3])
    np.testing.assert_allclose(discounts(counts, [10, 0, 0, 0]), [0, 0.5, 1.25, 2.0])
    np.testing.assert_array_equal(discounts(np.array([7, 7]), [0] * 4), [0, 0.5, 0.75, 0.75])
    # 3 - 4 (34 / 112) (84 / 34) is zero, but for rounding: nothing would be left for what was not seen.
    found = discounts(np.repeat([1, 2, 3, 4], [34, 39, 34, 84]), [0] * 4)
    np.testing.assert_allclose(found, [0, 34 / 112, 2 - 3 * 34 / 112 * 34 / 39, 0.75])


@pytest.mark.parametrize("most", [40, 1 << 30])
def test_integers_follow_the_estimate(tmp_path, most):
    orders = counts_of(documents(3), tmp_path)
    found = estimate(orders, select(worth(orders), most))
    config, tensors = freeze(found, VOCAB)
    names = token_tensors([bytes([i]) for i in range(VOCAB)])
    engine = NgramReference(FrozenCheckpoint(config, {**tensors, **names}, "{}", {}))
    for context in contexts():
        ids = np.array([[VOCAB, *context]], dtype=np.int32)
        logits = engine.advance(engine.start(1), ids)[0, -1] / 1024
        coded = logits - math.log2(sum(2.0**logits))
        exact = np.log2(probabilities(found, context))
        assert np.abs(coded - exact).max() < 0.27  # an eighth of a bit each way, and the sum of all


def test_what_adds_nothing_is_left_out(tmp_path):
    orders = counts_of(documents(4), tmp_path)
    found = estimate(orders, select(worth(orders), 1 << 30))
    below, these = found[-2:]
    backed_off = below.rest[these.parents] * below.probability[these.suffixes]
    probability = np.where(these.tokens > 1, these.probability, backed_off)
    _, tensors = freeze([*found[:-1], replace(these, probability=probability)], VOCAB)
    sizes = [len(each.tokens) for each in found]
    assert len(tensors["ngram.values"]) == sum(sizes) - int((these.tokens <= 1).sum()) < sum(sizes)
    _, tensors = freeze([*found[:-1], replace(these, probability=backed_off)], VOCAB)
    assert len(tensors["ngram.values"]) == sum(sizes[:-1])
