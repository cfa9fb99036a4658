import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.data.batches import sequence_batch
from laconic.data.tokenshard import TokenShard

BEGIN = 1000


def _shard(lengths):
    """Documents of the given lengths; token i is i."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    size = int(offsets[-1])
    return TokenShard(
        None, np.arange(size, dtype=np.uint16), offsets, BEGIN, size, len(lengths), size, "", ""
    )


def _reference(shard, indices, seq_len, shift):
    """The definition, token by token."""
    starts = set(shard.offsets.tolist())
    inputs, targets = [], []
    for i in indices:
        places = range(shift + i * seq_len, shift + (i + 1) * seq_len)
        targets.append([int(shard.tokens[p]) for p in places])
        inputs.append([BEGIN if p == places[0] or p in starts else int(shard.tokens[p - 1]) for p in places])
    return inputs, targets


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    seq_len=st.integers(1, 9),
    shift=st.integers(0, 8),
    order=st.randoms(use_true_random=False),
)
def test_batches_are_what_the_definition_says(lengths, seq_len, shift, order):
    shard = _shard(lengths)
    indices = list(range(max(0, shard.num_tokens - shift) // seq_len))
    order.shuffle(indices)
    if not indices:
        return
    inputs, targets = sequence_batch(shard, indices, seq_len, BEGIN, shift)
    assert inputs.dtype == targets.dtype == np.int64
    assert inputs.shape == targets.shape == (len(indices), seq_len)
    assert (inputs.tolist(), targets.tolist()) == _reference(shard, indices, seq_len, shift)
    whole = shard.tokens[shift : shift + len(indices) * seq_len]
    assert sorted(targets.ravel()) == whole.tolist()


def test_a_sequence_beyond_the_end_is_never_asked_for():
    with pytest.raises(AssertionError):
        sequence_batch(_shard([10]), [1], 8, BEGIN, 0)
