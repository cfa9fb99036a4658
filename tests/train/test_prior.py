"""What a checkpoint's mixer begins with is learned, the same each time, and helps."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import random_checkpoint, random_config

from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.codec import encode_segment
from laconic.coder.engine import load_engine
from laconic.coder.graph import PRIOR_TENSORS
from laconic.coder.mixing.coding import encode_mixed
from laconic.coder.model import Model
from laconic.models.tokenizer import train_tokenizer
from laconic.train.prior import LEAST_TEXT, with_prior

LINE = b"%d bottles of beer on the wall, %d bottles; take %d down\n"
TEXT = b"".join(LINE % (n, n, n % 7) for n in range(900))


@pytest.fixture(scope="module")
def plain():
    made = random_checkpoint(random_config())
    return replace(made, tokenizer_json=train_tokenizer([], "bytes", 256).to_json())


def test_a_short_text_teaches_nothing(plain):
    assert with_prior(plain, TEXT[: LEAST_TEXT - 1]) is plain


def test_a_prior_is_learned_alike_and_saves_bytes(plain, tmp_path):
    learned, again = with_prior(plain, TEXT), with_prior(plain, TEXT)
    assert learned.id == again.id != plain.id
    for name in PRIOR_TENSORS:
        np.testing.assert_array_equal(learned.tensors[name], again.tensors[name])
    assert with_prior(learned, TEXT).id == learned.id  # what was there before does not matter
    learned.save(tmp_path / "learned")
    loaded = FrozenCheckpoint.load(tmp_path / "learned")
    text = TEXT[1000:4000]
    sizes = []
    for checkpoint in (plain, loaded):
        model = Model(checkpoint, load_engine(checkpoint, "numpy"))
        coded = encode_mixed(text, model, 6, 1, len(text))
        sizes.append(len(coded.payload))
        assert encode_segment(text, model).original_length == len(text)
    assert sizes[1] < sizes[0]
