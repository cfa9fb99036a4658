"""The conformance vectors: computed twice, and hard enough."""

import hashlib
import os
import struct
from dataclasses import replace

import numpy as np
import plain
import pytest
import yaml

import laconic
from laconic.coder.conformance import (
    KINDS,
    VECTORS,
    SplitMix64,
    digest,
    generate,
    load_cases,
    regenerate,
    trace,
)
from laconic.models.config import ModelConfig

CASES = {case.name: case for case in load_cases()}
PLAIN_WORK = 3_000_000  # multiply-accumulates that plain Python may take, about a second
EVALUATED = [name for name, case in CASES.items() if case.macs <= PLAIN_WORK]


@pytest.fixture(scope="session", autouse=True)
def _regenerated():
    if os.environ.get("LACONIC_REGENERATE") == "1":
        regenerate()
        CASES.update({case.name: case for case in load_cases()})


def flat(value):
    if isinstance(value, int):
        yield value
    else:
        for part in value:
            yield from flat(part)


def plain_digest(value):
    """As the document says: int64, little-endian, row-major."""
    numbers = list(flat(value))
    return hashlib.sha256(struct.pack(f"<{len(numbers)}q", *numbers)).hexdigest()[:16]


@pytest.mark.parametrize("name", CASES)
def test_the_reference_gives_the_vectors(name):
    case = CASES[name]
    found = trace(*generate(case))
    assert {tensor: digest(value) for tensor, value in found.items()} == case.digests


@pytest.mark.parametrize("name", EVALUATED)
def test_plain_integers_give_the_vectors(name):
    case = CASES[name]
    tensors, ids = plain.generate(case)
    found = {}
    for row in ids:
        for tensor, value in plain.Plain(case.config, tensors).evaluate(row).items():
            found.setdefault(tensor, []).append(value)
    assert {tensor: plain_digest(value) for tensor, value in found.items()} == case.digests


def test_the_bounds_are_those_of_the_document_and_are_nearly_reached():
    reach = {}
    for name in EVALUATED:
        tensors, ids = plain.generate(CASES[name])
        if "highest" in name:
            run = plain.Plain(CASES[name].config, tensors)
            run.evaluate(ids[0])
            reach = {what: max(value, reach.get(what, 0)) for what, value in run.reach.items()}
    bounds = {"sum": 26, "scale": 24, "product": 50, "scaled": 34, "multiplied": 52}
    for what, bits in bounds.items():
        assert 1 << (bits - 1) < reach[what] <= 1 << bits


def test_the_tiers_are_those_of_the_recipes():
    folder = os.path.join(os.path.dirname(laconic.__file__), "configs")
    for tier in ("nano", "small", "base"):
        with open(os.path.join(folder, f"{tier}.yaml")) as file:
            recipe = yaml.safe_load(file)
        shape = ModelConfig(**recipe["model"]).frozen(recipe["tokenizer"]["vocab_size"])
        assert CASES[tier].config == shape
        assert CASES[tier].steps > shape.window


def test_the_cases_are_hard():
    configs = [case.config for case in CASES.values()]
    assert {case.kind for case in CASES.values()} == set(KINDS)
    assert {2, 300, 4096} <= {config.vocab_size for config in configs}
    assert {2, 512} <= {config.window for config in configs}
    assert {(config.positions, config.ffn, config.tied) for config in configs} >= {
        (positions, ffn, tied)
        for positions, ffn, tied in (
            ("rotary", "relu2", True),
            ("rotary", "relu2", False),
            ("rotary", "reglu", False),
            ("relative", "relu2", True),
            ("relative", "reglu", False),
        )
    }
    assert any(1 < config.num_kv_heads < config.num_heads for config in configs)
    assert any(config.head_dim % 2 for config in configs)
    assert any(config.d_model > 1040 for config in configs)
    assert any(config.ffn_dim > 1040 for config in configs)
    assert len({case.seed for case in CASES.values()}) == len(CASES)


@pytest.mark.parametrize("name", ["limits, rotary, relu2", "limits, relative, reglu"])
def test_the_limits_saturate_everything(name):
    found = trace(*generate(CASES[name]))
    assert set(np.unique(np.abs(found["logits"]))) == {0, 1 << 24}
    assert {-(1 << 24), 1 << 24} <= set(np.unique(found["logits"]))
    assert np.abs(found["layers.0.fed"]).max() == 1 << 22
    assert np.abs(found["layers.1.queries"]).max() == 127
    assert np.abs(found["layers.0.up"]).max() >= 1 << 14


def test_a_wrong_digit_would_be_noticed():
    case = CASES["rotary"]
    checkpoint, ids = generate(case)
    weight = checkpoint.tensors["layers.1.down.weight"]
    weight[0, 0] += 1 if weight[0, 0] < 127 else -1
    found = {name: digest(value) for name, value in trace(checkpoint, ids).items()}
    wrong = [name for name in found if found[name] != case.digests[name]]
    assert wrong[0] == "layers.1.down.sums"
    assert "layers.1.fed" in wrong
    assert generate(replace(case, seed=case.seed + 1))[0].id != generate(case)[0].id


def test_the_generator_is_splitmix64():
    # The first numbers from seed 1234567, as published with other implementations.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    generator = SplitMix64(1234567)
    assert [*generator.draw(1).tolist(), *generator.draw(3).tolist()] == known
    again = plain.splitmix64(1234567)
    assert [next(again) for _ in known] == known


def test_the_file_is_as_it_is_written(tmp_path):
    """Regenerating changes nothing where nothing has changed: shown on the smallest case."""
    text = VECTORS.read_text()
    lines = text.splitlines()
    small = next(line for line in lines if '"name": "smallest"' in line).rstrip(",")
    copy = tmp_path / "vectors.json"
    copy.write_text(f"{lines[0]}\n{small}\n{lines[-1]}\n")
    before = copy.read_text()
    regenerate(copy)
    assert copy.read_text() == before
