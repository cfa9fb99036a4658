from itertools import islice

import numpy as np
import pytest

from laconic.coder.errors import LaconicError
from laconic.data.datamodule import TokenDataModule
from laconic.data.predictions import LEAST_LOG, Predictions, record_type, write_predictions
from laconic.data.shards import shard_path
from laconic.data.tokenshard import TokenShard

V, TOP_K, TOKENS, STRETCH = 300, 2, 1000, 64


def predict(begin, end):
    """Of token i, ids i and i + 1 (mod V), and nothing left for the others."""
    ids = (np.arange(begin, end)[:, None] + np.arange(TOP_K)) % V
    with np.errstate(divide="ignore"):
        return ids, np.log(np.tile([0.75, 0.25, 0.0], (end - begin, 1)))


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "train.top2"
    write_predictions(made, V, TOP_K, TOKENS, STRETCH, predict)
    return made


def test_they_are_read_as_they_were_written(path):
    assert path.stat().st_size == TOKENS * (4 * TOP_K + 2)
    ids, log_probs = Predictions.open(path, V, TOP_K, TOKENS).at(np.array([0, 700]), 300)
    assert ids.shape == (2, 300, 2)
    np.testing.assert_array_equal(ids[1], predict(700, 1000)[0])
    np.testing.assert_allclose(log_probs[0, 0], [np.log(0.75), np.log(0.25), LEAST_LOG], rtol=1e-3)


@pytest.mark.parametrize("kept", [0, 7, 64 * 10, 64 * 10 + 1, 5003])
def test_what_was_cut_off_goes_on(path, kept):
    whole = path.read_bytes()
    path.with_name(path.name + ".partial").write_bytes(whole[:kept])
    path.unlink()
    begun = []
    write_predictions(path, V, TOP_K, TOKENS, STRETCH, lambda *ends: begun.append(ends[0]) or predict(*ends))
    assert path.read_bytes() == whole
    assert begun[0] == kept // (64 * 10) * 64


def test_damage_is_noticed(path):
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"\0", b""):
        path.write_bytes(damaged)
        with pytest.raises(LaconicError, match="remove it to make it anew"):
            Predictions.open(path, V, TOP_K, TOKENS)
    record = record_type(V, TOP_K)
    for field, value in (("ids", V), ("log_probs", 0), ("log_probs", np.nan)):
        records = np.frombuffer(whole, record).copy()
        records[field][500] = value
        path.write_bytes(records.tobytes())
        opened = Predictions.open(path, V, TOP_K, TOKENS)
        opened.at(np.array([0]), 500)
        with pytest.raises(LaconicError, match="is damaged"):
            opened.at(np.array([0, 450]), 100)


def test_batches_hold_the_predictions_of_their_targets(shard_folder, tmp_path):
    shard = TokenShard.open(shard_path(shard_folder, "train"))

    def themselves(begin, end):
        ids = np.asarray(shard.tokens[begin:end, None], np.int64)
        return ids, np.log(np.full((end - begin, 2), 0.5))

    path, counts = tmp_path / "train.top1", (shard.vocab_size, 1, shard.num_tokens)
    write_predictions(path, *counts, 4096, themselves)
    module = TokenDataModule(shard_folder, 32, 4, seed=3, predictions=Predictions.open(path, *counts))
    for _, targets, ids, log_probs in islice(module.train_dataloader(), 2 * shard.num_tokens // 128):
        assert ids.shape == (4, 32, 1)
        assert log_probs.shape == (4, 32, 2)
        np.testing.assert_array_equal(ids[..., 0], targets)
