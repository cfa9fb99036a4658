"""What could overflow is refused when it is loaded, with the tensor and the bound."""

import hashlib
import json
import re

import numpy as np
import pytest
from graphs import random_checkpoint, random_config

from laconic.coder.checkpoint import CONFIG, TENSORS, FrozenCheckpoint, _canonical
from laconic.coder.errors import LaconicError
from laconic.coder.graph import FrozenConfig, tensor_specs
from laconic.coder.tensorfile import read_tensors, write_tensors

SHAPES = {
    "rotary, untied": random_config(tied=False),
    "relative, gated": random_config(positions="relative", ffn="reglu"),
}
SPECS = [(shape, name) for shape, config in SHAPES.items() for name in tensor_specs(config)]


@pytest.mark.parametrize(("shape", "name"), SPECS)
def test_every_tensor_one_beyond_its_bounds(tmp_path, shape, name):
    config = SHAPES[shape]
    spec = tensor_specs(config)[name]
    random_checkpoint(config).save(tmp_path / "frozen")
    path = tmp_path / "frozen" / TENSORS
    sound, refused = read_tensors(path), 0
    kind = np.iinfo(spec.dtype)
    for value in (spec.low - 1, spec.high + 1):
        if not kind.min <= value <= kind.max:
            continue
        tensor = sound[name].copy()
        tensor.reshape(-1)[-1] = value
        write_tensors(path, {**sound, name: tensor})
        message = (
            rf"frozen: tensor {re.escape(name)} reaches .*{value}.*, allowed are {spec.low}\.\.{spec.high}$"
        )
        with pytest.raises(LaconicError, match=message):
            FrozenCheckpoint.load(tmp_path / "frozen")
        refused += 1
    assert refused == (1 if name.endswith(".weight") else 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({name: value}, rf"{name} is {value}, allowed are whole numbers from {low} to {high}")
            for name, (low, high) in FrozenConfig.LIMITS.items()
            for value in (low - 1, high + 1)
            if name != "spec"
        ),
        (
            {"num_heads": 64, "num_kv_heads": 64, "head_dim": 128},
            r"num_heads \* head_dim is 8192, allowed are at most 4096",
        ),
        ({"head_dim": 7}, "head_dim is 7, it must be even with rotary positions"),
        ({"rotary_period": 96}, "rotary_period is 96, it must be a power of two, at least window, 12"),
        ({"window": 65}, "rotary_period is 64, it must be a power of two, at least window, 65"),
        ({"num_heads": 6, "num_kv_heads": 4}, "num_heads is 6, it must be a multiple of num_kv_heads, 4"),
    ],
)
def test_shapes_beyond_the_proof_are_refused_when_loading(tmp_path, changes, message):
    """The file is whole: hash and all."""
    random_checkpoint(random_config()).save(tmp_path / "frozen")
    path = tmp_path / "frozen" / CONFIG
    head = json.loads(path.read_text())
    head["config"].update(changes)
    del head["sha256"]
    head["sha256"] = hashlib.sha256(_canonical(head)).hexdigest()
    path.write_text(json.dumps(head))
    with pytest.raises(LaconicError, match=message):
        FrozenCheckpoint.load(tmp_path / "frozen")
