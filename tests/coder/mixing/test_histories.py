import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coder.mixing.histories import BOUNDS, WHOLE, histories

STATES = histories()
ZEROS, ONES = STATES.zeros.tolist(), STATES.ones.tolist()


def after(bits, state=0):
    for bit in bits:
        state = int(STATES.following[2 * state + bit])
    return state


def reachable():
    found, waiting = {0}, [0]
    while waiting:
        state = waiting.pop()
        new = {after([0], state), after([1], state)} - found
        found |= new
        waiting += new
    return found


def test_every_state_is_reached_and_numbers_have_no_gaps():
    found = reachable()
    assert found == set(range(len(found)))
    assert len(found) <= 256
    assert not STATES.zeros[len(found) :].any()
    assert not STATES.ones[len(found) :].any()


def test_only_the_empty_history_knows_nothing():
    found = reachable()
    assert [state for state in found if ZEROS[state] + ONES[state] == 0] == [0]
    assert 0 not in {after([bit], state) for state in found for bit in (0, 1)}


def test_the_larger_count_is_bounded_by_the_smaller():
    for zeros, ones in zip(ZEROS, ONES, strict=True):
        assert max(zeros, ones) <= BOUNDS[min(zeros, ones)]


def test_weight_is_the_sum_of_the_counts():
    assert STATES.weight.tolist() == [zeros + ones for zeros, ones in zip(ZEROS, ONES, strict=True)]


@given(st.lists(st.integers(0, 1), max_size=WHOLE))
def test_a_short_history_is_kept_whole(bits):
    state = after(bits)
    assert (ZEROS[state], ONES[state]) == (bits.count(0), bits.count(1))
    others = [[int(digit) for digit in f"{n:b}"[1:]] for n in range(1, 2 << len(bits))]
    assert [other for other in others if after(other) == state] == [bits]


@given(st.lists(st.integers(0, 1), min_size=1, max_size=200))
def test_a_bit_counts_for_itself(bits):
    before, state = after(bits[:-1]), after(bits)
    counts, others = (ONES, ZEROS) if bits[-1] else (ZEROS, ONES)
    assert counts[state] >= max(1, counts[before])
    assert others[state] <= others[before]


@pytest.mark.parametrize("bit", [0, 1])
def test_a_constant_ends_in_one_state_that_a_contradiction_leaves(bit):
    state = after([bit] * 1000)
    assert after([bit], state) == state
    counts = (ZEROS, ONES)
    assert counts[bit][state] == BOUNDS[0]
    assert counts[bit][after([1 - bit], state)] <= BOUNDS[1] // 2


def test_zeros_and_ones_are_mirrored():
    seen, waiting = {0}, [(0, 0)]  # a history, and the one of the opposite bits
    opposite = dict(waiting)
    while waiting:
        one, other = waiting.pop()
        assert (ZEROS[one], ONES[one]) == (ONES[other], ZEROS[other])
        for bit in (0, 1):
            pair = after([bit], one), after([1 - bit], other)
            assert opposite.setdefault(*pair) == pair[1]
            if pair[0] not in seen:
                seen.add(pair[0])
                waiting.append(pair)


def test_the_states_are_the_same_everywhere():
    digest = hashlib.sha256(STATES.following.tobytes() + STATES.weight.tobytes()).hexdigest()
    assert digest[:16] == "362a5a624e838d36", (
        "files that were coded with other states cannot be read any more"
    )
