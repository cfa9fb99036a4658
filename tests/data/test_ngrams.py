"""n-grams counted out of core are those that a dictionary counts."""

from collections import Counter

import numpy as np
import pytest

from laconic.coder.errors import LaconicError
from laconic.data.ngrams import MANIFEST, RAREST, count_ngrams
from laconic.data.tokenshard import ShardWriter, TokenShard

VOCAB = 7


def make_shard(folder, documents, vocab_size=VOCAB):
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder / "train.tokens", vocab_size, bytes(32))
    for ids in documents:
        writer.add([bytes(i % 256 for i in ids)], [np.array(ids, dtype=np.int32)])
    writer.close()
    return TokenShard.open(folder / "train.tokens")


def random_documents(seed=0, count=30, vocab_size=VOCAB):
    """Documents of 1 to 60 tokens, some tokens rare."""
    rng = np.random.default_rng(seed)
    chances = np.arange(1, vocab_size + 1) ** 2.0
    lengths = [1, 2, *rng.integers(1, 60, count)]
    return [rng.choice(vocab_size, n, p=chances / chances.sum()).tolist() for n in lengths]


def as_dictionary(orders):
    """Of each order, count by n-gram."""
    names, tables = [()], []
    for number, order in enumerate(orders):
        parents = [()] * len(order.counts) if number == 0 else [names[i] for i in order.parents]
        names = [(*parent, int(token)) for parent, token in zip(parents, order.tokens, strict=True)]
        tables.append(dict(zip(names, order.counts.tolist(), strict=True)))
    return tables


def counted(documents, order):
    return Counter(tuple(ids[at : at + order]) for ids in documents for at in range(len(ids) - order + 1))


@pytest.mark.parametrize("chunk", [1, 5, 64, 1 << 20])
@pytest.mark.parametrize("min_count", [1, 2, 5])
def test_counts_are_those_of_a_dictionary(tmp_path, chunk, min_count):
    documents = random_documents()
    shard = make_shard(tmp_path, documents)
    orders = count_ngrams(shard, 5, min_count, tmp_path / "counts", chunk=chunk)
    tables = as_dictionary(orders)
    assert tables[0] == {(token,): counted(documents, 1)[token,] for token in range(VOCAB)}
    for number, table in enumerate(tables[1:], 2):
        every = counted(documents, number)
        assert table == {ngram: count for ngram, count in every.items() if count >= min_count}
        rare = Counter(count for count in every.values() if count < min_count)
        if min_count <= 2:  # of others, those whose own parents are rare are not counted
            assert orders[number - 1].left_out[0] <= rare[1]
        if number == 2:
            assert orders[number - 1].left_out == [rare[count] for count in range(1, RAREST + 1)]


def test_suffixes_keys_and_what_follows(tmp_path):
    documents = random_documents(1)
    orders = count_ngrams(make_shard(tmp_path, documents), 4, 2, tmp_path / "counts", chunk=50)
    tables = [list(table) for table in as_dictionary(orders)]
    for number, order in enumerate(orders[1:], 1):
        assert [tables[number - 1][i] for i in order.suffixes] == [ngram[1:] for ngram in tables[number]]
        assert tables[number] == sorted(tables[number])
    for number, order in enumerate(orders[:-1], 1):
        longer = counted(documents, number + 1)
        for ngram, times in zip(tables[number - 1], order.followed.tolist(), strict=True):
            assert times == sum(count for key, count in longer.items() if key[:-1] == ngram)


def test_tokens_of_16_bits(tmp_path):
    documents = [[32767, 0, 32767, 0, 1], [32767, 0, 32766]]
    orders = count_ngrams(make_shard(tmp_path, documents, 1 << 15), 4, 1, tmp_path / "counts", chunk=3)
    for number, table in enumerate(as_dictionary(orders)[1:], 2):
        assert table == counted(documents, number)


def test_documents_shorter_than_the_order(tmp_path):
    orders = count_ngrams(make_shard(tmp_path, [[1], [2, 3]]), 4, 1, tmp_path / "counts")
    assert [len(order.counts) for order in orders] == [VOCAB, 1, 0, 0]


def test_of_too_many_the_rare_ones_are_left_out(tmp_path):
    documents = random_documents(2, 60)
    orders = count_ngrams(make_shard(tmp_path, documents), 3, 1, tmp_path / "counts", most=25)
    every = counted(documents, 2)
    least = orders[1].least
    assert 1 < least <= orders[2].least
    assert (
        sum(count >= least for count in every.values())
        <= 25
        < sum(count >= least - 1 for count in every.values())
    )
    assert as_dictionary(orders)[1] == {n: count for n, count in every.items() if count >= least}


def test_too_many_that_are_frequent_are_refused(tmp_path):
    shard = make_shard(tmp_path, [[0, 1] * 300])
    with pytest.raises(
        LaconicError, match="2 n-grams of 2 tokens occur 256 times or more, held are at most 1"
    ):
        count_ngrams(shard, 3, 1, tmp_path / "counts", most=1)
    assert not list((tmp_path / "counts").glob("*.partial"))


def test_no_tokens_and_tokens_beyond_the_vocabulary_are_refused(tmp_path):
    with pytest.raises(LaconicError, match="no tokens"):
        count_ngrams(make_shard(tmp_path / "a", []), 2, 1, tmp_path / "counts")
    with pytest.raises(LaconicError, match="damaged: it has a token 9"):
        count_ngrams(make_shard(tmp_path / "b", [[1, 9]]), 2, 1, tmp_path / "counts")


def test_counts_are_used_again_as_long_as_they_fit(tmp_path, monkeypatch):
    shard, folder = make_shard(tmp_path, random_documents()), tmp_path / "counts"
    first = as_dictionary(count_ngrams(shard, 4, 2, folder))
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert as_dictionary(count_ngrams(shard, 3, 2, folder)) == first[:3]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert not list(folder.glob("*.partial"))
    (folder / MANIFEST).unlink()  # as when the machine stopped
    assert as_dictionary(count_ngrams(shard, 4, 2, folder)) == first
    other = make_shard(tmp_path / "other", random_documents(5))
    assert as_dictionary(count_ngrams(other, 4, 2, folder)) != first
    for content in (b"short", b""):
        (folder / "2.counts.npy").write_bytes(content)
        with pytest.raises(LaconicError, match="damaged: remove it"):
            count_ngrams(other, 4, 2, folder)
