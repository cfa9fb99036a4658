import subprocess
import sys

import pytest

from laconic.coder.errors import LaconicError
from laconic.models.tokenizer import train_tokenizer

DOCUMENTS = [b"pieces of text, number %d: %d\n" % (i, i * i * i) for i in range(1500)] + [bytes(range(256))]

TRAIN = """
import hashlib, sys
from laconic.models.tokenizer import train_tokenizer
documents = [b"pieces of text, number %d: %d\\n" % (i, i * i * i) for i in range(1500)] + [bytes(range(256))]
for kind, size in (("bpe", 500), ("wordpiece", 700), ("unigram", 400)):
    print(hashlib.sha256(train_tokenizer(documents, kind, size).to_json().encode()).hexdigest())
"""


def test_training_is_the_same_in_every_process():
    # The library's hash tables are seeded anew in each process, so one process would prove nothing.
    runs = {
        subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, check=True).stdout
        for _ in range(3)
    }
    assert len(runs) == 1
    assert len(runs.pop().split()) == 3


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_vocabulary_beyond_the_corpus_is_what_the_corpus_has(kind):
    documents = [b"abc abd abe " * 20]
    most = train_tokenizer(documents, kind, 5000)
    assert most.vocab_size < 600
    assert most.to_json() == train_tokenizer(documents, kind, most.vocab_size).to_json()


@pytest.mark.parametrize(
    ("kind", "size", "relation"),
    [
        ("bpe", 255, "at least 256"),
        ("unigram", 256, "at least 257"),
        ("wordpiece", 511, "at least 512"),
        ("bytes", 255, "exactly 256"),
        ("bytes", 300, "exactly 256"),
    ],
)
def test_a_vocabulary_below_the_alphabet_is_refused(kind, size, relation):
    with pytest.raises(LaconicError, match=relation):
        train_tokenizer(DOCUMENTS, kind, size)


@pytest.mark.parametrize(
    ("kind", "size"), [("bpe", 256), ("wordpiece", 512), ("unigram", 257), ("bytes", 256)]
)
def test_the_alphabet_alone_is_a_tokenizer(kind, size):
    tokenizer = train_tokenizer(DOCUMENTS[:50], kind, size)
    data = bytes(range(256)) * 2
    assert tokenizer.decode(tokenizer.encode(data)) == data
    assert len(tokenizer.encode(data)) in (510, 511, 512)


def test_an_unknown_kind_is_refused():
    with pytest.raises(LaconicError, match="bpe, wordpiece, unigram, bytes"):
        train_tokenizer(DOCUMENTS, "words", 1000)


def test_documents_may_come_from_a_generator():
    tokenizer = train_tokenizer((d for d in DOCUMENTS), "bpe", 300)
    assert tokenizer.token_bytes == train_tokenizer(DOCUMENTS, "bpe", 300).token_bytes
    assert b" number" in train_tokenizer(DOCUMENTS, "bpe", 500).token_bytes
