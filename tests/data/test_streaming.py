"""Training on a stream: what it is made of, who gets what, and how it goes on."""

import json
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest

from laconic.coder.errors import LaconicError
from laconic.data.corpus import Corpus
from laconic.data.sources import PlainFile, Rows, Unreadable
from laconic.data.splits import split_of
from laconic.data.streaming import StreamingDataModule, _State
from laconic.data.windows import Place, Stream
from laconic.models.tokenizer import train_tokenizer

T, SHARES = 16, (0.1, 0.05)


class _Place:
    """What a data module asks its Trainer."""

    training = True

    def __init__(self, rank, world):
        self.global_rank, self.world_size = rank, world


@pytest.fixture(scope="module")
def plain_bytes():
    return train_tokenizer([b""], "bytes", 256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Documents of T bytes: lines of plain files, and rows of JSON lines, of Parquet and of text."""
    import pyarrow as pa
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("stream")
    rows = [f"document {i:06}\n" for i in range(600)]
    (folder / "a.txt").write_text("".join(rows[:300]))
    (folder / "b.txt").write_text("".join(rows[300:320]))
    (folder / "c.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows[320:400]))
    for part in (0, 1):
        table = pa.table({"n": [1] * 60, "text": rows[400 + 60 * part :][:60]})
        parquet.write_table(table, folder / f"d{part}.parquet")
    (folder / "e.lines").write_text("".join(rows[520:]))
    return folder


@pytest.fixture(scope="module")
def corpus(folder):
    sources = ["*.txt", "datasets:json:*.jsonl", "*.parquet", "datasets:text:*.lines"]
    return Corpus(
        [s.replace("*", f"{folder}/*") for s in sources],
        max_document_bytes=T,
    )


@pytest.fixture(scope="module")
def training(corpus):
    documents = [document for document in corpus if split_of(document, *SHARES) == "train"]
    assert len(documents) == len(set(documents)) > 480
    assert {len(document) for document in documents} == {T}
    return documents


def _module(corpus, tokenizer, rank=0, world=1, window_bytes=2000, batch_size=1, seq_len=T, seed=3):
    stream = Stream(corpus, tokenizer, *SHARES, window_bytes, seq_len, seed)
    module = StreamingDataModule("nowhere", stream, batch_size)
    module.trainer = _Place(rank, world)
    return module


def _batches(module, count):
    """As Lightning does: each batch is noted as served when it is used, one is fetched ahead."""
    batches = []
    for batch in islice(module.train_dataloader(), count):
        module.on_after_batch_transfer(batch, 0)
        batches.append(tuple(part.numpy() for part in batch))
    return batches


def _read(stream, rank, world, epochs=2):
    """A rank's sequences of each epoch; documents, where all have that length."""
    read = [[] for _ in range(epochs)]
    for window in stream.windows(Place(), rank, world):
        if window.place.epoch == epochs:
            return read
        read[window.place.epoch] += map(bytes, window.tokens.reshape(-1, stream.seq_len).tolist())


def _equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("window_bytes", [1000, 10**6])
def test_every_training_document_is_read_once_an_epoch_by_one_rank(
    corpus, training, plain_bytes, world, window_bytes
):
    read: list[list[bytes]] = [[], []]
    for rank in range(world):
        module = _module(corpus, plain_bytes, rank, world, window_bytes)
        for batch in module.train_dataloader():
            module.on_after_batch_transfer(batch, 0)
            if (epoch := module._state.place.epoch) == 2:
                break
            inputs, targets = batch
            assert inputs[0, 0] == 256
            assert (inputs[:, 1:] == targets[:, :-1]).all()
            read[epoch].append(bytes(targets[0].tolist()))
    for epoch in range(2):
        assert Counter(read[epoch]) == Counter(training)
        assert read[epoch] != training


def test_documents_are_packed_into_sequences_as_those_of_shards_are(corpus, training, tokenizer):
    """Documents of a few tokens, cut anywhere: all tokens, and a begin id before each document."""
    ids = tokenizer.encode_batch(training)
    rows = _batches(_module(corpus, tokenizer, window_bytes=10**6, seq_len=7), sum(map(len, ids)) // 7)
    read, there = (Counter(np.concatenate(a, axis=None).tolist()) for a in ([b for _, b in rows], ids))
    assert not read - there
    assert sum((there - read).values()) < 7
    begins = sum(int((inputs == 400).sum()) for inputs, _ in rows)
    assert 0.7 * len(rows) < begins - len(training) <= len(rows)  # and one at the start of a sequence
    for inputs, targets in rows:
        inner = inputs[:, 1:] != 400
        np.testing.assert_array_equal(inputs[:, 1:][inner], targets[:, :-1][inner])


def test_windows_lose_nothing_between_them(corpus, training, tokenizer):
    """Windows put end to end are the training documents, whole, in the order of the units."""
    stream = Stream(corpus, tokenizer, *SHARES, 1000, 7, 0)
    tokens, begins = [], 0
    for window in islice(stream.windows(Place(), 0, 1), 100):
        if window.place.epoch:
            break
        fresh = window.tokens[len(window.place.tokens) :]
        tokens.append(fresh)
        begins += int((window.offsets >= len(window.place.tokens)).sum())
        assert (window.tokens[: len(window.place.tokens)] == window.place.tokens).all()
        assert sorted(window.order) == list(range(window.num_tokens // 7))
    text = tokenizer.decode(np.concatenate(tokens))
    documents = [text[i : i + T] for i in range(0, len(text), T)]
    assert Counter(documents) == Counter(training)
    assert begins == len(training)
    units = np.searchsorted([300, 320, 400, 460, 520], [int(d[9:15]) for d in documents], "right")
    order = np.random.default_rng([0, 0]).permutation(6)
    assert [int(u) for u in dict.fromkeys(units)] == order.tolist()


def test_windows_follow_from_their_places(corpus, tokenizer):
    stream = Stream(corpus, tokenizer, *SHARES, 1500, 7, 0)
    windows = list(islice(stream.windows(Place(), 1, 2), 12))
    assert windows[-1].place.epoch
    for before, after in pairwise(windows):
        kept = before.num_tokens // 7 * 7
        np.testing.assert_array_equal(before.tokens[kept:], after.place.tokens)
        np.testing.assert_array_equal(before.offsets[before.offsets >= kept] - kept, after.place.offsets)
        again = next(stream.windows(after.place, 1, 2))
        for name in ("tokens", "offsets", "order"):
            np.testing.assert_array_equal(getattr(again, name), getattr(after, name))


def test_epochs_and_seeds_have_orders_of_their_own(corpus, training, plain_bytes):
    first = _batches(_module(corpus, plain_bytes), 2 * len(training))
    _equal(_batches(_module(corpus, plain_bytes), 50), first[:50])
    other = _batches(_module(corpus, plain_bytes, seed=4), 50)
    assert any((a[1] != b[1]).any() for a, b in zip(first, other, strict=False))
    targets = np.concatenate([targets for _, targets in first])
    assert (targets[: len(training)] != targets[len(training) :]).any()


@pytest.mark.parametrize("world", [1, 2])
def test_training_goes_on_with_the_same_batches(corpus, tokenizer, world):
    settings = {"world": world, "window_bytes": 1500, "batch_size": 5, "seq_len": 11}
    whole = [_batches(_module(corpus, tokenizer, rank, **settings), 120) for rank in range(world)]
    for cut in (0, 1, 7, 61, 119):  # within windows, at their ends, in the second epoch
        saved = []
        for rank in range(world):
            module = _module(corpus, tokenizer, rank, **settings)
            _batches(module, cut)
            saved.append(module._begin().as_plain())
        for rank in range(world):
            module = _module(corpus, tokenizer, rank, **settings)
            module.load_state_dict({"batches_served": cut, "ranks": saved})
            _equal(_batches(module, 120 - cut), whole[rank][cut:])
            assert module.batches_served == 120


def test_a_batch_that_was_fetched_and_not_used_comes_again(corpus, tokenizer):
    module = _module(corpus, tokenizer)
    loader = iter(module.train_dataloader())
    fetched = [next(loader) for _ in range(3)]
    module.on_after_batch_transfer(fetched[0], 0)
    state = module.state_dict()
    assert state["batches_served"] == 1
    again = _module(corpus, tokenizer)
    again.load_state_dict(state)
    _equal(_batches(again, 2), [tuple(part.numpy() for part in batch) for batch in fetched[1:]])


def test_other_ranks_do_not_go_on(corpus, tokenizer):
    state = _module(corpus, tokenizer).state_dict()
    module = _module(corpus, tokenizer, 0, 2)
    module.load_state_dict(state)
    with pytest.raises(LaconicError, match=r"began with 1 ranks.*2 are to go on: keep training\.devices"):
        next(iter(module.train_dataloader()))


@pytest.mark.parametrize("window_bytes", [1, 10**6])
def test_a_fault_that_ranks_meet_at_different_rows_or_not_at_all_moves_nothing_after_it(
    tmp_path, plain_bytes, monkeypatch, window_bytes
):
    for name in "abcdef":
        (tmp_path / name).write_bytes(b"".join(f"{name}{i:03}\n".encode() for i in range(700)))
    corpus = Corpus([str(tmp_path)], max_document_bytes=5, skip_unreadable=True)
    read, damaged = corpus.read, str(tmp_path / "c")

    def read_less(number, start=0):
        for group, after in read(number, start):
            if rank and corpus.units[number].file.path == damaged and after > 5 * (20 + rank):
                corpus.skips.add(Unreadable("damaged", damaged))
                return
            yield group, after

    monkeypatch.setattr(corpus, "read", read_less)
    found = Counter()
    for rank in range(3):
        for documents in _read(Stream(corpus, plain_bytes, 0.0, 0.0, window_bytes, 5, 0), rank, 3):
            found.update(documents)
    whole = [document for document in found if not document.startswith(b"c")]
    assert len(whole) == 5 * 700
    assert {found[document] for document in whole} == {2}
    # Of the file, rank 0 has its third in both epochs, the others theirs of some 20 rows.
    assert max(found.values()) == 2
    assert 2 * 233 + 2 * 13 <= found.total() - 2 * 5 * 700 <= 2 * 234 + 2 * 15


def test_files_of_a_document_each_are_shared_evenly(tmp_path, plain_bytes):
    for i in range(60):
        (tmp_path / f"{i:02}").write_bytes(b"%04d" % i * 100)
    stream = Stream(Corpus([str(tmp_path)]), plain_bytes, 0.0, 0.0, 1000, 400, 0)
    read = [_read(stream, rank, 3) for rank in range(3)]
    assert [[len(documents) for documents in epochs] for epochs in read] == [[20, 20]] * 3
    assert all(len({*read[0][epoch], *read[1][epoch], *read[2][epoch]}) == 60 for epoch in range(2))


def test_a_rank_that_gets_nothing_of_an_epoch_goes_on_with_the_next(tmp_path, plain_bytes):
    """Units of 2 and 3 documents and 5 ranks: of no order of the units does each rank get one."""
    for name, count in (("a", 2), ("b", 3)):
        (tmp_path / name).write_bytes(b"".join(b"%s%d.\n" % (name.encode(), i) * 1024 for i in range(count)))
    corpus = Corpus([str(tmp_path)], max_document_bytes=4096)
    stream = Stream(corpus, plain_bytes, 0.0, 0.0, 10**6, 4096, 0)
    read = [_read(stream, rank, 5, epochs=5) for rank in range(5)]
    for documents in zip(*read, strict=True):
        assert sorted(d[:2] for epoch in documents for d in epoch) == [b"a0", b"a1", b"b0", b"b1", b"b2"]
    assert all(any(epochs) and not all(epochs) for epochs in read)


def test_a_document_for_each_rank(tmp_path, plain_bytes):
    (tmp_path / "one.txt").write_bytes(b"x" * 20_000)
    corpus = Corpus([str(tmp_path)], max_document_bytes=20_000)
    stream = Stream(corpus, plain_bytes, 1e-6, 0.0, 4000, T, 0)
    module = StreamingDataModule("nowhere", stream, 1)
    module.trainer = _Place(1, 2)
    with pytest.raises(LaconicError, match="has 1 documents to train on, and 2 ranks"):
        next(iter(module.train_dataloader()))


def test_memory_is_bounded_by_the_window(tmp_path, plain_bytes, monkeypatch):
    """A sparse file of 2 GB is begun, and never held: batches come while nearly all of it is unread."""
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2_000_000_000)
    corpus = Corpus([str(tmp_path)])
    module = _module(corpus, plain_bytes, window_bytes=200_000, batch_size=4)
    encoded = []
    encode = plain_bytes.encode_batch
    monkeypatch.setattr(
        plain_bytes, "encode_batch", lambda texts: (encoded.append(sum(map(len, texts))), encode(texts))[1]
    )
    for _ in islice(module.train_dataloader(), 10):
        pass
    assert len(encoded) <= 2
    assert max(encoded) < 200_000 + 65_536


def test_of_rows_a_window_holds_one_more_at_most(tmp_path, plain_bytes):
    row = "word\n" * 30_000  # three documents
    (tmp_path / "rows").write_text(f"{json.dumps({'text': row})}\n" * 4)
    corpus = Corpus([f"datasets:json:{tmp_path}/rows"])
    for window in islice(Stream(corpus, plain_bytes, 0.0, 0.0, 160_000, T, 0).windows(Place(), 0, 1), 2):
        assert window.num_tokens - len(window.place.tokens) == 2 * len(row) < 160_000 + len(row)


@pytest.mark.parametrize("kind", [Rows, PlainFile])
def test_going_on_within_rows_is_said_by_the_first_rank(corpus, plain_bytes, capsys, kind):
    stream = Stream(corpus, plain_bytes, *SHARES, 200, T, 0)
    for window in stream.windows(Place(), 0, 1):
        unit, row = corpus.units[stream._order(0)[window.place.unit]], window.place.start
        if row and isinstance(unit, kind):
            break
    assert not capsys.readouterr().err
    next(stream.windows(window.place, 1, 2))
    next(stream.windows(window.place, 0, 2))
    said = f"reading {unit.name} again up to row {row}\n" if kind is Rows else ""
    assert capsys.readouterr().err == said


def test_a_sample_is_documents_of_the_corpus_from_all_files(corpus):
    documents = set(corpus)
    sample = corpus.sample(2000)
    taken = list(sample)
    assert set(taken) < documents
    assert 1500 < sum(map(len, taken)) < 4000
    numbers = [int(document[9:15]) for document in taken]
    assert set(np.searchsorted([300, 320, 400, 460, 520], numbers, "right")) == set(range(6))  # of all files
    assert set(corpus.sample(10**6)) == documents


def test_a_sample_of_many_files_is_of_some(tmp_path):
    for i in range(300):
        (tmp_path / f"{i:03}").write_bytes(b"%03d\n" % i * 100)
    sample = list(Corpus([str(tmp_path)]).sample(8000))
    assert len(sample) == 20
    assert sample[0].startswith(b"000")
    assert sample[-1].startswith(b"285")


def test_a_sample_of_uneven_files_is_as_large_as_was_asked_for(tmp_path):
    (tmp_path / "large").write_bytes(b"many lines\n" * 10_000)
    for i in range(30):
        (tmp_path / f"small{i}").write_bytes(b"few lines\n" * 20)
    corpus = Corpus([str(tmp_path)], max_document_bytes=1000)
    taken = sum(map(len, corpus.sample(40_000)))
    assert 40_000 <= taken < 41_000


def test_a_place_of_an_older_laconic_is_refused():
    place = _State(Place()).as_plain()
    assert _State.from_plain(place).used == 0
    with pytest.raises(LaconicError, match="begun by an older laconic"):
        _State.from_plain(place | {"before": 3})
