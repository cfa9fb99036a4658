"""The kernel against its twin in plain Python, and against input that was made to break it."""

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twins import (
    TREE,
    VOCABULARY,
    check_limits,
    check_twins,
    decode,
    encode,
    random_logits,
    small_shape,
    vocab_size,
)

from laconic.coder.errors import LaconicError
from laconic.coder.mixing import layout as k
from laconic.coder.mixing import reference
from laconic.coder.mixing.state import fresh, shape_for
from laconic.coder.mixing.tree import build_tree, byte_tree

BYTES = byte_tree()
TEXT = (
    b"It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
    b"foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, "
    b"it was the season of Darkness, it was the spring of hope, it was the winter of despair.\n\n"
    b"Caf\xc3\xa9, na\xc3\xafve, 1859: 3.14159; CHARLES DICKENS\tTwo Cities\n"
)
RECORDS = b"".join(b"%05d,%3d,%s;%d\n" % (n * 7, n % 13, b"xyz"[n % 3 :], n * n % 101) for n in range(40))
BINARY = b"".join((n * n * 37).to_bytes(4, "little") + b"\x00\xff" * (n % 4) for n in range(120))
SAMPLES = {"text": TEXT, "records": RECORDS, "binary": BINARY}


def all_pairs():
    """Every pair of bytes once: a de Bruijn sequence by Martin's rule, largest continuation first."""
    following, data, byte = [255] * 256, bytearray([0]), 0
    while following[byte] >= 0:
        following[byte] -= 1
        byte = following[byte] + 1
        data.append(byte)
    assert len(data) == 65537
    return bytes(data)


def longest_tokens(data):
    """`data` as ids of VOCABULARY, equal tokens taking turns."""
    ids, at = [], 0
    while at < len(data):
        fits = [i for i, token in enumerate(VOCABULARY) if data.startswith(token, at)]
        longest = max(len(VOCABULARY[i]) for i in fits)
        fits = [i for i in fits if len(VOCABULARY[i]) == longest]
        ids.append(fits[at % len(fits)])
        at += longest
    return ids


# Like the twin.


@pytest.mark.parametrize("level", [2, 6, 9])
@pytest.mark.parametrize("name", SAMPLES)
def test_bytes_without_a_model(name, level):
    data = SAMPLES[name][:500]
    payload = check_twins(data, BYTES, small_shape(level))
    assert len(payload) < len(data)


@pytest.mark.parametrize(("models", "streams", "level"), [(1, 1, 6), (2, 3, 4), (1, 7, 9), (3, 2, 2)])
def test_tokens_with_models(models, streams, level):
    ids, shape = longest_tokens(TEXT), small_shape(level, streams, models)
    logits = random_logits(models, shape, len(ids), len(VOCABULARY))
    check_twins(ids, TREE, shape, logits, chunk=17)


def test_a_good_model_is_believed():
    ids, shape = longest_tokens(TEXT), small_shape(3, 2, 1)
    logits = random_logits(5, shape, len(ids), len(VOCABULARY), sharpness=1000)
    half = len(ids) - len(ids) // 2
    for at, token in enumerate(ids):
        logits[0, at // half, at % half, token] += 20_000
    assert len(check_twins(ids, TREE, shape, logits)) < len(TEXT) / 6


@pytest.mark.parametrize("value", [-(2**31), 0, 2**31 - 1])
def test_extreme_logits(value):
    ids, shape = longest_tokens(TEXT)[:60], small_shape(2, 1, 2)
    logits = np.full((2, 1, len(ids), len(VOCABULARY)), value, dtype=np.int32)
    logits[0, :, ::2, 97:130] = -(2**31)
    logits[1, :, :, 200:] = 2**31 - 1
    check_twins(ids, TREE, shape, logits)


def test_tokens_without_a_model():
    check_twins(longest_tokens(TEXT), TREE, small_shape(5, 4))


def test_hundreds_of_streams():
    count = 900
    shape = shape_for(count, 2, 300, 0)
    check_twins((TEXT + RECORDS)[:count], BYTES, shape)


@pytest.mark.parametrize("ring_bits", [3, 6])
def test_streams_longer_than_their_rings(ring_bits):
    data = (b"abcdefgh-ABCDEFGHIJ " * 4 + RECORDS[:60] * 3 + b"\n" * 40) * 2
    check_twins(data, BYTES, small_shape(9, 2, ring_bits=ring_bits))


def test_records_whose_length_changes():
    """Votes for lengths of records are halved after 2048 bytes."""
    rng = random.Random(4)
    data = rng.randbytes(1500)
    data += b"".join(b"%s,first record;" % rng.randbytes(3) for _ in range(30))
    data += b"".join(b"%s:the second, longer;%s" % (rng.randbytes(2), rng.randbytes(1)) for _ in range(30))
    assert len(data) > 2048 + 600
    shape = small_shape(5)
    m, twin = fresh(shape), reference.Mixer(shape, BYTES)
    assert encode(list(data), BYTES, shape, state=m) == check_twins(data, BYTES, shape)
    for byte in data:
        twin.past.push(0, byte)
    assert twin.past.votes == m.records.tolist()
    assert twin.past.record == m.counts[k.RECORD] == 23


def test_records_of_all_lengths_that_are_looked_for():
    data = bytearray(n % 100 for n in range(4110))
    for first, length, pair in ((10, 4095, b"\xc8\xc9"), (12, 4096, b"\xca\xcb"), (4100, 3, b"\xcd\xce")):
        data[first : first + 2] = data[first + length : first + length + 2] = pair
    shape = small_shape(2)
    m, twin = fresh(shape), reference.Mixer(shape, BYTES)
    encode(list(data), BYTES, shape, state=m)
    for byte in data:
        twin.past.push(0, byte)
    assert twin.past.votes == m.records.tolist()
    assert m.records[4095] == m.records[3] == 1


def test_streams_that_begin_alike_are_no_records():
    """The first byte has none before it that could be equal, and in the ring stands a zero."""
    streams = 9
    shape, data = small_shape(5, streams), b"ab\0a" * streams
    m = fresh(shape)
    assert encode(list(data), BYTES, shape, state=m) == check_twins(data, BYTES, shape)
    assert m.counts[k.RECORD] == 0


def test_a_match_that_is_found_late():
    """Where the latest copy ends differently, an older one agrees over more bytes than are compared."""
    copied = bytes(range(50, 100))
    data = b"".join(copied + end for end in (b"x1234", b"y5678", b"x1234", b"y5678", b"z", b"x1234"))
    check_twins(data, BYTES, small_shape(2))


def test_a_line_of_more_fields_than_a_byte_counts():
    check_twins(b",a;" * 200, BYTES, small_shape(7))


def test_slots_that_are_fought_for():
    check_twins(all_pairs()[:400] + TEXT[:200], BYTES, small_shape(3, slot_bits=2))


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("data", [b"\x00" * 600, b"\xff" * 300, b"\x00\xff" * 200, bytes(range(256))])
def test_monotonous_bytes(data, streams):
    """Of several streams of zeros none is compared beyond its begin, where its ring is zeros too."""
    check_twins(data, BYTES, small_shape(4, streams))


def test_random_bytes():
    check_twins(random.Random(1).randbytes(400), BYTES, small_shape(6))


def test_many_tokens_that_begin_alike():
    tokens = sorted([b"a" * n for n in range(1, 30)] + [b"a" * 29] * 9 + [b"b", b"aab", b"aaab"] * 2)
    rng = random.Random(2)
    ids = [rng.randrange(len(tokens)) for _ in range(80)]
    check_twins(ids, build_tree(tokens), small_shape(4, 3))


def test_tokens_whose_numbers_take_more_than_a_byte():
    tokens = [bytes([a, b]) for a in range(32) for b in range(32)]
    rng = random.Random(5)
    ids = [rng.choice([5, 5 + 256, 5 + 512, 900]) for _ in range(150)]
    shape = small_shape(5, 2, 1)
    check_twins(ids, build_tree(tokens), shape, random_logits(9, shape, len(ids), len(tokens)))


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_stream_that_follows_a_fast_one(seed):
    """Its matches fall behind, until the other's ring does not hold any more what comes."""
    rng, text = random.Random(seed), b"the " * 200
    fast, at = [], 0
    while len(fast) < 300:
        fits = [token for token in VOCABULARY if text.startswith(token, at)]
        token = max(fits, key=len) if rng.random() < 0.6 else fits[0]
        fast.append(VOCABULARY.index(token))
        at += len(token)
    slow = [VOCABULARY.index(bytes([byte])) for byte in text[: len(fast)]]
    check_twins(fast + slow, TREE, small_shape(2, 2, ring_bits=4))


BYTE_STRINGS = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.lists(st.sampled_from([b"ab", b"a", b"\n", b"12,", b"\x80"]), min_size=1, max_size=30).map(b"".join),
)


@settings(max_examples=40)
@given(BYTE_STRINGS, st.integers(2, 9), st.integers(1, 5), st.sampled_from([2, 5, 13]))
@example(b"a12,12,12,ababaaaaabab\na12,ab", 8, 2, 2)  # a byte takes the place of one that votes
def test_any_bytes(data, level, streams, bits):
    check_twins(data, BYTES, small_shape(level, min(streams, len(data)), 0, bits, bits))


@settings(max_examples=40)
@given(st.data())
def test_any_vocabulary(data):
    tokens = data.draw(st.lists(st.binary(min_size=1, max_size=3), min_size=2, max_size=12).map(sorted))
    ids = data.draw(st.lists(st.integers(0, len(tokens) - 1), min_size=1, max_size=30))
    shape = small_shape(
        data.draw(st.integers(2, 5)),
        data.draw(st.integers(1, min(4, len(ids)))),
        data.draw(st.integers(0, 2)),
    )
    sharpness = data.draw(st.sampled_from([0, 300, 4000, 2**27]))
    logits = random_logits(len(ids), shape, len(ids), len(tokens), sharpness) if shape.models else None
    check_twins(ids, build_tree(tokens), shape, logits, chunk=data.draw(st.sampled_from([None, 1, 3])))


def test_all_that_is_learned_is_the_same():
    ids, shape = longest_tokens(TEXT + RECORDS[:200] + b"7" * 150), small_shape(6, 1, 1)
    logits = random_logits(3, shape, len(ids), len(VOCABULARY))
    m, twin = fresh(shape, len(VOCABULARY)), reference.Mixer(shape, TREE)
    encode(ids, TREE, shape, logits, state=m)
    for step, token in enumerate(ids):
        predictions = [reference.Prediction(logits[0, 0, step].tolist())]
        assert twin.code_token(0, predictions, lambda _, bit: bit, token) == token
    maps = m.maps.reshape(-1, 256)
    assert [[chance.chance << 10 | chance.count for chance in row] for row in twin.maps] == maps.tolist()
    assert twin.match_maps == m.match_maps.tolist()
    for rows, array in (
        (twin.weights, m.weights),
        (twin.final, m.final.reshape(-1, k.SETS)),
        (twin.curves, m.apm.reshape(-1, k.APM_STEPS)),
    ):
        assert len(rows) > 10
        expected = rows.array.copy()
        for row, values in rows.items():
            expected[row] = values
        assert (array == expected).all()
    assert twin.order_1 == m.order_1.tolist()
    assert m.streams[0, k.TOKENS :].tolist() == [token + 1 for token in ids[:-4:-1]]
    assert twin.past.streams[0].tokens == m.streams[0, k.TOKENS :].tolist()
    assert twin.ends == m.ends.tolist()
    for expert, table in enumerate(twin.slots):
        slots = m.slots.reshape(len(twin.slots), -1, k.SLOT)[expert]
        for index, histories in table.slots.items():
            assert slots[index].tolist() == [table.checks.get(index, 0), *histories[1:]]
        assert not np.delete(slots, list(table.slots), axis=0).any()


# Alone.


def test_pieces_and_repetitions_change_nothing():
    ids, shape = longest_tokens(TEXT), small_shape(6, 3, 1)
    logits = random_logits(4, shape, len(ids), len(VOCABULARY))
    payload = encode(ids, TREE, shape, logits)
    for chunk in (None, 1, 5, 64):
        assert encode(ids, TREE, shape, logits, chunk) == payload
        assert decode(payload, len(ids), TREE, shape, logits, chunk) == (ids, True)


def test_what_lies_in_scratch_memory_does_not_matter():
    ids, shape = longest_tokens(TEXT), small_shape(4, 2, 2)
    logits = random_logits(6, shape, len(ids), len(VOCABULARY))
    m = fresh(shape, len(VOCABULARY))
    m.scratch[:], m.token_weights[:], m.token_sums[:] = -(1 << 62), (1 << 32) - 1, 1 << 61
    m.inputs[: k.FIRST_EXPERT + 2 * int(m.parameters[k.EXPERTS]) + 4] = 4095
    assert encode(ids, TREE, shape, logits, state=m) == encode(ids, TREE, shape, logits)


@pytest.mark.parametrize(
    ("name", "most"),
    [("zeros", 40), ("alternating", 60), ("pairs", 68_000), ("random", 61_000), ("changing", 7_000)],
)
def test_long_runs_stay_within_limits(name, most):
    data = {
        "zeros": b"\x00" * 200_000,
        "alternating": b"\x00\xff" * 100_000,
        "pairs": all_pairs(),
        "random": random.Random(3).randbytes(60_000),
        "changing": b"".join(bytes([n % 251]) * (n % 97 + 1) for n in range(2000)),
    }[name]
    shape = shape_for(len(data), 4, 1, 0, 12)
    m, back = fresh(shape), fresh(shape)
    payload = encode(list(data), BYTES, shape, state=m)
    assert len(payload) < most
    ids, exact = decode(payload, len(data), BYTES, shape, state=back)
    assert exact
    assert bytes(ids) == data
    check_limits(m)
    for before, after in zip(m, back, strict=True):  # the decoder has learned the same
        assert (before == after).all()


def near_the_limit(shape, name, by_column):
    """A fresh state, `name` of which is at 20 from the limit, with the signs of `by_column`."""
    m = fresh(shape)
    array = getattr(m, name).reshape(-1, len(by_column))
    array[:] = np.array(by_column) * (k.WEIGHT_LIMIT - 20)
    return m


@pytest.mark.parametrize(
    ("name", "by_column"), [("weights", [1]), ("weights", [-1]), ("final", [1, -1] + [0] * (k.SETS - 2))]
)
def test_weights_saturate(name, by_column):
    shape, data = small_shape(4), b"\x00" * 100 + b"\xff" * 100 + b"\x55" * 100
    m, first, back = (near_the_limit(shape, name, by_column) for _ in range(3))
    payload = encode(list(data), BYTES, shape, state=m)
    assert payload == reference.encode(data, BYTES, shape, first=first)
    assert decode(payload, len(data), BYTES, shape, state=back) == (list(data), True)
    check_limits(m)
    assert (np.abs(getattr(m, name)) == k.WEIGHT_LIMIT).any()


def test_the_highest_rates_that_fit_into_32_bits():
    shape, data = small_shape(4), b"\x00" * 100 + TEXT[:100] + b"\xff" * 100
    m, first = fresh(shape), fresh(shape)
    for state in (m, first):
        state.parameters[[k.RATE, k.EXTRA_RATE, k.FINAL_RATE]] = 1023
    assert encode(list(data), BYTES, shape, state=m) == reference.encode(data, BYTES, shape, first=first)
    check_limits(m)


def test_a_move_of_a_weight_fits_into_32_bits():
    rates = fresh(small_shape()).parameters[[k.RATE, k.EXTRA_RATE]]
    assert 4095 * (65535 * int(rates.sum()) >> 8) + 8192 < 1 << 31


# Damage.


def test_a_payload_that_ends_too_early():
    data, shape = list(TEXT), small_shape(3, 2)
    payload = encode(data, BYTES, shape)
    for length in range(len(payload)):
        results = [decode(payload[:length], len(data), BYTES, shape, behind=behind) for behind in (0, 255)]
        assert results[0] == results[1]  # what lies behind it is never read
        assert results[0] is None or results[0][0] != data
        if length % 32 == 0 and results[0] is None:
            with pytest.raises(LaconicError, match="too early"):
                reference.decode(payload[:length], len(data), BYTES, shape)
    assert decode(payload + bytes(8), len(data), BYTES, shape) == (data, False)
    with pytest.raises(LaconicError, match="goes on"):
        reference.decode(payload + bytes(8), len(data), BYTES, shape)


@settings(max_examples=40)
@given(st.binary(max_size=60), st.integers(1, 50), st.integers(1, 3))
def test_any_payload_is_read_as_the_twin_reads_it(payload, count, streams):
    shape = small_shape(2, min(streams, count))
    result = decode(payload, count, TREE, shape)
    if result is None or not result[1]:
        with pytest.raises(LaconicError, match="too early" if result is None else "goes on"):
            reference.decode(payload, count, TREE, shape)
        return
    assert reference.decode(payload, count, TREE, shape) == result[0]
    assert all(0 <= token < vocab_size(TREE) for token in result[0])


def test_a_flipped_bit_ends_somewhere():
    ids, shape = longest_tokens(TEXT), small_shape(2, 2, 1)
    logits = random_logits(8, shape, len(ids), len(VOCABULARY))
    payload = encode(ids, TREE, shape, logits)
    for at in range(0, len(payload) - 1, 3):  # the last byte may have bits to spare
        damaged = bytearray(payload)
        damaged[at] ^= 1 << at % 8
        result = decode(bytes(damaged), len(ids), TREE, shape, logits)
        assert result is None or result[0] != ids
