"""The mixer's kernel and its twin as the tests call them."""

import numpy as np

from laconic.coder.kernels import decoder_state, encoder_state, finish_encoding
from laconic.coder.mixing import kernels, reference
from laconic.coder.mixing import layout as k
from laconic.coder.mixing.state import Shape, fresh, tree_arrays
from laconic.coder.mixing.tree import ONE, ZERO, build_tree

GUARD = 64  # bytes behind the coded ones that nobody may touch
# Tokens that begin others, equal ones, and every byte.
VOCABULARY = sorted(
    [bytes([byte]) for byte in range(256)]
    + [
        b"a",
        b"a",
        b"ab",
        b"abc",
        b"abc",
        b"abd",
        b"th",
        b"the",
        b"the ",
        b" the",
        b"\x00\x00\x00",
        b"\xff\xff",
    ]
)
TREE = build_tree(VOCABULARY)


def small_shape(level=2, streams=1, models=0, slot_bits=10, ring_bits=13):
    return Shape(level, streams, models, slot_bits, ring_bits)


def vocab_size(tree):
    return len(tree.token_ends) - 1


def random_logits(seed, shape, count, vocab, sharpness=4000):
    """int32 [M, S, T, V]."""
    steps = -(-count // shape.streams)
    rng = np.random.default_rng(seed)
    size = (shape.models, shape.streams, steps, vocab)
    return (rng.standard_normal(size) * sharpness).astype(np.int32)


def longest_path(tree):
    """Decisions of the token that needs most."""
    depth = np.ones(len(tree.nodes), dtype=np.int64)
    for number, node in enumerate(tree.nodes.tolist()):  # parents come first
        for after in (node[ZERO], node[ONE]):
            if after >= 0:
                depth[after] = depth[number] + 1
    return int(depth.max())


def lengths_of(count, streams):
    short, longer = divmod(count, streams)
    return [short + (stream < longer) for stream in range(streams)]


def rows_of(ids, streams):
    """(ids int32 [S, T], alive int32 [T])."""
    lengths, at = lengths_of(len(ids), streams), 0
    rows = np.zeros((streams, max(lengths)), dtype=np.int32)
    for stream, length in enumerate(lengths):
        rows[stream, :length] = ids[at : at + length]
        at += length
    return rows, np.array([sum(t < n for n in lengths) for t in range(max(lengths))], dtype=np.int32)


def _pieces(rows, alive, logits, chunk):
    steps = len(alive)
    if logits is None:
        logits = np.zeros((0, len(rows), steps, 1), dtype=np.int32)
    for begin in range(0, steps, chunk or max(1, steps)):
        piece = slice(begin, min(steps, begin + (chunk or steps)))
        part = rows[:, piece], alive[piece], logits[:, :, piece]
        yield piece, *map(np.ascontiguousarray, part)


def encode(ids, tree, shape, logits=None, chunk=None, state=None):
    """The coded bytes; `chunk` steps a call; `state` is updated."""
    m = fresh(shape, vocab_size(tree)) if state is None else state
    room = len(ids) * longest_path(tree) * k.MAX_BYTES_PER_DECISION + k.TAIL
    out, coder = np.zeros(room + GUARD, dtype=np.uint8), encoder_state()
    out[room:] = 0xA5
    for _, part, alive, rows in _pieces(*rows_of(ids, shape.streams), logits, chunk):
        assert kernels.code_tokens(False, part, alive, rows, tree_arrays(tree), m, coder, out)
    length = finish_encoding(coder, out)
    assert (out[room:] == 0xA5).all()
    return out[:length].tobytes()


def decode(payload, count, tree, shape, logits=None, chunk=None, state=None, behind=0):
    """The ids and whether every byte was needed, or None where the payload ended too early.

    Args:
        behind: what the memory behind the payload is filled with.
    """
    m = fresh(shape, vocab_size(tree)) if state is None else state
    memory = np.frombuffer(payload + bytes([behind]) * GUARD, dtype=np.uint8).copy()
    data = memory[: len(payload)]
    coder = decoder_state(data)
    rows, alive = rows_of([0] * count, shape.streams)
    for piece, part, alive_part, logits_part in _pieces(rows, alive, logits, chunk):
        if not kernels.code_tokens(True, part, alive_part, logits_part, tree_arrays(tree), m, coder, data):
            return None
        rows[:, piece] = part
    assert memory.tobytes() == payload + bytes([behind]) * GUARD
    lengths = lengths_of(count, shape.streams)
    ids = [token for row, length in zip(rows.tolist(), lengths, strict=True) for token in row[:length]]
    return ids, bool(coder[2] >= len(payload))


def check_twins(ids, tree, shape, logits=None, chunk=None):
    """The kernel writes what its twin does, and gets the ids back from it; returns the payload."""
    ids = list(ids)
    payload = encode(ids, tree, shape, logits, chunk)
    assert payload == reference.encode(ids, tree, shape, logits)
    assert decode(payload, len(ids), tree, shape, logits, chunk) == (ids, True)
    if len(ids) <= 100:
        assert reference.decode(payload, len(ids), tree, shape, logits) == ids
    return payload


def check_limits(m):
    """No number has left the range that the kernel's arithmetic is made for."""
    assert np.abs(m.weights).max() <= k.WEIGHT_LIMIT
    assert np.abs(m.final).max() <= k.WEIGHT_LIMIT
    assert m.apm.min() >= 0
    assert m.apm.max() < 1 << 22
    assert m.match_maps.min() >= 0
    assert m.match_maps.max() < 1 << 22
    counts = m.maps & 1023
    assert counts.max() <= max(k.MAP_LIMIT, k.ORDER_1_LIMIT) < 1024
    assert m.records.min() >= 0
    assert 0 <= m.counts[k.RECORD] < k.RECORD_MAX
    assert m.followers.min() >= 0
    assert m.followers.max() < 1 << 16
    known = (m.zeros + m.ones > 0).sum()  # states that there are, but for the empty one
    for store in (m.order_1, m.ends):
        assert store.max() <= known
