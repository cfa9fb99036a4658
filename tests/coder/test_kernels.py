import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coder import kernels
from laconic.coder.errors import LaconicError
from laconic.coder.rangecoder import RangeDecoder, RangeEncoder, weights_reference


def encode_reference(logits, targets, alive):
    encoder = RangeEncoder()
    for t in range(logits.shape[1]):
        for s in range(alive[t]):
            weights = weights_reference(logits[s, t].tolist())
            v = int(targets[s, t])
            encoder.encode(sum(weights[:v]), weights[v], sum(weights))
    return encoder.finish()


def encode_compiled(logits, targets, alive, chunk=None):
    state = kernels.encoder_state()
    out = np.zeros(targets.size * kernels.MAX_BYTES_PER_TOKEN + kernels.TAIL, dtype=np.uint8)
    steps = logits.shape[1]
    for t in range(0, steps, chunk or steps):
        piece = slice(t, t + (chunk or steps))
        part = np.ascontiguousarray(logits[:, piece]), np.ascontiguousarray(targets[:, piece])
        kernels.encode_tokens(*part, alive[piece], state, out)
    return out[: kernels.finish_encoding(state, out)].tobytes()


def decode_compiled(logits, coded, alive):
    data = np.frombuffer(coded, dtype=np.uint8)
    state = kernels.decoder_state(data)
    ids = np.zeros(logits.shape[:2], dtype=np.int32)
    step = np.zeros(len(logits), dtype=np.int32)
    for t in range(logits.shape[1]):
        if not kernels.decode_tokens(np.ascontiguousarray(logits[: alive[t], t]), data, state, step):
            return None
        ids[: alive[t], t] = step[: alive[t]]
    return ids if state[2] >= len(data) else None


def decode_reference(logits, coded, alive):
    decoder = RangeDecoder(coded)
    ids = np.zeros(logits.shape[:2], dtype=np.int32)
    for t in range(logits.shape[1]):
        for s in range(alive[t]):
            ids[s, t] = decoder.decode(weights_reference(logits[s, t].tolist()))
    decoder.finish()
    return ids


def check_all(logits, targets, alive=None, chunk=None):
    if alive is None:
        alive = np.full(logits.shape[1], logits.shape[0], dtype=np.int32)
    coded = encode_reference(logits, targets, alive)
    assert encode_compiled(logits, targets, alive, chunk) == coded
    for t, count in enumerate(alive):
        targets[count:, t] = 0
    assert np.array_equal(decode_compiled(logits, coded, alive), targets)
    assert np.array_equal(decode_reference(logits, coded, alive), targets)
    return coded


def distributions(vocab, rng):
    """Logits [V] of the kinds that break range coders."""
    yield np.zeros(vocab, dtype=np.int32)
    one = np.full(vocab, -(1 << 31), dtype=np.int32)
    one[vocab // 2] = (1 << 31) - 1
    yield one
    yield (rng.standard_normal(vocab) * 4096).astype(np.int32)
    yield rng.integers(-(1 << 31), 1 << 31, vocab).astype(np.int32)
    yield np.linspace(0, -30 * 1024, vocab).astype(np.int32)


@pytest.mark.parametrize("vocab", [1, 2, 63, 64, 65, 257, 16384])
def test_kernels_equal_the_plain_twin(vocab):
    rng = np.random.default_rng(vocab)
    rows = np.stack(list(distributions(vocab, rng)))
    streams, steps = (len(rows), 6) if vocab < 1000 else (len(rows), 2)
    logits = np.ascontiguousarray(np.broadcast_to(rows[:, None], (streams, steps, vocab)))
    targets = rng.integers(0, vocab, (streams, steps), dtype=np.int32)
    targets[:, 0] = vocab - 1
    targets[:, -1] = 0
    check_all(logits, targets)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 12), st.integers(1, 130), st.integers(0, 22), st.integers(0, 1 << 30)
)
def test_chunks_and_finished_streams(streams, steps, vocab, spread, seed):
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((streams, steps, vocab)) * (1 << spread)).astype(np.int32)
    targets = rng.integers(0, vocab, (streams, steps), dtype=np.int32)
    alive = np.full(steps, streams, dtype=np.int32)
    alive[-1] = rng.integers(1, streams + 1)
    check_all(logits, targets, alive, chunk=int(rng.integers(1, steps + 1)))


def test_carries_run_far():
    # Always the last of two symbols, the first being tiny: low creeps towards a long row of ff, and over it.
    logits = np.tile(np.array([-21 * 1024, 0, -21 * 1024], dtype=np.int32), (1, 4000, 1)).reshape(1, 4000, 3)
    targets = np.ones((1, 4000), dtype=np.int32)
    targets[0, ::97] = 2
    coded = check_all(logits, targets)
    assert len(coded) > 80


def test_too_little_data_ends_at_once():
    logits = np.zeros((1, 100, 256), dtype=np.int32)
    targets = np.arange(100, dtype=np.int32)[None]
    alive = np.ones(100, dtype=np.int32)
    coded = encode_compiled(logits, targets, alive)
    for cut in range(len(coded) - 7):
        assert decode_compiled(logits, coded[:cut], alive) is None
    assert decode_compiled(logits, coded + bytes(8), alive) is None


def test_code_lengths():
    logits = np.array([[0, 0, 0, 0], [0, -1024, -40960, -40960]], dtype=np.int32)
    bits = kernels.code_lengths(logits, np.array([3, 1], dtype=np.int32))
    assert bits[0] == 2
    assert bits[1] == pytest.approx(np.log2(3), abs=1e-5)


def test_each_weight_equals_that_of_the_plain_twin():
    distances = np.arange(0, 23 * 1024, dtype=np.int64)
    logits = np.zeros((len(distances), 2), dtype=np.int32)
    logits[:, 1] = -distances
    bits = kernels.code_lengths(logits, np.ones(len(distances), dtype=np.int32))
    weights = weights_reference([0, *(-distances).tolist()])[1:]
    expected = [np.log2(((1 << 22) + weight) / weight) for weight in weights]
    assert bits.tolist() == pytest.approx(expected, abs=1e-12)


def encode_rows_reference(logits, targets, counts):
    """Each row by the plain twin: its bytes, and low, span and bytes written before the end."""
    coded, states = [], []
    for s, count in enumerate(counts):
        encoder = RangeEncoder()
        for t in range(count):
            weights = weights_reference(logits[min(s, len(logits) - 1), t].tolist())
            v = int(targets[s, t])
            encoder.encode(sum(weights[:v]), weights[v], sum(weights))
        states.append([encoder.low, encoder.span, len(encoder.written)])
        coded.append(encoder.finish())
    return coded, states


def encode_rows_compiled(logits, targets, counts, limits, chunk):
    counts, limits = np.array(counts, dtype=np.int64), np.array(limits, dtype=np.int64)
    states = np.tile(kernels.encoder_state(), (len(targets), 1))
    room = int(limits.max()) + kernels.MAX_BYTES_PER_TOKEN + kernels.TAIL
    out = np.zeros((len(targets), room), dtype=np.uint8)
    for t in range(0, targets.shape[1], chunk):
        part = np.ascontiguousarray(logits[:, t : t + chunk]), np.ascontiguousarray(targets[:, t : t + chunk])
        left = np.clip(counts - t, 0, part[0].shape[1])
        kernels.encode_rows(*part, left, limits, states, out)
    before, lengths = states.tolist(), np.empty_like(counts)
    kernels.finish_rows(limits, states, out, lengths)
    lengths = lengths.tolist()
    coded = [None if n < 0 else row[:n].tobytes() for row, n in zip(out, lengths, strict=True)]
    return coded, before


def decode_rows_both(logits, coded, steps):
    """Ids and ends of all rows, `steps` of each, with the twin beside."""
    ends = np.cumsum([len(payload) for payload in coded])
    bounds = np.stack([ends - [len(payload) for payload in coded], ends], axis=1)
    data = np.frombuffer(b"".join(coded), dtype=np.uint8)
    states, ids = kernels.decoder_states(coded), np.zeros((len(coded), steps), dtype=np.int32)
    twins = [RangeDecoder(payload) for payload in coded]
    failed = [False] * len(coded)
    for t in range(steps):
        now = np.empty(len(coded), dtype=np.int32)
        sound = kernels.decode_rows(np.ascontiguousarray(logits[:, t]), data, bounds, states, now)
        ids[:, t] = now
        for s, twin in enumerate(twins):
            try:
                symbol = (
                    0
                    if failed[s]
                    else twin.decode(weights_reference(logits[min(s, len(logits) - 1), t].tolist()))
                )
            except LaconicError:
                failed[s], symbol = True, 0
            assert now[s] == symbol
            if failed[s]:
                assert states[s, 1] == 0
            else:
                assert states[s].tolist() == [twin.offset, twin.span, twin.position]
        assert sound == failed.count(False)
    ended = np.empty(len(coded), dtype=np.bool_)
    kernels.ended_shortest(data, bounds, states, ended)
    assert ended.tolist() == [
        not fault and twin.is_shortest() for fault, twin in zip(failed, twins, strict=True)
    ]
    return ids, ended


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 200), st.integers(0, 21), st.randoms())
def test_rows_equal_the_plain_twin(rows, steps, vocab, spread, random):
    rng = np.random.default_rng(random.getrandbits(32))
    shared = random.random() < 0.3
    logits = (rng.standard_normal((1 if shared else rows, steps, vocab)) * (1 << spread)).astype(np.int32)
    targets = rng.integers(0, vocab, (rows, steps), dtype=np.int32)
    counts = rng.integers(0, steps + 1, rows).tolist()
    expected, states = encode_rows_reference(logits, targets, counts)
    coded, before = encode_rows_compiled(logits, targets, counts, [1000] * rows, random.randint(1, steps))
    assert coded == expected
    assert before == states
    limits = [max(0, len(payload) - random.randrange(2)) for payload in expected]
    cut, _ = encode_rows_compiled(logits, targets, counts, limits, random.randint(1, steps))
    assert cut == [p if len(p) <= n else None for p, n in zip(expected, limits, strict=True)]
    for s, count in enumerate(counts):
        row = logits[min(s, len(logits) - 1)][None]
        ids, ended = decode_rows_both(row, [expected[s]], count)
        assert ids[0].tolist() == targets[s, :count].tolist()
        assert ended.all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=12), min_size=1, max_size=5),
    st.integers(1, 90),
    st.integers(0, 14),
    st.randoms(),
)
def test_rows_of_any_bytes_equal_the_plain_twin(payloads, vocab, spread, random):
    rng = np.random.default_rng(random.getrandbits(32))
    logits = (rng.standard_normal((len(payloads), 20, vocab)) * (1 << spread)).astype(np.int32)
    decode_rows_both(logits, payloads, 20)


def test_only_the_shortest_data_ends_soundly():
    logits = np.zeros((1, 100, 256), dtype=np.int32)
    (coded,), _ = encode_rows_reference(logits, np.arange(7, 107, dtype=np.int32)[None], [100])
    others = [coded[:-1], coded + b"\0", coded + b"\1", coded + bytes(7)]
    _, ended = decode_rows_both(logits, [coded, *others], 100)
    assert ended.tolist() == [True] + [False] * len(others)
