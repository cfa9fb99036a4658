"""Engine and coder in one kernel decode what was written without it, however often they stop to report."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from graphs import random_checkpoint, random_config

from laconic.coder.codec import decode_segment
from laconic.coder.container import DamageError
from laconic.coder.direct import encode_direct
from laconic.coder.engine import build_engine
from laconic.coder.mixing.coding import encode_mixed
from laconic.coder.model import Model

DATA = b"It was the best of times, it was the worst of times.\n" + bytes(range(0, 256, 7))


def model_of(name):
    """A random checkpoint whose tokens are the 256 bytes."""
    checkpoint = random_checkpoint(random_config())
    checkpoint.__dict__["tokenizer"] = SimpleNamespace(
        encode_batch=lambda batch: [np.frombuffer(data, dtype=np.uint8).astype(np.int32) for data in batch]
    )
    return Model(checkpoint, build_engine(checkpoint, name, 1))


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("method", ["model", "mixed"])
def test_decoding_in_pieces(method, streams, monkeypatch):
    monkeypatch.setattr("laconic.coder.lockstep.REPORTED_TOKENS", 20)
    segments = [
        encode_direct(DATA, model, streams, 1 << 20, None)
        if method == "model"
        else encode_mixed(DATA, model, 2, streams, 1 << 20)
        for model in map(model_of, ("numpy", "numba"))
    ]
    assert segments[0] == segments[1]
    model, reports = model_of("numba"), []
    assert decode_segment(segments[0], model, reports.append) == DATA
    assert len(reports) >= 4
    with pytest.raises(DamageError, match="too early"):
        decode_segment(replace(segments[0], payload=segments[0].payload[:-9]), model)
