import numpy as np
import pytest
from graphs import random_checkpoint, random_config

from laconic.bench import shares
from laconic.coder.engines import kernels
from laconic.coder.engines.numba_engine import NumbaEngine
from laconic.coder.reference import NumpyEngine


def test_every_kernel_of_the_engine_has_its_part():
    names = set(kernels.advance.py_func.__code__.co_names)
    assert {name for name in names if hasattr(getattr(kernels, name, None), "py_func")} == set(shares.KERNELS)


@pytest.mark.parametrize(("streams", "positions"), [(3, "rotary"), (70, "relative")])
def test_a_step_is_taken_apart(streams, positions, monkeypatch):
    monkeypatch.setattr(shares, "STEPS", 90)  # the caches are moved
    engine = NumbaEngine(random_checkpoint(random_config(positions=positions)))
    before = kernels.linear
    fed = np.random.default_rng(0).integers(0, 256, (streams, 40)).astype(np.int32)
    found = shares.take_apart(engine, fed)
    assert kernels.linear is before
    assert found.streams == streams
    assert found.seconds > 0
    assert set(found.parts) == {part for part, _ in shares.KERNELS.values()}
    assert 0 < found.head <= found.parts["linear layers"]
    assert sum(found.as_json()["shares"].values()) == pytest.approx(1)
    assert "the head among them" in found.as_text()


def test_moves_of_the_caches_count_as_often_as_they_happen(monkeypatch):
    monkeypatch.setattr(shares, "STEPS", 4)
    clock = shares._Clock()
    clock.seconds["make_room", 0, False] = [0.0, 1.0, 2.0]
    clock.seconds["make_room", 0, True] = [9.0]
    assert clock.of("make_room", 0) == pytest.approx(3 / 4 + 9 / 4)
    assert clock.of("linear", 0) == 0


def test_other_engines_are_left_out():
    engine = NumpyEngine(random_checkpoint(random_config()))
    assert shares.take_apart(engine, np.zeros((2, 4), np.int32)) is None
