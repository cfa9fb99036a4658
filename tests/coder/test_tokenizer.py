import argparse
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coder.errors import LaconicError
from laconic.coder.tokenizer import (
    KINDS,
    ByteTokenizer,
    bytes_to_text,
    chunks,
    text_to_bytes,
    tokenizer_json,
)
from laconic.models.tokenizer import train_tokenizer

TEXT = Path(argparse.__file__).read_bytes()
SIZES = {"bpe": 400, "wordpiece": 700, "unigram": 400, "bytes": 256}
AWKWARD = [
    b"",
    b"\0",
    bytes(range(256)),
    bytes(range(255, -1, -1)) * 3,
    b"\x85\xa0 \x85 \xa0\n",
    b"\xff\xfe\xc0\x80 \xed\xa0\x80 \xe4\xb8",
    b"## [UNK] <unk> </s> ##a",
    b" " * 1000 + b"x" + b"\t\n " * 99,
    b"a" * 1000 + b" " + b"7" * 100,
    TEXT,
]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return train_tokenizer([TEXT], request.param, SIZES[request.param])


@pytest.fixture(scope="module")
def by_kind():
    return {kind: train_tokenizer([TEXT], kind, SIZES[kind]) for kind in KINDS}


@pytest.mark.parametrize("data", AWKWARD, ids=range(len(AWKWARD)))
def test_awkward_bytes_come_back(tokenizer, data):
    ids = tokenizer.encode(data)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == data
    assert tokenizer.byte_lengths[ids].sum() == len(data)


@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=80).map(lambda s: s.encode("utf-8"))))
def test_any_bytes_come_back(by_kind, data):
    for tokenizer in by_kind.values():
        ids = tokenizer.encode(data)
        assert tokenizer.decode(ids) == data
        assert tokenizer.byte_lengths[ids].sum() == len(data)


def test_vocabulary_is_dense_and_without_empty_tokens(tokenizer):
    assert tokenizer.vocab_size == SIZES[tokenizer.kind] == len(tokenizer.token_bytes)
    assert all(tokenizer.token_bytes)
    assert tokenizer.byte_lengths.tolist() == [len(t) for t in tokenizer.token_bytes]
    assert {bytes([b]) for b in range(256)} <= set(tokenizer.token_bytes)
    assert max(tokenizer.byte_lengths) <= 64


def test_ids_are_in_the_order_of_their_bytes(tokenizer):
    assert tokenizer.token_bytes == sorted(tokenizer.token_bytes)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_ids_in_another_order_are_refused(by_kind, kind):
    document = json.loads(by_kind[kind].to_json())
    vocab = document["model"]["vocab"]
    first, second = (next(text for text, number in vocab.items() if number == wanted) for wanted in (7, 8))
    if text_to_bytes(first.removeprefix("##")) == text_to_bytes(second.removeprefix("##")):
        second = next(text for text, number in vocab.items() if number == 9)
    vocab[first], vocab[second] = vocab[second], vocab[first]
    with pytest.raises(LaconicError, match="not in the order of their bytes"):
        ByteTokenizer(json.dumps(document))


def test_learnt_tokens_shorten_text(by_kind):
    for kind in ("bpe", "wordpiece", "unigram"):
        assert len(by_kind[kind].encode(TEXT)) < 0.7 * len(TEXT)


def test_batches_are_encoded_like_single_strings(tokenizer):
    for data, ids in zip(AWKWARD, tokenizer.encode_batch(AWKWARD), strict=True):
        np.testing.assert_array_equal(ids, tokenizer.encode(data))
    assert tokenizer.encode_batch([]) == []


def test_long_input_has_the_tokens_of_its_parts(by_kind):
    text = TEXT * 3
    assert len(chunks(text)) > 3
    tokenizer = by_kind["bpe"]
    whole = tokenizer._engine.encode(bytes_to_text(text)).ids
    assert tokenizer.encode(text).tolist() == whole


def test_twenty_megabytes_of_zeros(by_kind):
    data = bytes(20_000_000)
    ids = by_kind["bytes"].encode(data)
    assert len(ids) == len(data)
    assert (ids == ids[0]).all()


@pytest.mark.slow
def test_twenty_megabytes_of_zeros_with_learnt_tokens(tokenizer):
    data = bytes(20_000_000)
    assert tokenizer.decode(tokenizer.encode(data)) == data


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=600), limit=st.integers(1, 64))
def test_chunks_put_end_to_end_are_the_data(data, limit):
    cut = chunks(data, limit)
    assert b"".join(cut) == data
    assert all(len(chunk) <= limit for chunk in cut)
    assert all(cut) or data == b""


def test_pieces_are_short_and_cover_everything(by_kind):
    pre_tokenizer = by_kind["bpe"]._engine.pre_tokenizer
    data = b"".join(AWKWARD)
    pieces = [text_to_bytes(piece) for piece, _ in pre_tokenizer.pre_tokenize_str(bytes_to_text(data))]
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 64


def test_pieces_follow_the_rules(by_kind):
    pre_tokenizer = by_kind["bpe"]._engine.pre_tokenizer
    text = "Hello,  wörld 12345\n\n    x += 'a';\t\n".encode()
    pieces = [text_to_bytes(piece) for piece, _ in pre_tokenizer.pre_tokenize_str(bytes_to_text(text))]
    expected = ["Hello", ",", " ", " wörld", " 123", "45", "\n\n   ", " x", " +=", " '", "a", "';", "\t\n"]
    assert pieces == [p.encode() for p in expected]


@given(st.binary())
def test_text_stands_for_bytes(data):
    text = bytes_to_text(data)
    assert [ord(c) - 0x100 for c in text] == list(data)
    assert text_to_bytes(text) == data


def test_other_characters_are_refused():
    for text in ("a", "\u0200", "\U0001f600\u0101"):
        with pytest.raises(LaconicError, match="stand for no byte"):
            text_to_bytes(text)


def test_json_comes_back(tokenizer, tmp_path):
    again = ByteTokenizer.from_json(tokenizer.to_json())
    assert again.to_json() == tokenizer.to_json()
    assert (again.kind, again.token_bytes) == (tokenizer.kind, tokenizer.token_bytes)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = ByteTokenizer.load(tmp_path / "tokenizer.json")
    np.testing.assert_array_equal(loaded.encode(TEXT), tokenizer.encode(TEXT))
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tokenizer, tmp_path, monkeypatch):
    path, flushed = tmp_path / "tokenizer.json", []
    monkeypatch.setattr(os, "fsync", lambda n: flushed.append((os.fstat(n).st_size, path.exists())))
    tokenizer.save(path)
    assert flushed == [(len(tokenizer.to_json().encode()), False)]


def _changed(tokenizer, change):
    document = json.loads(tokenizer.to_json())
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("model"),
        lambda d: d.update(normalizer={"type": "NFC"}),
        lambda d: d.update(pre_tokenizer=None),
        lambda d: d["pre_tokenizer"]["pattern"].update(Regex=r"\s+"),
        lambda d: d["model"].update(type="WordLevel"),
        lambda d: d["model"]["vocab"].pop("\u0100"),
        lambda d: d["model"]["vocab"].update({"\u0100\u0101": 9999}),
        lambda d: d["model"]["vocab"].update({"plain": 400}),
        lambda d: d["model"]["vocab"].update({"": 400}),
        lambda d: d["model"].update(vocab=7),
    ],
    ids=range(10),
)
def test_foreign_and_damaged_tokenizers_are_refused(by_kind, change):
    with pytest.raises(LaconicError):
        ByteTokenizer.from_json(_changed(by_kind["bpe"], change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "{}", "[" * 200_000], ids=range(7))
def test_what_is_not_a_tokenizer_is_refused(text):
    with pytest.raises(LaconicError, match="not a tokenizer"):
        ByteTokenizer.from_json(text)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(LaconicError, match="cannot read the tokenizer"):
        ByteTokenizer.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    with pytest.raises(LaconicError, match=r"bad\.json"):
        ByteTokenizer.load(tmp_path / "bad.json")


def test_wordpiece_marks_are_not_bytes(by_kind):
    document = json.loads(by_kind["wordpiece"].to_json())
    marked = [t for t in document["model"]["vocab"] if t.startswith("##")]
    assert len(marked) >= 256
    assert tokenizer_json(document["model"]) == by_kind["wordpiece"].to_json()
    assert by_kind["wordpiece"].decode(by_kind["wordpiece"].encode(b"##")) == b"##"


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["model"].update(dropout=0.5),
        lambda document: document.update(truncation={"max_length": 9}),
        lambda document: document.update(normalizer={"type": "NFC"}),
        lambda document: document["model"].update(unk_token="x"),
    ],
)
def test_options_that_change_the_ids_are_refused(change):
    document = json.loads(train_tokenizer([], "bytes", 256).to_json())
    ByteTokenizer(json.dumps(document))
    change(document)
    with pytest.raises(LaconicError, match="not as laconic writes"):
        ByteTokenizer(json.dumps(document))
