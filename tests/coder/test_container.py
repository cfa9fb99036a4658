import io
import random
from functools import cache

import pytest
from fakes import predictable
from hypothesis import given
from hypothesis import strategies as st

from laconic.coder import access, container
from laconic.coder.codec import decode_segment, encode_segment
from laconic.coder.container import (
    LZMA,
    MAX_SEGMENT,
    MODEL,
    RAW,
    SEGMENT_MARK,
    DamageError,
    Segment,
    Source,
    Writer,
    check,
    pack_varint,
    read_segments,
    restore,
)
from laconic.coder.errors import LaconicError

ORIGINALS = [predictable(500), b"\x01\x80\xfe" * 2, b"laconic " * 20, predictable(300, seed=5)]


@pytest.fixture
def decode(model):
    return cache(lambda segment, checkpoint: decode_segment(segment, model))


def write(originals, model):
    target = io.BytesIO()
    writer = Writer(target, None if model is None else model.checkpoint.id)
    for data in originals:
        writer.add(encode_segment(data, model, 2), data)
    writer.finish()
    assert writer.bytes_written == len(target.getvalue())
    return target.getvalue()


def read(blob, decode):
    return b"".join(restore(stored, decode) for stored in read_segments(Source(io.BytesIO(blob))))


@pytest.fixture
def many(model):
    return write(ORIGINALS, model)


@pytest.fixture
def single(model):
    return write([predictable(400)], model)


def test_golden_files(model, many, single, golden):
    golden("container-empty", write([], None))
    golden("container-raw", write([b"\x00\x01\xfe\xff"], None))
    golden("container-lzma", write([b"laconic " * 20], None))
    golden("container-single", single)
    golden("container-many", many)


def test_methods_in_the_golden_file(many):
    methods = [stored.segment.method for stored in read_segments(Source(io.BytesIO(many)))]
    assert methods == [MODEL, RAW, LZMA, MODEL]


def test_round_trips(model, decode, many, single):
    assert read(many, decode) == b"".join(ORIGINALS)
    assert read(single, decode) == predictable(400)
    assert read(write([], model), decode) == b""
    assert len(write([], model)) == 15


def test_no_checkpoint_is_named_where_none_is_needed(model):
    assert write([b"\xff"], model)[4] == 0x13
    assert write([predictable(400)], model)[4] == 0x11
    assert write([b"a", b"b"], None)[4] == 0x12
    assert write([b"a", b"b"], model)[4] == 0x10


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16384, (1 << 21) - 1, 1 << 21])
def test_overhead_is_at_most_32_bytes(length):
    target = io.BytesIO()
    writer = Writer(target, b"\x55" * 32)
    payload = b"p" * max(0, length - 1)
    if length:
        writer.add(Segment(MODEL, length, payload, length, min(length, 4096)), bytes(length))
    writer.finish()
    assert len(target.getvalue()) <= len(payload) + 32
    (stored,) = read_segments(Source(io.BytesIO(target.getvalue())))
    assert stored.segment.payload == payload


@pytest.mark.parametrize("which", ["many", "single"])
def test_every_truncation_is_an_error(which, decode, request):
    blob = request.getfixturevalue(which)
    for length in range(len(blob)):
        with pytest.raises(LaconicError):
            read(blob[:length], decode)


@pytest.mark.parametrize("which", ["many", "single"])
def test_every_flip_is_an_error(which, decode, request):
    blob = request.getfixturevalue(which)
    for at in range(len(blob)):
        for mask in (1, 0x80):
            broken = bytearray(blob)
            broken[at] ^= mask
            with pytest.raises(LaconicError):
                read(bytes(broken), decode)
        with pytest.raises(LaconicError):
            b"".join(access.read_range(io.BytesIO(broken), 0, 1 << 40, decode))


@pytest.mark.parametrize("which", ["many", "single"])
def test_a_missing_byte_anywhere_and_a_byte_too_many(which, decode, request):
    blob = request.getfixturevalue(which)
    for at in range(0, len(blob), 3):
        with pytest.raises(LaconicError):
            read(blob[:at] + blob[at + 1 :], decode)
        with pytest.raises(LaconicError):
            read(blob[:at] + b"\0" + blob[at:], decode)
    for more in (b"\0", blob):
        with pytest.raises(LaconicError):
            read(blob + more, decode)


def test_segments_that_change_places(many, model, decode):
    parts = many.split(SEGMENT_MARK)
    assert len(parts) == 5
    for order in ([2, 1, 3], [1, 1, 2, 3], [1, 2]):
        broken = SEGMENT_MARK.join([parts[0], *(parts[i] for i in order), parts[4]])
        with pytest.raises(DamageError):
            read(broken, decode)


@given(st.binary(max_size=80), st.sampled_from([0x10, 0x11, 0x12, 0x13]))
def test_noise_after_the_magic_is_an_error(noise, version_and_flags):
    blob = container.MAGIC + bytes([version_and_flags]) + noise
    with pytest.raises(LaconicError):
        read(blob, lambda segment, checkpoint: b"")
    with pytest.raises(LaconicError):
        b"".join(access.read_range(io.BytesIO(blob), 0, 10, lambda segment, checkpoint: b""))


def single_file(header, payload, original=b""):
    """A file of one segment whose stored check is right, whatever it says."""
    head = container.MAGIC + b"\x13" + header
    content = check(original)
    return head + payload + content + check(head, payload, content)


@pytest.mark.parametrize(
    ("header", "payload", "message"),
    [
        (b"\x03\x01", b"a", "method 3"),
        (b"\x80\x01", b"a", "method 128"),
        (b"\x01\x02\x01\x01", b"a", "contradict"),
        (b"\x00\x81\x00", b"a", "original length"),
        (b"\x00" + pack_varint(MAX_SEGMENT + 1), b"a", "original length"),
        (b"\x00" + b"\xff" * 9 + b"\x7f", b"a", "original length"),
        (b"\x00\x02", b"a", "cannot hold"),
        (b"\x02\x01", b"a", "cannot hold"),
    ],
)
def test_headers_that_no_writer_makes(header, payload, message, decode):
    with pytest.raises(DamageError, match=message):
        read(single_file(header, payload), decode)


@pytest.mark.parametrize(
    "header", [b"\x01\x04\x05\x01", b"\x01\x04\x00\x01", b"\x01\x04\x02\x03", b"\x01\x04\x02\x00"]
)
def test_numbers_of_tokens_and_streams_have_bounds(header, decode):
    head = container.MAGIC + b"\x11" + bytes(8) + header
    blob = head + b"a" + check() + check(head, b"a", check())
    with pytest.raises(DamageError, match="number of"):
        read(blob, decode)


def test_what_is_no_lac_file():
    for blob, message in (
        (b"", "truncated"),
        (b"\xabLA", "truncated"),
        (b"PK\x03\x04....", "no .lac file"),
        (b"\xabLAC\x21" + bytes(20), "format version 2"),
        (b"\xabLAC\x14" + bytes(20), "reserved"),
    ):
        with pytest.raises(LaconicError, match=message):
            read(blob, None)


def test_a_claim_of_much_data_takes_no_memory(decode):
    header = b"\x00" + pack_varint(MAX_SEGMENT)
    with pytest.raises(LaconicError):
        read(container.MAGIC + b"\x13" + header + b"a" * 100, decode)


def test_a_wrong_decoder_is_told_from_damage(single):
    with pytest.raises(DamageError, match="as it was written"):
        read(single, lambda segment, checkpoint: bytes(segment.original_length))


def test_ranges_decode_only_what_holds_them(many, model):
    whole, decoded = b"".join(ORIGINALS), []

    def decode(segment, checkpoint):
        assert checkpoint == model.checkpoint.id[:8]
        decoded.append(segment.original_length)
        return decode_segment(segment, model)

    edges = [0, 1, 499, 500, 501, 506, 600, 665, 666, 667, 965, 966, 967, 5000]
    for a in edges:
        for b in edges:
            assert b"".join(access.read_range(io.BytesIO(many), a, b, decode)) == whole[a:b]
    decoded.clear()
    assert b"".join(access.read_range(io.BytesIO(many), 501, 505, decode)) == whole[501:505]
    assert decoded == [6]


def test_layout_and_headers(many, single):
    file = io.BytesIO(many)
    layout = access.read_layout(file)
    assert [entry.original_length for entry in layout.entries] == [len(data) for data in ORIGINALS]
    for entry, stored in zip(layout.entries, read_segments(Source(io.BytesIO(many))), strict=True):
        header, coded = access.read_header(file, layout, entry)
        assert (header.method, header.tokens) == (stored.segment.method, stored.segment.tokens)
        assert coded == len(stored.segment.payload)
    file = io.BytesIO(single)
    layout = access.read_layout(file)
    (stored,) = read_segments(Source(io.BytesIO(single)))
    assert access.read_header(file, layout, layout.entries[0])[1] == len(stored.segment.payload)


def saved(blob, decode):
    """Pieces as (begin, end, sound), after comparing the sound ones with the original."""
    whole, pieces = b"".join(ORIGINALS), []
    for begin, end, data in access.recover(io.BytesIO(blob), decode):
        if data is not None:
            assert data == whole[begin:end]
        pieces.append((begin, end, data is not None))
    return pieces


def test_recovery_of_a_sound_file(many, decode):
    assert saved(many, decode) == [(0, 500, True), (500, 506, True), (506, 666, True), (666, 966, True)]


def test_recovery_after_a_flip_anywhere(many, decode):
    layout = access.read_layout(io.BytesIO(many))
    for at in range(len(many)):
        broken = bytearray(many)
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


def test_recovery_of_a_truncated_file(many, decode):
    entry = access.read_layout(io.BytesIO(many)).entries[2]
    pieces = saved(many[: entry.offset + entry.size - 1], decode)
    assert pieces == [(0, 500, True), (500, 506, True), (506, None, False)]
    assert saved(many[1000:] if len(many) > 2000 else many[entry.offset :], decode)[0] == (0, 506, False)


def test_recovery_where_bytes_are_missing_or_too_many(many, decode):
    second = access.read_layout(io.BytesIO(many)).entries[1]
    expected = [(0, 500, True), (500, 506, False), (506, 666, True), (666, 966, True)]
    assert saved(many[: second.offset + 6] + many[second.offset + 7 :], decode) == expected
    assert saved(many[: second.offset + 6] + b"???" + many[second.offset + 6 :], decode) == expected


def raw_file(data, size):
    """A file of raw segments of `size` bytes."""
    target = io.BytesIO()
    writer = Writer(target, None)
    for begin in range(0, len(data), size):
        piece = data[begin : begin + size]
        writer.add(Segment(RAW, len(piece), piece), piece)
    writer.finish()
    return target.getvalue()


def test_recovery_takes_no_segment_of_a_file_within_the_file(decode):
    rng = random.Random(3)
    inner = raw_file(rng.randbytes(40_000), 500)
    data = rng.randbytes(2000) + inner + rng.randbytes(9000)
    outer = io.BytesIO(raw_file(data, 30_000))
    layout = access.read_layout(io.BytesIO(outer.getvalue()))
    assert layout.original_length == len(data)
    for at in (layout.entries[0].offset + 40, 2, len(outer.getvalue()) - 6):
        broken = bytearray(outer.getvalue())
        broken[at] ^= 1
        pieces = list(access.recover(io.BytesIO(bytes(broken)), decode))
        sound = [piece for piece in pieces if piece.data is not None]
        assert sound
        assert all(piece.data == data[piece.begin : piece.end] for piece in sound)


def test_recovery_takes_no_index_of_a_file_within_the_file(decode):
    rng = random.Random(4)
    data = rng.randbytes(2000) + raw_file(rng.randbytes(5000), 500)
    blob = raw_file(data, 4000)
    last = access.read_layout(io.BytesIO(blob)).entries[-1]
    without_index = blob[: last.offset + last.size]  # ends with the inner file's index, which is sound
    pieces = list(access.recover(io.BytesIO(without_index), decode))
    assert b"".join(piece.data for piece in pieces if piece.data is not None) == data


def test_an_index_that_goes_on(many, decode):
    begin = many.rindex(container.INDEX_MARK)
    index = many[begin:-12] + b"junk"
    digest = container.index_digest(container.read_prologue(Source(io.BytesIO(many))), index)
    blob = many[:begin] + index + digest + (len(index) + 8).to_bytes(4, "little")
    for check_it in (read, lambda blob, decode: list(access.read_range(io.BytesIO(blob), 0, 9, decode))):
        with pytest.raises(DamageError, match="index"):
            check_it(blob, decode)


def test_no_model_where_no_checkpoint_is_named(model, decode):
    target = io.BytesIO()
    writer = Writer(target, None)
    for data in ORIGINALS:
        writer.add(encode_segment(data, model, 2), data)
    writer.finish()
    blob = target.getvalue()
    with pytest.raises(DamageError, match="contradict"):
        read(blob, decode)
    with pytest.raises(DamageError, match="contradict"):
        list(access.read_range(io.BytesIO(blob), 0, 9, decode))


def test_nothing_to_recover(single, decode):
    assert next(access.recover(io.BytesIO(single), decode)).data == predictable(400)
    assert list(access.recover(io.BytesIO(write([], None)), decode)) == [(0, 0, b"")]
    said_to_be_empty = write([b"abc"], None).replace(b"\x03abc", b"\x00abc")
    for blob in (single[:-1], b"", b"no lac file", single[1:], said_to_be_empty):
        with pytest.raises(LaconicError, match="nothing"):
            list(access.recover(io.BytesIO(blob), decode))


def test_reading_from_a_pipe_that_gives_little_at_a_time(many, decode):
    class Trickle(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3))

    source = Source(Trickle(many))
    assert b"".join(restore(stored, decode) for stored in read_segments(source)) == b"".join(ORIGINALS)


def test_a_damaged_name_of_the_checkpoint_is_not_believed_when_recovering(many, decode):
    broken = bytearray(many)
    broken[8] ^= 1
    asked = []

    def strict(segment, checkpoint):
        asked.append(checkpoint)
        if checkpoint != container.UNKNOWN:
            raise LaconicError("that checkpoint is not here")
        return decode(segment, None)

    sound = [piece for piece in access.recover(io.BytesIO(bytes(broken)), strict) if piece.data is not None]
    assert b"".join(piece.data for piece in sound) == b"".join(ORIGINALS)
    assert container.UNKNOWN in asked
