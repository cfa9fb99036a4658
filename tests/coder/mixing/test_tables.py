import math
from itertools import pairwise

import numpy as np

from laconic.coder.mixing.tables import (
    ODDS_LIMIT,
    RATES,
    STRETCHED,
    log2,
    log2_table,
    rate_table,
    squash_table,
    stretch_table,
)

SQUASH = squash_table().tolist()


def squash(odds):
    return SQUASH[odds + 4096]


def test_squash_is_monotone_symmetric_and_never_certain():
    assert len(SQUASH) == 8192
    assert all(a <= b for a, b in pairwise(SQUASH))
    assert SQUASH[0] >= 1
    assert SQUASH[-1] <= 65535
    assert all(squash(x) + squash(-x) == 65536 for x in range(ODDS_LIMIT + 1))


def test_squash_is_the_logistic_function_of_base_two():
    for x in range(-ODDS_LIMIT, ODDS_LIMIT + 1):
        exact = 65536 / (1 + 2.0 ** (-x / 256))
        assert abs(squash(x) - min(65535, max(1, exact))) < 1.01


def test_stretch_is_the_inverse_of_squash():
    stretched = stretch_table().tolist()
    assert len(stretched) == STRETCHED
    for i, x in enumerate(stretched):
        assert -ODDS_LIMIT <= x <= ODDS_LIMIT
        assert squash(x - 1) < 16 * i + 8 <= squash(x)


def test_log2_is_exact():
    for m, value in enumerate(log2_table().tolist()):
        power = (1024 + m) ** 1024  # of which log2 is 1024 times as large, so that its bits tell
        assert value == power.bit_length() - 1 - 10 * 1024, m


def test_log2_of_large_numbers_rounds_down():
    for x in [1, 2, 3, 1023, 1024, 1025, 2047, 2048, 2049, 12345, 987654321, (1 << 38) - 1, 1 << 38]:
        assert 0 <= 1024 * math.log2(x) - log2(x) < 2.5
    assert all(log2(1 << n) == n << 10 for n in range(50))


def test_rates_fall_from_two_thirds():
    rates = rate_table()
    assert len(rates) == RATES
    assert rates[0] == (1 << 17) // 3
    assert (np.diff(rates) <= 0).all()
    assert rates[-1] > 0
    assert all(rate == (1 << 17) // (2 * n + 3) for n, rate in enumerate(rates.tolist()))


def test_tables_are_read_only():
    for table in (squash_table(), stretch_table(), log2_table(), rate_table()):
        assert not table.flags.writeable
