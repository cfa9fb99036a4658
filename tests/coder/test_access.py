"""Ranges, and what is sound of a damaged file."""

import io
import random
from functools import cache

import pytest
from containers import ORIGINALS, WHOLE, stored_in, write
from fakes import predictable

from laconic.coder import access
from laconic.coder.codec import decode_segment
from laconic.coder.container import UNKNOWN, Writer
from laconic.coder.errors import LaconicError
from laconic.coder.limits import MemoryLimitError
from laconic.coder.segment import BY_MODEL, RAW, Segment

FILES = [("direct", "model"), ("many", "model"), ("several", "pair")]


@pytest.fixture(params=FILES, ids=lambda names: names[0])
def case(request):
    """A file, and what decodes it: the model that it names, or that is asked for where it names none."""
    blob, model = map(request.getfixturevalue, request.param)

    @cache
    def decode(segment, checkpoint):
        if segment.method in BY_MODEL and checkpoint not in (model.prefixes, UNKNOWN):
            raise LaconicError("that checkpoint is not here")
        return decode_segment(segment, model)

    return blob, decode


@pytest.fixture
def blob(case):
    return case[0]


@pytest.fixture
def decode(case):
    return case[1]


def decode_alone(segment, checkpoint):
    """Where no checkpoint is needed."""
    return decode_segment(segment, None)


def test_ranges_decode_only_what_holds_them(blob, decode):
    decoded = []

    def counting(segment, checkpoint):
        decoded.append(segment.original_length)
        return decode(segment, checkpoint)

    edges = [0, 1, 499, 500, 501, 506, 600, 665, 666, 667, 965, 966, 967, 5000]
    for a in edges:
        for b in edges:
            assert b"".join(access.read_range(io.BytesIO(blob), a, b, counting)) == WHOLE[a:b]
    decoded.clear()
    assert b"".join(access.read_range(io.BytesIO(blob), 501, 505, counting)) == WHOLE[501:505]
    assert decoded == [6]


def test_layout_and_headers(blob, single, single_mixed, single_experts):
    layout = access.read_layout(io.BytesIO(blob))
    assert [entry.original_length for entry in layout.entries] == [len(data) for data in ORIGINALS]
    for whole in (blob, single, single_mixed, single_experts):
        file = io.BytesIO(whole)
        layout = access.read_layout(file)
        for entry, stored in zip(layout.entries, stored_in(whole), strict=True):
            header, coded = access.read_header(file, layout, entry)
            wanted = stored.segment
            assert (header.method, header.tokens, header.streams) == (
                wanted.method,
                wanted.tokens,
                wanted.streams,
            )
            assert (header.profile, coded) == (wanted.profile, len(wanted.payload))


def saved(blob, decode):
    """Pieces as (begin, end, sound), after comparing the sound ones with the original."""
    pieces = []
    for begin, end, data, refused in access.recover(io.BytesIO(blob), decode):
        assert not refused
        if data is not None:
            assert data == WHOLE[begin:end]
        pieces.append((begin, end, data is not None))
    return pieces


def test_recovery_of_a_sound_file(blob, decode):
    assert saved(blob, decode) == [(0, 500, True), (500, 506, True), (506, 666, True), (666, 966, True)]


def test_recovery_after_a_flip_anywhere(blob, decode):
    layout = access.read_layout(io.BytesIO(blob))
    for at in range(len(blob)):
        broken = bytearray(blob)
        broken[at] ^= 0x41
        hit = next((e for e in layout.entries if e.offset <= at < e.offset + e.size), None)
        sound = [e for e in layout.entries if e is not hit]
        pieces = saved(bytes(broken), decode)
        expected = [(e.position, e.position + e.original_length) for e in sound]
        assert [(begin, end) for begin, end, is_sound in pieces if is_sound] == expected
        lost = [(begin, end) for begin, end, is_sound in pieces if not is_sound]
        if hit is not None:
            assert lost == [(hit.position, hit.position + hit.original_length)]
        else:
            assert lost == [(966, None)]  # head or index: the segments are all there, but nothing says so


def test_recovery_of_a_truncated_file(blob, decode):
    entry = access.read_layout(io.BytesIO(blob)).entries[2]
    pieces = saved(blob[: entry.offset + entry.size - 1], decode)
    assert pieces == [(0, 500, True), (500, 506, True), (506, None, False)]
    assert saved(blob[entry.offset :], decode)[0] == (0, 506, False)


def test_recovery_where_bytes_are_missing_or_too_many(blob, decode):
    second = access.read_layout(io.BytesIO(blob)).entries[1]
    expected = [(0, 500, True), (500, 506, False), (506, 666, True), (666, 966, True)]
    assert saved(blob[: second.offset + 6] + blob[second.offset + 7 :], decode) == expected
    assert saved(blob[: second.offset + 6] + b"???" + blob[second.offset + 6 :], decode) == expected


def raw_file(data, size):
    """A file of raw segments of `size` bytes."""
    target = io.BytesIO()
    writer = Writer(target, None)
    for begin in range(0, len(data), size):
        piece = data[begin : begin + size]
        writer.add(Segment(RAW, len(piece), piece), piece)
    writer.finish()
    return target.getvalue()


def test_recovery_takes_no_segment_of_a_file_within_the_file():
    rng = random.Random(3)
    inner = raw_file(rng.randbytes(40_000), 500)
    data = rng.randbytes(2000) + inner + rng.randbytes(9000)
    outer = io.BytesIO(raw_file(data, 30_000))
    layout = access.read_layout(io.BytesIO(outer.getvalue()))
    assert layout.original_length == len(data)
    for at in (layout.entries[0].offset + 40, 2, len(outer.getvalue()) - 6):
        broken = bytearray(outer.getvalue())
        broken[at] ^= 1
        pieces = list(access.recover(io.BytesIO(bytes(broken)), decode_alone))
        sound = [piece for piece in pieces if piece.data is not None]
        assert sound
        assert all(piece.data == data[piece.begin : piece.end] for piece in sound)


def test_recovery_takes_no_index_of_a_file_within_the_file():
    rng = random.Random(4)
    data = rng.randbytes(2000) + raw_file(rng.randbytes(5000), 500)
    blob = raw_file(data, 4000)
    last = access.read_layout(io.BytesIO(blob)).entries[-1]
    without_index = blob[: last.offset + last.size]  # ends with the inner file's index, which is sound
    pieces = list(access.recover(io.BytesIO(without_index), decode_alone))
    assert b"".join(piece.data for piece in pieces if piece.data is not None) == data


def test_nothing_to_recover(single, single_mixed, single_experts, model):
    def decode(segment, checkpoint):
        return decode_segment(segment, model)

    said_to_be_empty = write([b"abc"], None).replace(b"\x03abc", b"\x00abc")
    assert list(access.recover(io.BytesIO(write([], None)), decode)) == [(0, 0, b"", "")]
    for blob, data in (
        (single, predictable(400)),
        (single_mixed, predictable(400)),
        (single_experts, ORIGINALS[2]),
    ):
        assert list(access.recover(io.BytesIO(blob), decode)) == [(0, len(data), data, "")]
        version_1, version_2 = (blob[:4] + bytes([old << 4 | blob[4] & 15]) + blob[5:] for old in (1, 2))
        for broken, why in (
            (blob[:-1], "its only segment is damaged, or not all there; get it again"),
            (b"", "it has 0 bytes, the smallest .lac file has 15; get it again"),
            (blob[:3], "it has 3 bytes, the smallest .lac file has 15; get it again"),
            (b"this is no lac file", "it begins with 74 68 69 73, not ab 4c 41 43; name one that"),
            (blob[1:], "it begins with 4c 41 43 .., not"),
            (
                version_1,
                "the file is of format version 1, this laconic reads 3: install the laconic that wrote it",
            ),
            (
                version_2,
                "the file is of format version 2, this laconic reads 3: install the laconic that wrote it",
            ),
            (blob[:4] + b"\x3f" + blob[5:], "none of its segments is sound; get it again"),
            (said_to_be_empty, "its only segment is damaged"),
        ):
            with pytest.raises(LaconicError, match=f"nothing of this file can be restored: .*{why}"):
                list(access.recover(io.BytesIO(broken), decode))


def test_why_nothing_is_recovered_of_a_file_of_many(case):
    blob, decode = case

    def not_here(segment, checkpoint):
        if segment.method in BY_MODEL:
            name = checkpoint.hex() if checkpoint else "that it does not name"
            raise LaconicError(f"checkpoint {name} is not here")
        return decode(segment, checkpoint)

    def wrong(segment, checkpoint):
        return bytes(segment.original_length)

    named = stored_in(blob)[0].checkpoint.hex()
    first = access.read_layout(io.BytesIO(blob)).entries[0]
    for broken, decoder, why in (
        (blob, wrong, "nothing .* decode to something else; name its own checkpoint by -m"),
        (blob[: first.offset + first.size - 1], decode, "nothing .* none of its segments is sound"),
        (blob[:-1], not_here, f"^checkpoint {named} is not here"),
        (
            b"?" + blob[1:],
            not_here,
            "no .lac file.*; or, where only its head is damaged, checkpoint that it does",
        ),
        (
            blob[:4] + bytes([blob[4] ^ 0x10]) + blob[5:],
            not_here,
            "format version 2, .*; or, where only its head",
        ),
    ):
        with pytest.raises(LaconicError, match=why):
            list(access.recover(io.BytesIO(broken), decoder))


def test_recovery_whatever_happens_to_the_head(blob, decode):
    """A damaged version, flag, number or name of checkpoints is not believed."""
    begin = access.read_layout(io.BytesIO(blob)).entries[0].offset
    for at in range(begin):
        for bit in range(8):
            broken = bytearray(blob)
            broken[at] ^= 1 << bit
            sound = [(0, 500, True), (500, 506, True), (506, 666, True), (666, 966, True)]
            assert saved(bytes(broken), decode) == [*sound, (966, None, False)], (at, bit)


def test_recovery_passes_over_what_needs_more_memory(blob, model, pair):
    """What is refused for its size is not lost: the user is told how to get it."""

    def tight(segment, checkpoint):
        return decode_segment(segment, model if checkpoint == model.prefixes else pair, memory=1 << 16)

    if all(not stored.segment.profile for stored in stored_in(blob)):
        assert len(list(access.recover(io.BytesIO(blob), tight))) == 4
        return
    for end in (len(blob), len(blob) - 1):  # with a sound index, and without
        pieces = list(access.recover(io.BytesIO(blob[:end]), tight))
        places = [(piece.begin, piece.end, piece.data is not None) for piece in pieces[:4]]
        assert places == [(0, 500, False), (500, 506, True), (506, 666, False), (666, 966, False)]
        assert ["raise --memory" in piece.refused for piece in pieces[:4]] == [True, False, True, True]
        assert pieces[4:] == ([] if end == len(blob) else [(966, None, None, "")])
    begin = access.read_layout(io.BytesIO(blob)).entries[2].offset
    with pytest.raises(MemoryLimitError, match="raise --memory"):
        list(access.recover(io.BytesIO(blob[begin:]), tight))
    with pytest.raises(LaconicError, match="raise --memory"):
        list(access.read_range(io.BytesIO(blob), 0, 9, tight))
    assert b"".join(access.read_range(io.BytesIO(blob), 500, 506, tight)) == WHOLE[500:506]
