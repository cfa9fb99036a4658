import io

import pytest
from containers import ORIGINALS, WHOLE, WORDS, read, stored_in, write
from fakes import predictable
from hypothesis import given
from hypothesis import strategies as st

from laconic.coder import access, container
from laconic.coder.codec import encode_segment
from laconic.coder.container import SEGMENT_MARK, Writer, check, read_segments, restore
from laconic.coder.errors import LaconicError
from laconic.coder.segment import (
    BYTES,
    EXPERTS,
    LZMA,
    MAX_SEGMENT,
    MIXED,
    MODEL,
    RANS,
    RAW,
    TOKENS,
    DamageError,
    Segment,
    Source,
    pack_varint,
)

FILES = [
    "direct", "many", "several", "single", "single_mixed", "single_experts",
    "many_tokens", "single_tokens", "single_bytes", "single_backwards",
]  # fmt: skip


@pytest.fixture(params=FILES)
def blob(request):
    return request.getfixturevalue(request.param)


def test_golden_files(model, direct, many, several, single, single_mixed, single_experts, golden):
    golden("container-empty", write([], None))
    golden("container-raw", write([b"\x00\x01\xfe\xff"], None))
    golden("container-lzma", write([b"laconic " * 20], None, level=1))
    golden("container-experts", single_experts)
    golden("container-single", single)
    golden("container-mixed", single_mixed)
    golden("container-many", direct)
    golden("container-many-mixed", many)
    golden("container-several", several)


def test_golden_files_of_entropy_coders(
    many_tokens, single_tokens, single_bytes, single_backwards, decode, golden
):
    found = {
        "tokens-tans": (many_tokens, [TOKENS, RAW, TOKENS], b"".join([WORDS, *ORIGINALS[1:3]])),
        "tokens-huffman": (single_tokens, [TOKENS], WORDS),
        "bytes-rans": (single_bytes, [BYTES], WORDS),
        "model-rans": (single_backwards, [RANS], predictable(400)),
    }
    for name, (blob, methods, original) in found.items():
        golden(f"container-{name}", blob)
        assert [stored.segment.method for stored in stored_in(blob)] == methods
        assert read(blob, decode) == original


def test_methods_in_the_golden_files(direct, many, several, single, single_mixed, single_experts):
    def methods(blob):
        return [stored.segment.method for stored in stored_in(blob)]

    assert methods(direct) == [MODEL, RAW, LZMA, MODEL]
    assert methods(many) == methods(several) == [MIXED, RAW, EXPERTS, MIXED]
    assert [methods(blob) for blob in (single, single_mixed, single_experts)] == [[MODEL], [MIXED], [EXPERTS]]


def test_round_trips(model, pair, decode, direct, many, several, single, single_mixed, single_experts):
    assert read(direct, decode) == read(many, decode) == read(several, decode) == WHOLE
    assert read(single, decode) == read(single_mixed, decode) == predictable(400)
    assert read(single_experts, decode) == ORIGINALS[2]
    for nothing in (None, model, pair):
        assert read(write([], nothing), decode) == b""
        assert len(write([], nothing)) == 15


def test_no_checkpoint_is_named_where_none_is_needed(model, pair):
    assert write([b"\xff"], model)[4] == write([b"\xff"], pair)[4] == 0x33
    assert write([predictable(400)], model)[4] == 0x31
    assert write([predictable(400)], pair)[4] == 0x35
    assert write([b"a", b"b"], None)[4] == 0x32
    assert write([b"a", b"b"], model)[4] == 0x30
    assert write([b"a", b"b"], pair)[4] == 0x34


def test_checkpoints_are_named_in_the_order_in_which_they_were_given(pair, several):
    first, second = (member.checkpoint.id[:8] for member in pair.members)
    assert several[:22] == b"\xabLAC\x34\x02" + first + second
    assert {stored.checkpoint for stored in stored_in(several)} == {first + second}


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16384, (1 << 21) - 1, 1 << 21])
@pytest.mark.parametrize(
    ("method", "profile", "overhead", "checkpoints"),
    [(MODEL, 0, 32, 1), (MIXED, 0x60, 33, 1), (MIXED, 0x60, 33, 2), (MIXED, 0x60, 33, 8)],
)
def test_overhead_is_bounded(length, method, profile, overhead, checkpoints):
    target = io.BytesIO()
    writer = Writer(target, bytes(range(8 * checkpoints)))
    payload = b"p" * max(0, length - 1)
    if length:
        writer.add(Segment(method, length, payload, length, min(length, 4096), profile), bytes(length))
    writer.finish()
    overhead += 1 + 8 * (checkpoints - 1) if checkpoints > 1 else 0
    assert len(target.getvalue()) <= len(payload) + overhead
    (stored,) = read_segments(Source(io.BytesIO(target.getvalue())))
    assert stored.segment.payload == payload


def test_every_truncation_is_an_error(blob, decode):
    for length in range(len(blob)):
        with pytest.raises(LaconicError):
            read(blob[:length], decode)


def test_every_flip_is_an_error(blob, decode):
    for at in range(len(blob)):
        for mask in (1, 0x80):
            broken = bytearray(blob)
            broken[at] ^= mask
            with pytest.raises(LaconicError):
                read(bytes(broken), decode)
        with pytest.raises(LaconicError):
            b"".join(access.read_range(io.BytesIO(broken), 0, 1 << 40, decode))


def test_a_missing_byte_anywhere_and_a_byte_too_many(blob, decode):
    for at in range(0, len(blob), 3):
        with pytest.raises(LaconicError):
            read(blob[:at] + blob[at + 1 :], decode)
        with pytest.raises(LaconicError):
            read(blob[:at] + b"\0" + blob[at:], decode)
    for more in (b"\0", blob):
        with pytest.raises(LaconicError):
            read(blob + more, decode)


def test_segments_that_change_places(many, decode):
    parts = many.split(SEGMENT_MARK)
    assert len(parts) == 5
    for order in ([2, 1, 3], [1, 1, 2, 3], [1, 2]):
        broken = SEGMENT_MARK.join([parts[0], *(parts[i] for i in order), parts[4]])
        with pytest.raises(DamageError):
            read(broken, decode)


@given(st.binary(max_size=80), st.sampled_from(range(0x30, 0x40)))
def test_noise_after_the_magic_is_an_error(noise, version_and_flags):
    blob = container.MAGIC + bytes([version_and_flags]) + noise
    with pytest.raises(LaconicError):
        read(blob, lambda segment, checkpoint: b"")
    with pytest.raises(LaconicError):
        b"".join(access.read_range(io.BytesIO(blob), 0, 10, lambda segment, checkpoint: b""))


def single_file(header, payload, original=b""):
    """A file of one segment whose stored check is right, whatever it says."""
    head = container.MAGIC + b"\x33" + header
    content = check(original)
    return head + payload + content + check(head, payload, content)


BAD_PROFILES = [0x00, 0x0C, 0x10, 0x1C, 0x2D, 0x6F, 0x9D, 0xA0, 0xFF]  # levels 2 to 9, slots 0 to 12


@pytest.mark.parametrize(
    ("header", "payload", "message"),
    [
        (b"\x08\x01", b"a", "method 8 at byte 5 is unknown, if it is not of a newer laconic"),
        (b"\x05\x02\x00", b"a", "profile 0x00"),
        (b"\x05\x02\x04", b"a", "profile 0x04"),
        (b"\x06\x02\x01\x01", b"a", "contradict"),
        (b"\x07\x02\x01\x01", b"a", "contradict"),
        (b"\x80\x01", b"a", "method 128"),
        (b"\x01\x02\x01\x01", b"a", "contradict"),
        (b"\x03\x02\x01\x01\x60", b"a", "contradict"),
        (b"\x00\x81\x00", b"a", "original length"),
        (b"\x00" + pack_varint(MAX_SEGMENT + 1), b"a", "original length"),
        (b"\x00" + b"\xff" * 9 + b"\x7f", b"a", "original length"),
        (b"\x00\x02", b"a", "cannot hold"),
        (b"\x02\x01", b"a", "cannot hold"),
        (b"\x04\x01\x60", b"a", "cannot hold"),
        *((bytes([4, 2, profile]), b"a", f"profile {profile:#04x}") for profile in BAD_PROFILES),
    ],
)
def test_headers_that_no_writer_makes(header, payload, message, decode):
    with pytest.raises(DamageError, match=message):
        read(single_file(header, payload), decode)


@pytest.mark.parametrize("numbers", [b"\x04\x05\x01", b"\x04\x00\x01", b"\x04\x02\x03", b"\x04\x02\x00"])
@pytest.mark.parametrize(("method", "profile"), [(b"\x01", b""), (b"\x03", b"\x60")])
def test_numbers_of_tokens_and_streams_have_bounds(numbers, method, profile, decode):
    header = method + numbers + profile
    head = container.MAGIC + b"\x31" + bytes(8) + header
    blob = head + b"a" + check() + check(head, b"a", check())
    with pytest.raises(DamageError, match="number of"):
        read(blob, decode)


RESERVED = [6, 7, 14, 15]  # 4 together with 2


def test_what_is_no_lac_file():
    for blob, message in (
        (b"", "truncated"),
        (b"\xabLA", "truncated"),
        (b"PK\x03\x04....", "no .lac file"),
        (b"\xabLAC\x11" + bytes(20), "format version 1"),
        (b"\xabLAC\x21" + bytes(20), "format version 2"),
        (b"\xabLAC\x41" + bytes(20), "format version 4"),
        *((b"\xabLAC" + bytes([0x30 | flags]) + bytes(20), "reserved") for flags in RESERVED),
        *((b"\xabLAC\x34" + bytes([count]) + bytes(99), f"{count} checkpoints") for count in (0, 1, 9, 255)),
        (b"\xabLAC\x34\x02" + bytes(15), "truncated"),
    ):
        with pytest.raises(LaconicError, match=message):
            read(blob, None)


def test_a_claim_of_much_data_takes_no_memory(decode):
    header = b"\x00" + pack_varint(MAX_SEGMENT)
    with pytest.raises(LaconicError):
        read(container.MAGIC + b"\x33" + header + b"a" * 100, decode)


def test_a_wrong_decoder_is_told_from_damage(single):
    with pytest.raises(DamageError, match="as it was written"):
        read(single, lambda segment, checkpoint: bytes(segment.original_length))


def test_an_index_that_goes_on(many, decode):
    begin = many.rindex(container.INDEX_MARK)
    index = many[begin:-12] + b"junk"
    digest = container.index_digest(container.read_prologue(Source(io.BytesIO(many))), index)
    blob = many[:begin] + index + digest + (len(index) + 8).to_bytes(4, "little")
    for check_it in (read, lambda blob, decode: list(access.read_range(io.BytesIO(blob), 0, 9, decode))):
        with pytest.raises(DamageError, match="index"):
            check_it(blob, decode)


@pytest.mark.parametrize("level", [1, 6])
def test_no_model_where_no_checkpoint_is_named(level, model, decode):
    target = io.BytesIO()
    writer = Writer(target, None)
    for data in ORIGINALS:
        writer.add(encode_segment(data, model, 2, level=level), data)
    writer.finish()
    blob = target.getvalue()
    with pytest.raises(DamageError, match="contradict"):
        read(blob, decode)
    with pytest.raises(DamageError, match="contradict"):
        list(access.read_range(io.BytesIO(blob), 0, 9, decode))


def test_reading_from_a_pipe_that_gives_little_at_a_time(many, decode):
    class Trickle(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3))

    source = Source(Trickle(many))
    assert b"".join(restore(stored, decode) for stored in read_segments(source)) == WHOLE
