from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coder import fixedpoint as fp


def test_exp2_table_is_the_nearest_integer():
    table = fp.exp2_table()
    assert table.dtype == np.uint32
    for f in (0, 1, 511, 512, 1023):
        # T is nearest to 2^(22 - f/1024) exactly when (2T - 1)^1024 <= 2^(23*1024 - f) < (2T + 1)^1024.
        twice = 2 * int(table[f])
        assert (twice - 1) ** 1024 <= 2 ** (23 * 1024 - f) < (twice + 1) ** 1024
    assert [int(table[i]) for i in (0, 1, 1023)] == [4194304, 4191466, 2098572]


@given(st.integers(0, 2**51))
def test_integer_sqrt(x):
    for value in (x, isqrt(x) ** 2, max(0, isqrt(x) ** 2 - 1)):
        assert fp.integer_sqrt(np.array([value]))[0] == isqrt(value)


@given(st.lists(st.integers(-(2**22), 2**22), min_size=1, max_size=20))
def test_quantised_rows_stay_within_int8_and_near_the_row(row):
    x = np.array([row], dtype=np.int64)
    q, m = fp.quantise_rows(x)
    assert np.abs(q).max() <= 127
    assert m[0, 0] == max(1, np.abs(x).max())
    # Half a step of rounding, and what the floored reciprocal loses.
    assert np.abs(q * m / 127 - x).max() <= float(m[0, 0]) / 127 * (0.5 + m[0, 0] / 2**24) + 1e-9


@given(st.integers(-(2**50), 2**50), st.integers(1, 40))
def test_round_shift_is_the_nearest_integer(x, shift):
    rounded = int(fp.round_shift(np.array([x]), shift)[0])
    assert abs(Fraction(x, 2**shift) - rounded) <= Fraction(1, 2)


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=8))
def test_multipliers_express_scales(scales):
    multiplier, shift = fp.multiplier_for(np.array(scales))
    assert 1 <= shift <= fp.SHIFT_MAX
    assert multiplier.max() < 2**fp.MULTIPLIER_BITS
    largest = int(np.argmax(scales))
    assert multiplier[largest] / 2**shift == pytest.approx(scales[largest], rel=2**-12)


def test_attention_weights_fall_from_255_to_0():
    weights = fp.attention_weights(np.arange(20 << fp.LOGIT_BITS))
    assert weights[0] == 255
    assert (np.diff(weights) <= 0).all()
    assert weights[9 << fp.LOGIT_BITS :].max() == 0
