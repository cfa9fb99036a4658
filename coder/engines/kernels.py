"""The frozen graph compiled: docs/frozen.md for blocks of rows, each a stream at a step."""

from ..compiled import compiled
from ..fixedpoint import INNER_LIMIT, LOGIT_LIMIT, RESIDUAL_LIMIT
from .attention import attention, make_room, turn
from .layout import DOWN, OUT, PER_LAYER, QKV, ROWS, UP, Cache, Int32, Scratch, Shape, Weights
from .rows import add, gate, linear, normalise


@compiled
def _layer(
    shape: Shape, weights: Weights, cache: Cache, layer: int, stream: int, streams: int, steps: int,
    scratch: Scratch,
) -> None:  # fmt: skip
    """One layer for `streams` streams from `stream` on, `steps` steps of each."""
    rows, first, same, y = streams * steps, PER_LAYER * layer, scratch.places[0], scratch.y
    normalise(shape, rows, scratch)
    linear(weights, first + QKV, rows, scratch, INNER_LIMIT, same, y)
    attention(shape, weights, cache, layer, stream, streams, steps, scratch)
    linear(weights, first + OUT, rows, scratch, 2 * RESIDUAL_LIMIT, same, y)
    add(shape, rows, scratch)
    normalise(shape, rows, scratch)
    linear(weights, first + UP, rows, scratch, INNER_LIMIT, same, y)
    gate(shape, rows, scratch)
    linear(weights, first + DOWN, rows, scratch, 2 * RESIDUAL_LIMIT, same, y)
    add(shape, rows, scratch)


@compiled
def advance(
    shape: Shape, weights: Weights, cache: Cache, scratch: Scratch, ids: Int32, logits: Int32
) -> None:
    """Feed ids [S, T]; writes the logits after each, [S * T, V]."""
    streams, steps = ids.shape
    chunk = max(1, ROWS // min(streams, ROWS))
    places = scratch.places[1]
    for step in range(0, steps, chunk):
        count = min(chunk, steps - step)
        make_room(shape, cache, count)
        if shape.period > 0:
            turn(shape, weights, cache.counts[0], count, scratch.rotation)
        for stream in range(0, streams, ROWS):
            part = min(ROWS, streams - stream)
            for s in range(part):
                for t in range(count):
                    r = s * count + t
                    places[r] = (stream + s) * steps + step + t
                    embedded = weights.embedded[ids[stream + s, step + t]]
                    for j in range(shape.d_model):
                        scratch.x[r, j] = embedded[j]
            for layer in range(shape.num_layers):
                _layer(shape, weights, cache, layer, stream, part, count, scratch)
            normalise(shape, part * count, scratch)
            linear(weights, PER_LAYER * shape.num_layers, part * count, scratch, LOGIT_LIMIT, places, logits)
        cache.counts[0] += count
        cache.counts[1] += count
