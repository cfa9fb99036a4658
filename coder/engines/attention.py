"""Attention over a window of int8 keys and values, which lie in blocks as `products.py` reads them.

Scores are products of a row's heads and 16 keys at once, averages those of attention weights and 16 elements
of values: queries and attention weights are the bytes without sign, keys and values those with one.
"""

import numpy as np

from ..compiled import compiled, inlined
from ..fixedpoint import AVERAGE_BITS, HEAD_BITS, INT8_MAX, RECIPROCAL_BITS, ROTARY_BITS
from .layout import OFFSET, Bytes, Cache, Int8, Int32, Scratch, Shape, Weights
from .products import BLOCK, DEPTH, LANES, TILE_BLOCKS, TILE_ROWS, tile_1x1, tile_1x4, tile_4x1, tile_4x4
from .rows import clamp, quantise_row, round_shift

AVERAGE_SHIFT = RECIPROCAL_BITS - AVERAGE_BITS


@compiled
def _products(
    rows: int, x: Bytes, x_at: int, x_stride: int, blocks: int, w: Int8, w_at: int, w_stride: int, depth: int,
    begins: Int32, begin_at: int, begin_stride: int, out: Int32, out_at: int, out_stride: int,
) -> None:  # fmt: skip
    """As `products.py` has it, for any number of rows and blocks."""
    b = 0
    while b < blocks:
        wide = b + TILE_BLOCKS <= blocks
        w_b, begin_b, r = w_at + b * w_stride, begin_at + b * begin_stride, 0
        while r < rows:
            x_r, out_r = x_at + r * x_stride, out_at + r * out_stride + b * LANES
            high = r + TILE_ROWS <= rows
            if wide and high:
                tile_4x4(x, x_r, x_stride, w, w_b, w_stride, depth, begins, begin_b, out, out_r, out_stride)
            elif wide:
                tile_1x4(x, x_r, x_stride, w, w_b, w_stride, depth, begins, begin_b, out, out_r, out_stride)
            elif high:
                tile_4x1(x, x_r, x_stride, w, w_b, w_stride, depth, begins, begin_b, out, out_r, out_stride)
            else:
                tile_1x1(x, x_r, x_stride, w, w_b, w_stride, depth, begins, begin_b, out, out_r, out_stride)
            r += TILE_ROWS if high else 1
        b += TILE_BLOCKS if wide else 1


@inlined
def _rotate(y: Int32, rotation: Int32, step: int, head_dim: int) -> None:
    """Rotate pairs (j, j + K / 2) of one head."""
    half = head_dim // 2
    cosines, sines = rotation[0, step], rotation[1, step]
    for j in range(half):
        a, b = y[j], y[j + half]
        left = np.int32(np.int32(a * cosines[j]) - np.int32(b * sines[j]))
        right = np.int32(np.int32(b * cosines[j]) + np.int32(a * sines[j]))
        y[j] = round_shift(left, ROTARY_BITS)
        y[j + half] = round_shift(right, ROTARY_BITS)


@inlined
def _head_step(value: np.int32) -> np.int32:
    """Queries, keys and values as int8."""
    return clamp(round_shift(value, HEAD_BITS), INT8_MAX)


@inlined
def _store(shape: Shape, cache: Cache, layer: int, stream: int, at: int, y: Int32) -> None:
    """Keys and values of a row, y [2 G * K], into the caches' position `at`."""
    streams, room = cache.begins.shape[1], cache.begins.shape[3]
    groups, dim, wide = shape.num_kv_heads, shape.head_dim, shape.head_room
    for g in range(groups):
        base = ((layer * streams + stream) * groups + g) * room * wide
        total = np.int32(0)
        block = base + at // LANES * LANES * wide + at % LANES * DEPTH
        for j in range(dim):
            key = _head_step(y[g * dim + j])
            total = np.int32(total + key)
            cache.keys[block + j // DEPTH * BLOCK + j % DEPTH] = np.int8(key)
        cache.begins[layer, stream, g, at] = np.int32(total * np.int32(-OFFSET))
        block = base + at // DEPTH * BLOCK + at % DEPTH
        for j in range(dim):
            value = _head_step(y[(groups + g) * dim + j])
            cache.values[block + (j // LANES * room * LANES + j % LANES * DEPTH)] = np.int8(value)


@inlined
def _attend(
    shape: Shape, weights: Weights, cache: Cache, layer: int, stream: int, at: int, queries: Bytes,
    scratch: Scratch, out: Int32,
) -> None:  # fmt: skip
    """Averages of the values that a row's queries [H * K'] attend to, in units of 2^-8, into out [H * K]."""
    streams, room = cache.begins.shape[1], cache.begins.shape[3]
    heads, groups, dim, wide = shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.head_room
    first = max(0, at - shape.window + 1)
    count, share = at + 1 - first, heads // groups
    block, quad = first // LANES, first // DEPTH
    multiplier, shift = weights.scores[layer, 0], weights.scores[layer, 1]
    half, lead, depth = np.int64(1) << (shift - 1), first - quad * DEPTH, at // DEPTH + 1 - quad
    scores, farthest = scratch.scores, weights.table.shape[0] - 1
    for g in range(groups):
        number = (layer * streams + stream) * groups + g
        base = number * room * wide
        _products(
            share, queries, g * share * wide, wide,
            at // LANES + 1 - block, cache.keys, base + block * LANES * wide, LANES * wide, wide // DEPTH,
            cache.begins, number * room + block * LANES, LANES, scratch.products, 0, room,
        )  # fmt: skip
        for h in range(share):
            dots = scratch.products[h, first - block * LANES :]
            biases = weights.biases[layer, g * share + h, shape.window - count :]
            top = np.int64(-(1 << 62))
            for i in range(count):
                score = ((np.int64(dots[i]) * multiplier + half) >> shift) + np.int64(biases[i])
                scores[i] = score
                top = max(top, score)
            attention = scratch.attention[h]
            for i in range(lead):
                attention[i] = 0
            for i in range(lead + count, depth * DEPTH):
                attention[i] = 0
            total = np.int64(0)
            for i in range(count):
                weight = weights.table[min(top - scores[i], farthest)]
                attention[lead + i] = weight
                total += np.int64(weight)
            scores[room + h] = (np.int64(1) << RECIPROCAL_BITS) // total
        _products(
            share, scratch.attention, 0, scratch.attention.shape[1],
            wide // LANES, cache.values, base + quad * BLOCK, room * LANES, depth,
            scratch.zeros, 0, 0, scratch.averages, 0, wide,
        )  # fmt: skip
        for h in range(share):
            reciprocal = scores[room + h]
            for j in range(dim):
                average = (
                    np.int64(scratch.averages[h, j]) * reciprocal + (1 << (AVERAGE_SHIFT - 1))
                ) >> AVERAGE_SHIFT
                out[(g * share + h) * dim + j] = np.int32(average)


@compiled
def store(
    shape: Shape, cache: Cache, layer: int, stream: int, streams: int, steps: int, scratch: Scratch
) -> None:
    """Queries, keys and values from scratch.y to where they are read."""
    dim, wide, heads, at = shape.head_dim, shape.head_room, shape.num_heads, cache.counts[1]
    for s in range(streams):
        for t in range(steps):
            y, queries = scratch.y[s * steps + t], scratch.queries[s * steps + t]
            if shape.period > 0:
                for h in range(heads + shape.num_kv_heads):
                    _rotate(y[h * dim :], scratch.rotation, t, dim)
            for h in range(heads):
                for j in range(dim):
                    queries[h * wide + j] = np.uint8(_head_step(y[h * dim + j]) + OFFSET)
            _store(shape, cache, layer, stream + s, at + t, y[heads * dim :])


@compiled
def attend(
    shape: Shape, weights: Weights, cache: Cache, layer: int, stream: int, streams: int, steps: int,
    scratch: Scratch,
) -> None:  # fmt: skip
    """Quantised averages of what each row's queries attend to, in scratch.q."""
    for s in range(streams):
        for t in range(steps):
            r = s * steps + t
            _attend(
                shape, weights, cache, layer, stream + s, cache.counts[1] + t, scratch.queries[r], scratch,
                scratch.y[r],
            )  # fmt: skip
            quantise_row(scratch.y[r], shape.num_heads * shape.head_dim, r, scratch)


@compiled
def turn(shape: Shape, weights: Weights, position: int, steps: int, rotation: Int32) -> None:
    """Cosines and sines of the angles of `steps` positions."""
    mask = shape.period - 1
    for t in range(steps):
        for j in range(shape.head_dim // 2):
            angle = ((position + t) & mask) * weights.turns[j]
            rotation[0, t, j] = weights.cosines[angle & mask]
            rotation[1, t, j] = weights.cosines[(angle - shape.period // 4) & mask]


@compiled
def make_room(shape: Shape, cache: Cache, count: int) -> None:
    """Move the last window - 1 positions to the front, by whole blocks, where `count` more do not fit."""
    layers, streams, groups, room = cache.begins.shape
    filled = cache.counts[1]
    if filled + count <= room:
        return
    away = max(0, filled - shape.window + 1) // LANES * LANES
    kept, wide = filled - away, shape.head_room
    for layer in range(layers):
        for s in range(streams):
            for g in range(groups):
                begins = cache.begins[layer, s, g]
                for i in range(kept):
                    begins[i] = begins[i + away]
                base = ((layer * streams + s) * groups + g) * room * wide
                for i in range((kept + LANES - 1) // LANES * LANES * wide):
                    cache.keys[base + i] = cache.keys[base + away * wide + i]
                for b in range(wide // LANES):
                    at = base + b * room * LANES
                    for i in range((kept + DEPTH - 1) // DEPTH * BLOCK):
                        cache.values[at + i] = cache.values[at + away * LANES + i]
    cache.counts[1] = kept
