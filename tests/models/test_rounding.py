import numpy as np
import pytest

from laconic.models.rounding import levels_of, round_rows


def layer(seed=0):
    """Weights, and the moment of inputs that are correlated, some far larger than others."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(2000, 24)) @ random.normal(size=(24, 24)) * np.geomspace(0.1, 3, 24)
    return random.normal(size=(16, 24)), inputs, inputs.T @ inputs / len(inputs)


def error(weight, inputs, rounded, step):
    return float((((rounded * step[:, None]) - weight) @ inputs.T).var())


def test_levels():
    assert [levels_of(bits) for bits in (8, 6, 5, 4, 2)] == [127, 31, 15, 7, 1]


@pytest.mark.parametrize("levels", [127, 31, 15, 7, 1])
def test_what_the_moment_knows_lessens_the_error_of_the_outputs(levels):
    weight, inputs, moment = layer()
    plain, compensated = round_rows(weight, levels), round_rows(weight, levels, moment)
    for rounded, step in (plain, compensated):
        assert rounded.dtype == np.int8
        assert np.abs(rounded).max() <= levels
        assert (step > 0).all()
    assert error(weight, inputs, *compensated) < 0.6 * error(weight, inputs, *plain)


def test_without_a_moment_each_weight_goes_to_the_nearest_level():
    weight, _, _ = layer()
    rounded, step = round_rows(weight, 127)
    assert np.abs(rounded * step[:, None] - weight).max() <= step.max() / 2 + 1e-12
    assert (np.abs(rounded).max(axis=1) == 127).all()


def test_few_levels_saturate_where_that_serves_the_row():
    weight = np.concatenate([np.random.default_rng(0).normal(size=200), [9.0]])[None]
    rounded, step = round_rows(weight, 7)
    at_largest = np.rint(weight / (9 / 7)) * (9 / 7)
    assert ((rounded * step[:, None] - weight) ** 2).sum() < ((at_largest - weight) ** 2).sum()


@pytest.mark.parametrize("levels", [127, 7])
def test_the_least_weights_become_zero_and_the_others_make_good_for_them(levels):
    weight, inputs, moment = layer()
    plain, compensated = round_rows(weight, levels, None, 0.4), round_rows(weight, levels, moment, 0.4)
    for rounded, _ in (plain, compensated):
        assert (rounded == 0).mean() >= 0.4
    dense = round_rows(weight, levels)[0]
    assert np.array_equal(plain[0][plain[0] != 0], dense[plain[0] != 0])
    assert np.abs(weight[plain[0] == 0]).max() <= np.abs(weight[plain[0] != 0]).min()
    assert error(weight, inputs, *compensated) < 0.5 * error(weight, inputs, *plain)


def test_rows_and_inputs_of_zeros():
    rounded, step = round_rows(np.zeros((2, 3)), 127, np.zeros((3, 3)))
    assert not rounded.any()
    assert np.isfinite(step).all()
