import hashlib
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from laconic.coder.errors import LaconicError
from laconic.data import shards as shards_module
from laconic.data.batches import sequence_batch
from laconic.data.corpus import Corpus
from laconic.data.shards import build_shards, open_shard, read_manifest, shard_path
from laconic.data.splits import SPLITS
from laconic.data.tokenshard import HEADER_BYTES, ShardWriter, TokenShard, item_size
from laconic.models.tokenizer import train_tokenizer


def test_shards_hold_each_document_once(shard_folder, text_folder, tokenizer):
    corpus = Corpus([str(text_folder)])
    for split in SPLITS:
        documents = list(corpus.documents(split, 0.1, 0.05))
        shard = TokenShard.open(shard_path(shard_folder, split))
        assert shard.num_documents == len(documents) == len(shard.offsets) - 1 > 0
        assert shard.tokens.dtype == np.uint16
        assert shard.offsets.dtype == np.int64
        for document, (begin, end) in zip(documents, pairwise(shard.offsets), strict=True):
            assert tokenizer.decode(shard.tokens[begin:end]) == document
        assert shard.num_tokens == len(shard.tokens) == shard.offsets[-1]
        assert shard.num_bytes == sum(map(len, documents)) == tokenizer.byte_lengths[shard.tokens].sum()
        assert shard.sha256 == hashlib.sha256(b"".join(documents)).hexdigest()
        assert shard.tokenizer_sha256 == hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
        assert shard.vocab_size == 400


def test_the_manifest_describes_the_build(shard_folder, text_folder):
    manifest = read_manifest(shard_folder)
    assert manifest["build"]["sources"] == [str(text_folder)]
    assert [size for _, size, _ in manifest["build"]["files"]] == [
        f.size for f in Corpus([str(text_folder)]).files
    ]
    total = sum(split["bytes"] for split in manifest["splits"].values())
    assert total == Corpus([str(text_folder)]).total_bytes


@pytest.fixture
def corpus_folder(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(300):
        (folder / f"{i:03}").write_bytes(b"document number %d, of some length\n" % i * 5)
    return folder


def _build(corpus_folder, out, tokenizer, **shares):
    return build_shards(Corpus([str(corpus_folder)]), tokenizer, out, **({"validation_share": 0.1} | shares))


def _times(out):
    return {name: os.stat(out / name).st_mtime_ns for name in sorted(os.listdir(out))}


def test_what_is_there_is_not_built_again(corpus_folder, tmp_path, tokenizer):
    out = tmp_path / "out"
    first = _build(corpus_folder, out, tokenizer)
    times = _times(out)
    assert list(times) == ["manifest.json", "test.tokens", "train.tokens", "validation.tokens"]
    again = _build(corpus_folder, out, tokenizer)
    assert _times(out) == times
    assert again["train"].sha256 == first["train"].sha256


def test_another_corpus_tokenizer_or_share_is_built_anew(corpus_folder, tmp_path, tokenizer):
    out = tmp_path / "out"
    before = _build(corpus_folder, out, tokenizer)["train"]
    assert _build(corpus_folder, out, tokenizer, validation_share=0.2)["train"].num_bytes < before.num_bytes
    (corpus_folder / "new").write_bytes(b"one more document\n" * 9)
    assert sum(s.num_documents for s in _build(corpus_folder, out, tokenizer).values()) == 301
    other = train_tokenizer([b""], "bytes", 256)
    shard = _build(corpus_folder, out, other)["train"]
    assert shard.vocab_size == 256
    os.utime(corpus_folder / "new", ns=(1, 1))
    times = _times(out)
    _build(corpus_folder, out, other)
    assert _times(out) != times


@pytest.mark.parametrize("name", ["train.tokens", "manifest.json"])
def test_a_damaged_build_is_redone(corpus_folder, tmp_path, tokenizer, name):
    out = tmp_path / "out"
    whole = _build(corpus_folder, out, tokenizer)["train"]
    sha256 = hashlib.sha256(whole.path.read_bytes()).digest()
    with open(out / name, "r+b") as file:
        file.truncate(100)
    _build(corpus_folder, out, tokenizer)
    assert hashlib.sha256(whole.path.read_bytes()).digest() == sha256


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("cleaned", [True, False])
def test_an_interrupted_build_is_redone(corpus_folder, tmp_path, tokenizer, monkeypatch, cleaned):
    out, whole = tmp_path / "out", tmp_path / "whole"
    _build(corpus_folder, out, tokenizer, validation_share=0.3)
    _build(corpus_folder, whole, tokenizer)

    with monkeypatch.context() as patch:
        patch.setattr(shards_module, "BATCH_BYTES", 10_000)
        calls = []

        def encode_twice(batch, encode=tokenizer.encode_batch):
            calls.append(len(batch))
            if len(calls) > 2:
                raise _Killed
            return encode(batch)

        patch.setattr(tokenizer, "encode_batch", encode_twice, raising=False)
        if not cleaned:  # as after a power cut: nobody removes the partial files
            patch.setattr(ShardWriter, "discard", lambda self: None)
        with pytest.raises(_Killed):
            _build(corpus_folder, out, tokenizer)
    assert not (out / "manifest.json").exists()
    assert bool(list(out.glob("*.partial"))) == (not cleaned)
    _build(corpus_folder, out, tokenizer)
    assert list(_times(out)) == list(_times(whole))
    for split in SPLITS:
        assert shard_path(out, split).read_bytes() == shard_path(whole, split).read_bytes()


def test_killed_between_the_shards_is_redone(corpus_folder, tmp_path, tokenizer, monkeypatch):
    out = tmp_path / "out"

    def die(*args):
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(shards_module, "_write_manifest", die)
        with pytest.raises(_Killed):
            _build(corpus_folder, out, tokenizer)
    times = _times(out)
    assert "manifest.json" not in times
    _build(corpus_folder, out, tokenizer)
    assert _times(out) != times


def test_an_empty_split_is_refused_and_leaves_nothing(tmp_path, tokenizer):
    (tmp_path / "one").write_bytes(b"no line breaks here " * 5000)
    corpus = Corpus([str(tmp_path / "one")], max_document_bytes=65_536)
    with pytest.raises(
        LaconicError, match=r"2 documents none fell to the \w+ split.* a larger data.validation_share"
    ):
        build_shards(corpus, tokenizer, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_split_without_a_share_may_be_empty(corpus_folder, tmp_path, tokenizer):
    test = _build(corpus_folder, tmp_path / "out", tokenizer, test_share=0.0)["test"]
    assert (test.num_tokens, test.num_documents, test.offsets.tolist()) == (0, 0, [0])


def test_too_few_rows_are_refused(tmp_path, tokenizer):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "short"}) + "\n")
    with pytest.raises(LaconicError, match="holds 5 bytes, at least 20,000"):
        build_shards(Corpus([f"datasets:json:{tmp_path}/rows.jsonl"]), tokenizer, tmp_path / "out")


@pytest.fixture
def shard(corpus_folder, tmp_path, tokenizer):
    _build(corpus_folder, tmp_path / "out", tokenizer)
    return shard_path(tmp_path / "out", "train")


def test_every_byte_of_the_header_is_guarded(shard):
    whole = shard.read_bytes()
    for place in range(HEADER_BYTES):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(LaconicError):
            TokenShard.open(shard)


@pytest.mark.parametrize("size", [0, 7, 8, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 100, -8, -1])
def test_truncated_shards_are_refused(shard, size):
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(LaconicError, match="build the shards again"):
        TokenShard.open(shard)


def test_grown_shards_and_damaged_offsets_are_refused(shard):
    whole = shard.read_bytes()
    shard.write_bytes(whole + b"\0")
    with pytest.raises(LaconicError, match="its header says"):
        TokenShard.open(shard)
    shard.write_bytes(whole[:-12] + b"\xff" + whole[-11:])
    with pytest.raises(LaconicError, match="damaged offsets"):
        TokenShard.open(shard)
    with pytest.raises(LaconicError, match="is not there"):
        TokenShard.open(shard.with_name("none"))


def _flip(path, place):
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)


def test_damaged_tokens_are_noticed_and_built_again(corpus_folder, tmp_path, tokenizer):
    out = tmp_path / "out"
    whole = _build(corpus_folder, out, tokenizer)["train"].path.read_bytes()
    path = shard_path(out, "train")
    assert open_shard(out, "train").digest() == read_manifest(out)["splits"]["train"]["tokens_blake2b"]
    _flip(path, HEADER_BYTES + 500)
    with pytest.raises(LaconicError, match=r"train\.tokens is damaged: its tokens .* build the shards again"):
        open_shard(out, "train")
    open_shard(out, "validation")
    _build(corpus_folder, out, tokenizer)
    assert path.read_bytes() == whole
    open_shard(out, "train")


def test_shards_of_a_manifest_without_checksums_are_read(corpus_folder, tmp_path, tokenizer):
    out = tmp_path / "out"
    _build(corpus_folder, out, tokenizer)
    manifest = read_manifest(out)
    for split in manifest["splits"].values():
        del split["tokens_blake2b"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    times = _times(out)
    _build(corpus_folder, out, tokenizer)
    assert _times(out) == times
    assert open_shard(out, "train").num_tokens


def test_tokens_beyond_the_vocabulary_never_reach_a_batch(shard):
    sound = TokenShard.open(shard)
    assert sound.take(np.arange(10)).tolist() == sound.tokens[:10].tolist()
    whole = bytearray(shard.read_bytes())
    whole[HEADER_BYTES + 7] = 0xFF  # the high byte of the fourth token
    shard.write_bytes(whole)
    with pytest.raises(LaconicError, match=r"it has token 65\d+, the largest is 399: remove folder"):
        sequence_batch(TokenShard.open(shard), [0], 16, 400, 0)


def test_large_vocabularies_take_four_bytes(tmp_path):
    assert (item_size(65_536), item_size(65_537)) == (2, 4)
    writer = ShardWriter(tmp_path / "large.tokens", 100_000, bytes(32))
    writer.add([b"some bytes"], [np.array([99_999, 0, 70_000], dtype=np.int32)])
    writer.close()
    shard = TokenShard.open(tmp_path / "large.tokens")
    assert shard.tokens.dtype == np.uint32
    assert shard.tokens.tolist() == [99_999, 0, 70_000]
    assert os.listdir(tmp_path) == ["large.tokens"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="has no device that is always full")
def test_a_full_disk_leaves_nothing(tmp_path):
    (tmp_path / "train.tokens.partial").symlink_to("/dev/full")
    writer = ShardWriter(tmp_path / "train.tokens", 400, bytes(32))
    writer.add([b"some bytes"], [np.array([1, 2, 3], dtype=np.int32)])
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    writer.discard()
    assert not os.listdir(tmp_path)
