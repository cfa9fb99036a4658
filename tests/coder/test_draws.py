"""Draws are by exact probabilities: those of the coder, as temperature, top-k and top-p change them."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coder.draws import MILLION, Sampler, millionths, most_likely, weights
from laconic.coder.errors import LaconicError
from laconic.coder.rangecoder import weights_reference

LIMIT = 1 << 24
LOGITS = np.array([0, 1024, -512, 3000, 2999, -40000, 1024, 2047], dtype=np.int32)
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32}  # at 0.001, by freedom


@given(st.lists(st.integers(-LIMIT, LIMIT), min_size=1, max_size=40))
def test_at_temperature_1_weights_are_those_of_the_coder(logits):
    assert weights(np.array(logits, dtype=np.int32)).tolist() == weights_reference(logits)


@pytest.mark.parametrize("temperature", [0.000001, 0.3, 0.7, 1.5, 1000])
def test_temperature_divides(temperature):
    logits = np.array([*LOGITS, LIMIT - 1, -LIMIT, LIMIT], dtype=np.int32)[: 8 if temperature < 2 else None]
    distance = np.minimum(int(logits.max()) - logits.astype(float), 22 * 1024)
    expected = 2**22 * 2.0 ** (-distance / 1024 / temperature)
    got = weights(logits, millionths(temperature, "a temperature", 1000))
    assert (np.abs(got - expected) <= 0.004 * expected + 1).all()


def test_millionths():
    assert millionths(0.7, "x", 1) == millionths("0.7", "x", 1) == millionths(Fraction(7), "x", 7) // 10
    assert millionths("1e-6", "x", 1) == 1
    assert millionths("0.7" + "0" * 50, "x", 1) == 700_000
    assert millionths(1, "x", 1) == MILLION


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 1.000001, "nan", "inf", "-inf", "", "a", "0.1234567", True, None, []),
        *("1e999999", "1e-999999", "0.70000000000000000000000000000000000001", "9" * 99),
    ],
)
def test_numbers_that_are_not_allowed(value):
    with pytest.raises(LaconicError, match=r"^top-p of .*: choose a number above 0, up to 1, of at most six"):
        millionths(value, "top-p", 1)


def test_the_likelier_first_and_of_equals_the_lower():
    logits = np.array([5, 9, 5, 9, -LIMIT, LIMIT], dtype=np.int32)
    assert most_likely(logits, 6).tolist() == [5, 1, 3, 0, 2, 4]
    assert most_likely(logits, 2).tolist() == [5, 1]
    assert most_likely(logits, 99).tolist() == [5, 1, 3, 0, 2, 4]


def allowed(logits, **options):
    return np.flatnonzero(Sampler(**options).allowed(np.array(logits, dtype=np.int32))).tolist()


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [(1, [1]), (2, [1, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 3, 4])],
)
def test_top_k(top_k, expected):
    assert allowed([5, 9, 5, 9, 4], top_k=top_k) == expected


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (1, [0]),
        (250_000, [0]),
        (250_001, [0, 1]),
        (500_000, [0, 1]),
        (500_001, [0, 1, 2]),
        (999_999, [0, 1, 2, 3]),
        (MILLION, [0, 1, 2, 3]),
    ],
)
def test_top_p_of_equals(top_p, expected):
    assert allowed([7] * 4, top_p=top_p) == expected


def test_top_p_is_of_what_temperature_and_top_k_leave():
    # Weights 4, 2, 1, 1 (of 8) at temperature 1; 16, 4, 1, 1 (of 22) at 1/2.
    logits = [2048, 1024, 0, 0]
    assert allowed(logits, top_p=500_000) == [0]
    assert allowed(logits, top_p=750_000) == [0, 1]
    assert allowed(logits, top_p=750_001) == [0, 1, 2]
    assert allowed(logits, top_p=666_666, top_k=2) == [0]
    assert allowed(logits, top_p=666_667, top_k=2) == [0, 1]
    assert allowed(logits, top_p=727_000, temperature=500_000) == [0]
    assert allowed(logits, top_p=728_000, temperature=500_000) == [0, 1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 700_000},
        {"temperature": 3_000_000},
        {"top_k": 3},
        {"top_p": 800_000},
        {"seed": 2**64 - 1},
    ],
)
def test_tokens_come_as_often_as_they_should(options):
    count, sampler = 20_000, Sampler(**options)
    drawn = np.bincount([sampler(LOGITS) for _ in range(count)], minlength=len(LOGITS))
    temperature = options.get("temperature", MILLION) / MILLION
    chances = 2.0 ** ((LOGITS - LOGITS.max()) / 1024 / temperature)
    ranked = np.argsort(-LOGITS, kind="stable")
    if "top_k" in options:
        chances[ranked[options["top_k"] :]] = 0
    if "top_p" in options:
        before = np.cumsum(chances[ranked]) - chances[ranked]
        chances[ranked[before / chances.sum() >= options["top_p"] / MILLION]] = 0
    expected = count * chances / chances.sum()
    seen = expected > 5
    assert drawn[expected == 0].sum() == 0
    chi_square = ((drawn[seen] - expected[seen]) ** 2 / expected[seen]).sum()
    assert 2 <= seen.sum() < 8
    assert chi_square < CHI_SQUARE[int(seen.sum()) - 1]


def test_numbers_are_without_bias(monkeypatch):
    """Of 2^64 = 3 q + 1 numbers the last is not used."""
    numbers = iter([2**64 - 1, 2**64 - 2, 0, 4])
    sampler = Sampler()
    monkeypatch.setattr(sampler.numbers, "draw", lambda count: np.array([next(numbers)], dtype=np.uint64))
    assert [sampler.below(3) for _ in range(3)] == [2, 0, 1]


def test_numbers_are_those_of_the_document():
    """The first numbers from seed 1234567, as published with other implementations."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    sampler = Sampler(seed=1234567)
    assert [sampler.below(1000) for _ in known] == [number % 1000 for number in known]
