import csv
import json
import os

import pytest

from laconic.coder.errors import LaconicError
from laconic.data.corpus import Corpus
from laconic.data.sources import Rows, Unreadable, resolve

TEXTS = [f'row {i}: naïve, 漢字, "quoted"\nand\ttabs 😀' for i in range(50)]
STORED = [text.encode("utf-8") for text in TEXTS]


@pytest.fixture
def jsonl(tmp_path):
    rows = [{"id": i, "text": text, "title": f"t{i}"} for i, text in enumerate(TEXTS)]
    rows[7]["text"] = ""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _read(source):
    return list(Corpus([source]))


def test_json_lines(jsonl):
    assert _read(f"datasets:json:{jsonl}") == STORED[:7] + STORED[8:]
    assert _read(f"datasets:json:{jsonl}:title")[3] == b"t3"
    assert len(_read(f"datasets:json:{jsonl.parent}/*.jsonl:text")) == 49


def test_csv(tmp_path):
    path = tmp_path / "rows.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "body"])
        writer.writerows(enumerate(TEXTS))
    assert _read(f"datasets:csv:{path}") == STORED
    assert _read(f"datasets:csv:{path}:body") == STORED


def test_parquet_with_binary_data_and_nulls(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    data = [bytes(range(256)), None, b"", b"\xff\xfe"]
    table = pa.table({"number": [1, 2, 3, 4], "data": pa.array(data, pa.binary())})
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert _read(str(tmp_path)) == [bytes(range(256)), b"\xff\xfe"]
    assert _read(f"datasets:parquet:{tmp_path}/*.parquet:data") == [bytes(range(256)), b"\xff\xfe"]


def test_text_rows_are_lines_with_their_bytes_as_stored(tmp_path):
    stored = b"first \xff\xfe\n\nthird \x00\x85\x0c\xe2\x80\xa8 end\n" * 20 + b"no line break"
    (tmp_path / "lines.txt").write_bytes(stored)
    rows = _read(f"datasets:text:{tmp_path}/lines.txt")
    assert b"".join(rows) == stored
    assert len(rows) == 61


@pytest.mark.parametrize("builder", ["json", "csv", "parquet", "text"])
def test_a_name_is_no_pattern(builder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    names = ["part1", "part[1]", "sole[2]", "a?b", "ab*", "[3]/part1", "3/part1"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if builder == "parquet":
            parquet.write_table(pa.table({"text": [f"row of {name}"]}), str(path))
        else:
            first = {"json": '{"text": "%s"}', "csv": "text\n%s", "text": "%s"}[builder]
            path.write_text(first % f"row of {name}")
    rows = [row.decode() for row in _read(f"datasets:{builder}:{tmp_path}/**:")]
    assert sorted(rows) == sorted(f"row of {name}" for name in names)
    path.rename(tmp_path / "a::b")
    with pytest.raises(Unreadable, match=r"cannot read .*a::b, for its path holds '::'"):
        _read(f"datasets:{builder}:{tmp_path}/a::b")


def test_long_rows_are_cut(tmp_path):
    (tmp_path / "long.txt").write_bytes(b"x" * 150_000)
    assert [len(row) for row in _read(f"datasets:text:{tmp_path}/long.txt")] == [65_536, 65_536, 18_928]


def test_files_and_rows_mix_and_no_file_is_read_twice(jsonl):
    plain = jsonl.with_name("plain.txt")
    plain.write_bytes(bytes(25_000))
    corpus = Corpus([str(plain), f"datasets:json:{jsonl}", str(jsonl.parent), str(jsonl)])
    assert b"".join(corpus) == bytes(25_000) + b"".join(STORED[:7] + STORED[8:])


def test_hub_names_are_parsed():
    (part,) = resolve(["datasets:wikimedia/wikipedia@20231101.en:test:body"])
    assert part == Rows(part.name, "wikimedia/wikipedia", None, "body", "20231101.en", "test")
    (part,) = resolve(["datasets:squad"])
    assert part == Rows("datasets:squad", "squad", None, None, None, "train")


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("datasets:", "malformed"),
        ("datasets:name:train:text:more", "malformed"),
        ("datasets:json", "names no files"),
        ("datasets:json:", "names no files"),
        ("datasets:json:/nowhere/at/all.jsonl", "no such file"),
        ("datasets:json:/nowhere/*.jsonl:text", "no file matches"),
    ],
)
def test_malformed_sources_are_refused(source, match):
    with pytest.raises(LaconicError, match=match):
        resolve([source])


def test_columns_that_are_missing_or_unclear_are_refused_with_what_is_there(jsonl, tmp_path):
    with pytest.raises(LaconicError, match="no column 'body' of text; columns of text: text, title"):
        _read(f"datasets:json:{jsonl}:body")
    with pytest.raises(LaconicError, match="no column 'id' of text"):
        _read(f"datasets:json:{jsonl}:id")
    two = tmp_path / "two.jsonl"
    two.write_text('{"a": "x", "b": "y"}\n')
    with pytest.raises(LaconicError, match=r"does not say which column .* of text: a, b"):
        _read(f"datasets:json:{two}")
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text('{"n": 1}\n')
    with pytest.raises(LaconicError, match=r"columns of text: none \(of n\)"):
        _read(f"datasets:json:{numbers}")


@pytest.fixture
def damaged(tmp_path):
    """Files of 40 rows, damaged after some, and one that is sound."""
    parquet = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    lines = [json.dumps({"text": f"row {i} " + 20 * "word "}) + "\n" for i in range(40)]
    (tmp_path / "sound.jsonl").write_text("".join(lines))
    (tmp_path / "cut.jsonl").write_text("".join(lines)[:2000])
    (tmp_path / "row.jsonl").write_text("".join([*lines[:20], '{"text": "no end\n', *lines[20:]]))
    (tmp_path / "empty.jsonl").write_bytes(b"")
    rows = pa.table({"text": [f"row {i} of some length" for i in range(5000)]})
    parquet.write_table(rows, tmp_path / "cut.parquet", row_group_size=1000)
    whole = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.parquet").write_bytes(whole[:200] + bytes(2000) + whole[2200:])
    return tmp_path


@pytest.mark.parametrize("name", ["cut.jsonl", "row.jsonl", "cut.parquet", "page.parquet"])
def test_damage_is_named_with_its_remedy(damaged, name):
    with pytest.raises(LaconicError, match=rf"cannot read .*{name}: .*set data\.skip_unreadable") as error:
        _read(f"datasets:{'json' if name.endswith('l') else 'parquet'}:{damaged}/{name}")
    assert "\n" not in str(error.value)


def test_unreadable_files_are_left_out_where_that_is_asked_for(damaged, capsys):
    (damaged / "plain.txt").write_bytes(bytes(25_000))
    os.symlink(damaged / "gone", damaged / "dangling.txt")
    sources = [f"datasets:json:{damaged}/*.jsonl", f"{damaged}/*.txt", f"{damaged}/*.parquet"]
    corpus = Corpus(sources, skip_unreadable=True)
    documents = list(corpus)
    assert sum(document.startswith(b"row ") and b"word" in document for document in documents) == 40
    assert b"".join(documents).endswith(bytes(25_000))
    names = {"cut.jsonl", "row.jsonl", "dangling.txt", "cut.parquet", "page.parquet"}
    assert {os.path.basename(name) for name in corpus.skips} == names
    assert list(corpus) == documents
    assert capsys.readouterr().err.count("left out: ") == len(names)  # each once
    assert "No such file" in corpus.skips[str(damaged / "dangling.txt")]


def test_rows_go_on_from_a_place(jsonl):
    (unit,) = resolve([f"datasets:json:{jsonl}"])
    rows = list(unit.values())
    assert [after for _, after in rows] == [*range(1, 8), *range(9, 51)]
    for start in (0, 3, 7, 8, 49, 50):
        assert list(unit.values(start)) == [row for row in rows if row[1] > start]


def test_damage_moves_no_row_wherever_reading_begins(tmp_path, monkeypatch):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "damaged.parquet"
    parquet.write_table(pa.table({"text": [f"row {i}" for i in range(1000)]}), path, row_group_size=100)
    column = parquet.ParquetFile(path).metadata.row_group(6).column(0)
    _blank(path, column.dictionary_page_offset or column.data_page_offset)
    monkeypatch.setattr("laconic.data.sources.ROWS_AT_A_TIME", 150)
    (unit,) = resolve([str(path)])
    read = {}
    for start in (0, 130, 150, 449):
        read[start] = []
        with pytest.raises(Unreadable):
            read[start].extend(unit.values(start))
    assert read[0]
    for start, rows in read.items():  # the library reads ahead, so that damage is met sooner or later
        numbers = range(start + 1, start + 1 + len(rows))
        assert rows == [(b"row %d" % (number - 1), number) for number in numbers if number <= 600]


def _blank(path, begin):
    whole = path.read_bytes()
    path.write_bytes(whole[:begin] + bytes(60) + whole[begin + 60 :])


def test_damaged_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n{"text": \n' * 5)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing of the kind" * 9)
    for source in (f"datasets:json:{tmp_path}/bad.jsonl", str(tmp_path / "bad.parquet")):
        with pytest.raises(LaconicError, match="datasets cannot read") as error:
            _read(source)
        assert "\n" not in str(error.value)
