"""The shipped checkpoint writes the same bytes, and reads them, whatever evaluates it."""

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import laconic
from laconic.coder.container import MIXED, MODEL
from laconic.coder.files import open_model
from laconic.coder.fixedpoint import exp2_weights

SETTINGS = [
    (engine, threads, environment)
    for engine, threads in itertools.product(("numpy", "torch"), (1, 2))
    for environment in (
        {},
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"ATEN_CPU_CAPABILITY": "default", "NUMBA_CPU_NAME": "generic", "OPENBLAS_CORETYPE": "Haswell"},
    )
]
CODE = """
import sys, laconic
engine, threads, kinds, text, foreign = sys.argv[1:]
data = open(text, "rb").read()
for kind in kinds.split(","):
    level, count = map(int, kind.split("-"))
    blob = laconic.compress(data, level=level, engine=engine, threads=int(threads), streams=count)
    open(f"{text}.{kind}.lac", "wb").write(blob)
    blob = open(f"{foreign}.{kind}.lac", "rb").read()
    assert laconic.decompress(blob, engine=engine, threads=int(threads)) == data
"""


def what_the_model_believes(streams: int, steps: int) -> bytes:
    """Text drawn from the default checkpoint itself: no other is as sure to be coded by the model."""
    model = open_model("default")
    assert model is not None
    engine, rng = model.engine, np.random.default_rng(0)
    state, ids = engine.start(streams), np.full((streams, 1), engine.vocab_size, dtype=np.int32)
    drawn = []
    for _ in range(steps):
        logits = engine.advance(state, ids)[:, -1].astype(np.int64)
        sums = exp2_weights(logits.max(axis=1, keepdims=True) - logits).cumsum(axis=1)
        ids = (sums <= rng.integers(0, sums[:, -1])[:, None]).sum(axis=1, keepdims=True).astype(np.int32)
        drawn.append(ids)
    return b"".join(model.checkpoint.token_bytes[i] for i in np.concatenate(drawn, axis=1).ravel())


@pytest.mark.slow
def test_engines_threads_levels_streams_and_instruction_sets_agree(tmp_path):
    """Each setting encodes, and decodes what the setting before it wrote."""
    source = what_the_model_believes(48, 80) + bytes(range(256))
    kinds = ["1-1", "1-64", "2-64", "6-7"]  # level and streams
    for kind in kinds:
        level, count = map(int, kind.split("-"))
        blob = laconic.compress(source, level=level, streams=count)
        method = MODEL if level == 1 else MIXED
        assert blob[13] == method, "the model must code this text, or nothing is shown"
        (tmp_path / f"first.{kind}.lac").write_bytes(blob)
    foreign = tmp_path / "first"
    digests = set()
    for number, (engine, threads, environment) in enumerate(SETTINGS):
        text = tmp_path / f"{number}.txt"
        text.write_bytes(source)
        arguments = [engine, str(threads), ",".join(kinds), str(text), str(foreign)]
        subprocess.run(
            [sys.executable, "-c", CODE, *arguments],
            env={**os.environ, **environment, "OPENBLAS_NUM_THREADS": str(threads)},
            check=True,
        )
        names = [f"{number}.txt.{kind}.lac" for kind in kinds]
        written = b"".join((tmp_path / name).read_bytes() for name in names)
        digests.add(hashlib.sha256(written).hexdigest())
        foreign = text
    assert len(digests) == 1
