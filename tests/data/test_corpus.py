import os
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coder.errors import LaconicError
from laconic.data.corpus import Corpus, cut
from laconic.data.sources import resolve

LINES = b"".join(b"line %d of a text that is long enough, \xff\x00\r\n" % i for i in range(1200))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b" / "inner").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "b" / "two.txt").write_bytes(LINES)
    (tmp_path / "b" / "inner" / "rows.jsonl").write_bytes(b'{"text": "kept as it is"}\n' * 900)
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / ".secret").write_bytes(b"x" * 30_000)
    (tmp_path / ".hidden" / "more").write_bytes(b"x" * 30_000)
    return tmp_path


def _names(corpus):
    return [Path(file.path).name for file in corpus.files]


def test_a_folder_gives_its_files_sorted_and_exactly_as_stored(folder):
    corpus = Corpus([str(folder)])
    assert _names(corpus) == ["a.bin", "empty", "two.txt", "rows.jsonl"]
    stored = b"".join(Path(file.path).read_bytes() for file in corpus.files)
    assert b"".join(corpus) == stored
    assert corpus.total_bytes == len(stored)
    assert list(corpus) == list(corpus)


def test_patterns_and_duplicates(folder):
    corpus = Corpus([str(folder / "**" / "*.txt"), str(folder / "b" / "two.txt"), str(folder / "b")])
    assert _names(corpus) == ["two.txt", "rows.jsonl"]
    os.symlink(folder / "a.bin", folder / "link.bin")
    assert _names(Corpus([str(folder / "*.bin")])) == ["a.bin"]


def test_linked_folders_are_read_once_and_circles_end(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("elsewhere")
    (outside / "three.txt").write_bytes(LINES)
    os.symlink(outside, folder / "link")
    os.symlink(outside, folder / "same")
    os.symlink(folder, outside / "circle")
    os.symlink(folder.parent, folder / "up")
    names = _names(Corpus([str(folder)]))
    assert names == ["a.bin", "empty", "two.txt", "rows.jsonl", "three.txt"]


def test_a_name_with_brackets_is_a_name_first(folder):
    (folder / "a[1].txt").write_bytes(LINES)
    assert _names(Corpus([str(folder / "a[1].txt")])) == ["a[1].txt"]


def test_documents_end_at_newlines_and_within_the_bound(folder):
    corpus = Corpus([str(folder / "b" / "two.txt")])
    assert corpus.max_document_bytes == 512
    documents = list(corpus)
    assert len(documents) > 50
    assert all(0 < len(document) <= 512 and document.endswith(b"\n") for document in documents)


@pytest.mark.parametrize(("size", "bound"), [(20_000, 512), (400_000, 1000), (40_000_000, 65_536)])
def test_the_bound_follows_the_size(tmp_path, size, bound):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(size)
    assert Corpus([str(tmp_path)]).max_document_bytes == bound
    assert Corpus([str(tmp_path)], max_document_bytes=777).max_document_bytes == 777


@given(data=st.binary(max_size=400).map(lambda b: b.replace(b"\1", b"\n")), bound=st.integers(1, 50))
def test_cuts_put_end_to_end_are_the_data(data, bound):
    documents = list(cut(data, bound))
    assert b"".join(documents) == data
    assert all(0 < len(document) <= bound for document in documents)


def test_a_file_is_cut_as_its_bytes_are(folder):
    corpus = Corpus([str(folder / "b" / "two.txt")], max_document_bytes=100)
    assert list(corpus) == list(cut(LINES, 100))


def test_splits_of_a_corpus_are_its_documents(folder):
    corpus = Corpus([str(folder)])
    parts = [list(corpus.documents(s, 0.2, 0.1)) for s in ("train", "validation", "test")]
    assert sorted(chain.from_iterable(parts)) == sorted(corpus)
    assert all(parts)


def _refused(sources, match):
    with pytest.raises(LaconicError, match=match) as error:
        b"".join(Corpus(sources))
    assert "\n" not in str(error.value)


def test_bad_paths_are_refused(folder, tmp_path):
    _refused([], "no corpus is given")
    _refused([str(folder / "none")], "no such file or folder")
    _refused([str(folder / "*.none")], "no file matches")
    (tmp_path / "void").mkdir()
    (tmp_path / "void" / ".only").write_bytes(LINES)
    _refused([str(tmp_path / "void")], "holds no files")
    os.mkfifo(folder / "pipe")
    _refused([str(folder / "pipe")], "not a regular file")
    os.symlink(folder / "gone", folder / "dangling")
    _refused([str(folder)], "cannot read .*dangling")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(folder):
    (folder / "a.bin").chmod(0)
    _refused([str(folder / "a.bin")], "permission denied")


def test_a_file_that_vanishes_is_refused(folder):
    corpus = Corpus([str(folder / "a.bin")])
    (folder / "a.bin").unlink()
    with pytest.raises(LaconicError, match=r"cannot read .*a\.bin"):
        list(corpus)


def test_the_output_folder_is_no_corpus(folder, monkeypatch):
    out = folder / "runs" / "mine"
    (out / "shards").mkdir(parents=True)
    (out / "shards" / "train.txt").write_bytes(LINES)
    (folder / "runs" / "mine2.txt").write_bytes(LINES)
    expected = ["a.bin", "empty", "two.txt", "rows.jsonl", "mine2.txt"]
    assert _names(Corpus([str(folder)], exclude=out)) == expected
    monkeypatch.chdir(folder)
    assert _names(Corpus(["."], exclude=Path("runs/mine"))) == expected
    assert _names(Corpus(["**/*.txt"], exclude=Path("runs/mine"))) == ["two.txt", "mine2.txt"]
    (part,) = resolve(["datasets:text:runs/**/*.txt"], out)
    assert part.file.path == "runs/mine2.txt"
    with pytest.raises(LaconicError, match=r"holds no files .* and the output folder are skipped"):
        Corpus(["runs/mine"], exclude=Path("runs/mine"))


def test_too_little_text_is_refused(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    _refused([str(tmp_path)], "the corpus is empty, at least 20,000 bytes are needed")
    (tmp_path / "small").write_bytes(bytes(19_999))
    _refused([str(tmp_path)], "19,999 bytes, at least 20,000")
