"""The frozen graph compiled: docs/frozen.md for blocks of rows, each a stream at a step."""

import numpy as np

from ..compiled import compiled
from ..fixedpoint import INNER_LIMIT, LOGIT_LIMIT, RESIDUAL_LIMIT
from .attention import attend, make_room, store, turn
from .layout import DOWN, OUT, PER_LAYER, QKV, ROWS, UP, Cache, Int32, Scratch, Shape, Weights
from .rows import add, gate, linear, normalise


@compiled
def advance(
    shape: Shape, weights: Weights, cache: Cache, scratch: Scratch, ids: Int32, logits: Int32
) -> None:
    """Feed ids [S, T]; writes the logits after each, [S * T, V]."""
    streams, steps = ids.shape
    chunk = max(1, ROWS // min(streams, ROWS))
    same, places, y = scratch.places[0], scratch.places[1], scratch.y
    # As arguments, constants would be compiled in, each in a kernel of its own. What is beyond twice the
    # residual's limit saturates it, whatever it is added to.
    inner, outer, most = np.int64(INNER_LIMIT), np.int64(2 * RESIDUAL_LIMIT), np.int64(LOGIT_LIMIT)
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
            rows = part * count
            for layer in range(shape.num_layers):
                first = PER_LAYER * layer
                normalise(shape, rows, scratch)
                linear(weights, first + QKV, rows, scratch, inner, same, y)
                store(shape, cache, layer, stream, part, count, scratch)
                attend(shape, weights, cache, layer, stream, part, count, scratch)
                linear(weights, first + OUT, rows, scratch, outer, same, y)
                add(shape, rows, scratch)
                normalise(shape, rows, scratch)
                linear(weights, first + UP, rows, scratch, inner, same, y)
                gate(shape, rows, scratch)
                linear(weights, first + DOWN, rows, scratch, outer, same, y)
                add(shape, rows, scratch)
            normalise(shape, rows, scratch)
            linear(weights, PER_LAYER * shape.num_layers, rows, scratch, most, places, logits)
        cache.counts[0] += count
        cache.counts[1] += count
