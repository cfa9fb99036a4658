"""`reference=` and `--reference`: there and back, refusals, ranges, recovery, stored bytes."""

import io
import os

import numpy as np
import pytest
from fakes import predictable
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic.cli import main
from laconic.coder import access
from laconic.coder.against import encode_against
from laconic.coder.codec import SAMPLE
from laconic.coder.container import Source, Writer, read_segments
from laconic.coder.errors import LaconicError
from laconic.coder.files import compress, decompress
from laconic.coder.reference import Reference, open_reference
from laconic.coder.registry import Decoder
from laconic.coder.segment import EXPERTS, MIXED, RAW

OLD = predictable(2500) + b"".join(b"%d bottles of beer on the wall\n" % (n * n) for n in range(80))
NEW = OLD[:1000] + b"one line more, and abc\n" + OLD[1000:3000] + b"end " + OLD[3020:]
NOISE = np.random.default_rng(0).bytes(3000)


def words(count, seed):
    """Some of 300 words, in any order."""
    known = [b"%d " % (n * n) for n in range(300)]
    return b"".join(np.random.default_rng(seed).choice(known, count))


@pytest.fixture(autouse=True)
def work(known, tmp_path, monkeypatch):
    """A folder with an old and a new version."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name, data in (("old", OLD), ("new", NEW)):
        put(name, data)


def put(name, data):
    with open(name, "wb") as file:
        file.write(data)


def get(name):
    with open(name, "rb") as file:
        return file.read()


def segments(blob):
    return [stored.segment for stored in read_segments(Source(io.BytesIO(blob)))]


@pytest.mark.parametrize("level", range(2, 10))
@pytest.mark.parametrize("name", ["none", "default", "two"])
def test_every_level(level, name, model, pair):
    predictor = {"none": None, "default": model, "two": pair}[name]
    blob = compress(NEW, predictor, level=level, reference=OLD)
    assert len(blob) < 0.2 * len(compress(NEW, predictor, level=level))
    assert decompress(blob, predictor, reference=OLD) == NEW
    (segment,) = segments(blob)
    assert segment.method in (MIXED, EXPERTS)
    assert segment.reference == Reference(OLD).name
    assert segment.method == MIXED or blob[5:18] == Reference(OLD).name


@pytest.mark.parametrize("reference", [OLD[:600], OLD])
def test_a_reference_of_which_the_data_repeats_a_part(reference):
    data = (OLD[:600] * 400)[:200_000]
    assert len(compress(data, reference=reference)) <= len(compress(data)) + 13


@settings(max_examples=12, deadline=None)
@given(
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 1000)), max_size=3),
    st.sampled_from([700, 9000]),
    st.booleans(),
)
def test_any_bytes_against_any(first, last, pieces, segment_size, with_model):
    data = first + b"".join(OLD[at : at + length] for at, length in pieces) + last
    for reference in (OLD, b"", data):
        options = {"model": "default" if with_model else None, "level": 2, "segment_size": segment_size}
        blob = compress(data, reference=reference, **options)
        assert decompress(blob, reference=reference) == data
        if not data:
            assert len(blob) == 15


def test_what_is_the_same_is_one_copy():
    blob = compress(OLD, None, reference=OLD)
    assert len(blob) == 5 + 13 + 6 + 5 + 8  # prologue, reference, header, copy, checks
    assert decompress(blob, reference=OLD) == OLD


def test_models_learn_from_a_reference(model):
    data, old = (predictable(3000, seed) + words(500, seed) for seed in (1, 2))
    blob = compress(data, model, reference=old)
    (segment,) = segments(blob)
    assert (segment.method, segment.learned, segment.streams) == (MIXED, (0, len(old)), 1)
    assert len(blob) < len(compress(data, model))
    assert decompress(blob, model, reference=old) == data


@pytest.mark.parametrize("name", [None, "default"])
def test_an_unrelated_reference_costs_nothing(name):
    for data in (NOISE[:50], NEW, b"a"):
        plain = compress(data, name)
        assert len(compress(data, name, reference=NOISE)) <= len(plain)


def test_a_large_text_is_not_coded_against_an_unrelated_reference():
    large = words(2 * SAMPLE // 4, 1)
    assert len(large) >= 2 * SAMPLE
    assert compress(large, None, level=2, reference=NOISE) == compress(large, None, level=2)


def test_files_without_a_reference_keep_their_bytes():
    assert compress(NEW, None, reference=None) == compress(NEW, None)
    assert compress(NOISE, None, reference=OLD) == compress(NOISE, None)
    assert not compress(NOISE, None)[4] & 8


def test_copies_in_what_is_large():
    old = np.random.default_rng(1).bytes(6 * SAMPLE)
    data = old[4 * SAMPLE :] + b"new" + old[: 4 * SAMPLE]
    blob = compress(data, None, level=2, reference=old)
    assert len(blob) < 80
    assert decompress(blob, reference=old) == data


def test_copies_beside_a_sample_that_is_no_copy():
    old, new = (np.random.default_rng(seed).bytes(3 * SAMPLE) for seed in (1, 2))
    data = new + old[: SAMPLE // 2]
    blob = compress(data, None, level=2, reference=old)
    assert len(blob) < 3.01 * SAMPLE
    assert decompress(blob, reference=old) == data


def test_a_large_text_like_its_reference():
    old, data = words(40_000, 1), words(40_000, 2)
    blob = compress(data, None, level=2, reference=old)
    (segment,) = segments(blob)
    assert segment.learned is not None
    assert len(blob) < len(compress(data, None, level=2))
    assert decompress(blob, reference=old) == data


def test_segments_learn_from_where_they_would_lie(monkeypatch):
    monkeypatch.setattr("laconic.coder.against.LEARNED", 500)
    monkeypatch.setattr("laconic.coder.against.LEARNED_AT_LEAST", 500)
    old, data = words(2000, 1), words(200, 2)
    end, middle = len(old) - 500, len(data) // 2 - 250
    for position, begin in ((0, middle), (1000, 1000 + middle), (end + 900, end)):
        segment = encode_against(data, None, Reference(old), position, level=2)
        assert segment.learned == (begin, 500)


def test_threads_do_not_change_the_bytes():
    blobs = {compress(NEW, segment_size=700, threads=n, reference=OLD) for n in (1, 3)}
    assert len(blobs) == 1


def test_what_a_reference_is(tmp_path):
    assert open_reference(None) is None
    for given_ in (OLD, bytearray(OLD), memoryview(OLD), "old", tmp_path / "work" / "old"):
        assert open_reference(given_) == Reference(OLD)
    assert decompress(compress(NEW, reference="old"), reference=OLD) == NEW
    for wrong, message in (("nobody", "does not exist"), (tmp_path, "is a folder"), (3, "of type int")):
        for call in (lambda r: compress(NEW, reference=r), lambda r: decompress(b"", reference=r)):
            with pytest.raises(LaconicError, match=message):
                call(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1}, "level 1 takes no reference"),
        ({"streams": 2}, "2 streams with a reference"),
        ({"entropy": "rans"}, "rans takes no reference"),
    ],
)
def test_what_does_not_go_with_a_reference(options, message):
    with pytest.raises(LaconicError, match=message):
        compress(NEW, reference=OLD, **options)
    assert compress(NEW, reference=OLD, streams=1) == compress(NEW, reference=OLD)


@pytest.mark.parametrize("where", [["-o", "old"], ["-o", "link"], []])
def test_a_reference_is_not_written_over(where, capsysbinary):
    os.symlink("old", "link")
    os.symlink("old", "new.lac")
    assert main(["compress", "-f", "--reference", "old", "new", *where]) == 1
    assert b"both the reference, which decoding needs, and the output" in capsysbinary.readouterr().err
    assert get("old") == OLD
    assert main(["compress", "-q", "-m", "none", "-c", "--reference", "new.lac", "new"]) == 0


def test_a_reference_that_is_larger_than_memory_is_one_line(monkeypatch):
    def read_bytes(path):
        raise MemoryError

    monkeypatch.setattr("pathlib.Path.read_bytes", read_bytes)
    with pytest.raises(LaconicError, match=f"old of {len(OLD):,} bytes does not fit into memory"):
        open_reference("old")


@pytest.mark.parametrize("command", ["decompress", "test", "cat"])
def test_another_reference_or_none_is_refused(command, capsysbinary):
    assert main(["compress", "-q", "--reference", "old", "new"]) == 0
    os.rename("new", "kept")
    name = Reference(OLD).name
    needed = f"{len(OLD):,} bytes whose SHA-256 begins with {name[:8].hex()}".encode()
    put("other", OLD[:-1] + b"x")
    for options, message in (
        ([], b"it was compressed against a reference, " + needed + b": name that file by --reference"),
        (["--reference", "other"], b"the reference given is another one, "),
    ):
        assert main([command, *options, "new.lac"]) == 1
        out, err = capsysbinary.readouterr()
        assert message in err
        assert needed in err
        assert err.count(b"\n") == 1
        assert out == b""
    assert not os.path.exists("new")
    assert main([command, "--reference", "nobody", "new.lac"]) == 1
    assert b"the reference nobody does not exist" in capsysbinary.readouterr().err
    assert main([command, "--reference", "old", "new.lac"]) == 0
    if command == "cat":
        assert capsysbinary.readouterr().out == NEW
    if command == "decompress":
        assert get("new") == NEW
    assert main(["compress", "-1", "--reference", "old", "kept"]) == 1


def test_info_says_what_is_needed(capsys):
    assert main(["compress", "-q", "--reference", "old", "--segment-size", "2000", "new"]) == 0
    assert main(["info", "new.lac"]) == 0
    count = -(-len(NEW) // 2000)
    first = Reference(OLD).name[:8].hex()
    row = f"{len(OLD):,} bytes whose SHA-256 begins with {first}; segments that need it: {count:,}\n"
    assert row in capsys.readouterr().out
    assert main(["compress", "-q", "-f", "new"]) == 0
    assert main(["info", "new.lac"]) == 0
    assert "reference" not in capsys.readouterr().out


def test_ranges_and_recovery(capsysbinary):
    assert main(["compress", "-q", "--reference", "old", "--segment-size", "1000", "new"]) == 0
    reference = ["--reference", "old"]
    assert main(["cat", *reference, "--range", "900:2500", "new.lac"]) == 0
    assert capsysbinary.readouterr().out == NEW[900:2500]
    blob = bytearray(get("new.lac"))
    begin = blob.index(b"\xb5SEG", 40)
    saving = ["decompress", "--recover", *reference, "-m", "default", "-f", "broken.lac", "-o", "b"]
    for at, lost in ((4, 0), (6, 0), (15, 0), (20, 0), (28, 1000), (begin + 5, 1000)):
        broken = blob.copy()
        broken[at] ^= 0x44
        put("broken.lac", broken)
        assert main(["decompress", *reference, "broken.lac", "-o", "no"]) == 1
        assert main(saving) == 1
        assert len(get("b")) == len(NEW) - lost
        assert main(["decompress", "--recover", "-f", "broken.lac", "-o", "no"]) == 1
        assert b"reference" in capsysbinary.readouterr().err
    assert not os.path.exists("no")


@pytest.fixture
def against():
    """A file of one segment, and one of many, coded against a reference."""
    files = []
    for pieces in ([NEW[900:1900]], [NEW[:700], NOISE[:9], NEW[700:1900]]):
        target = io.BytesIO()
        writer = Writer(target, None, Reference(OLD).name)
        for data in pieces:
            writer.add(encode_against(data, None, Reference(OLD), 0, level=2), data)
        writer.finish()
        files.append((target.getvalue(), b"".join(pieces)))
    return files


def test_golden_files(against, golden):
    golden("container-reference", against[0][0])
    golden("container-reference-many", against[1][0])
    assert [segment.method for segment in segments(against[1][0])] == [EXPERTS, RAW, EXPERTS]
    assert against[0][0][4] == 0x3B
    assert against[1][0][4] == 0x3A


def test_damage_at_every_byte(against):
    for blob, data in against:
        for at in range(len(blob)):
            broken = bytearray(blob)
            broken[at] ^= 0x81
            for wrong in (bytes(broken), blob[:at], blob[:at] + blob[at + 1 :]):
                with pytest.raises(LaconicError):
                    decompress(wrong, reference=OLD)
                with pytest.raises(LaconicError):
                    b"".join(
                        access.read_range(io.BytesIO(wrong), 0, 1 << 40, Decoder(reference=Reference(OLD)))
                    )
        assert decompress(blob, reference=OLD) == data


def test_a_flag_without_a_reference_contradicts(against):
    blob = against[1][0]
    stripped = blob[:4] + bytes([blob[4] & ~8]) + blob[18:]
    with pytest.raises(LaconicError, match="contradict"):
        decompress(stripped, reference=OLD)


def test_file_objects():
    with laconic.open("new.lac", "wb", level=2, segment_size=1000, reference="old") as file:
        file.write(NEW)
    assert get("new.lac") == compress(NEW, level=2, segment_size=1000, reference=OLD)
    with laconic.open("new.lac", reference=OLD) as file:
        file.seek(1500)
        assert file.read() == NEW[1500:]
    with laconic.open("new.lac") as file, pytest.raises(LaconicError, match="compressed against a reference"):
        file.read()
