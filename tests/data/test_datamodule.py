from collections import Counter
from itertools import islice

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from laconic.coder.errors import LaconicError
from laconic.data.datamodule import TokenDataModule
from laconic.data.shards import shard_path
from laconic.data.tokenshard import TokenShard


def _batches(module, count):
    return [(a.numpy(), b.numpy()) for a, b in islice(module.train_dataloader(), count)]


def _equal(left, right):
    assert len(left) == len(right)
    for (a, b), (c, d) in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_validation_counts_every_token_once_in_order(shard_folder):
    shard = TokenShard.open(shard_path(shard_folder, "validation"))
    for seq_len, batch_size in ((64, 4), (7, 3), (shard.num_tokens, 2), (shard.num_tokens + 5, 2)):
        loader = TokenDataModule(shard_folder, seq_len, batch_size).val_dataloader()
        batches = list(loader)
        assert len(batches) == len(loader)
        targets = torch.cat([targets.flatten() for _, targets in batches])
        np.testing.assert_array_equal(targets, shard.tokens)


def test_validation_reads_a_prefix(shard_folder):
    shard = TokenShard.open(shard_path(shard_folder, "validation"))
    loader = TokenDataModule(shard_folder, 32, 4, validation_tokens=1001).val_dataloader()
    targets = torch.cat([targets.flatten() for _, targets in loader])
    np.testing.assert_array_equal(targets, shard.tokens[:1001])


def test_a_pass_reads_each_sequence_once(shard_folder):
    module = TokenDataModule(shard_folder, 32, 5)
    dataset = module.train_dataloader().dataset.batches
    shard = dataset.shard
    per_pass = dataset.num_sequences
    assert per_pass * 32 > shard.num_tokens - 64
    number_of_passes = 3
    rows = np.concatenate([b for _, b in _batches(module, -(-per_pass * number_of_passes // 5))])
    passes = [rows[i * per_pass : (i + 1) * per_pass] for i in range(number_of_passes)]
    available = Counter(shard.tokens.tolist())
    for read in passes:
        counts = Counter(read.ravel().tolist())
        assert sum(counts.values()) == per_pass * 32
        assert not counts - available
    assert not np.array_equal(passes[0], passes[1])  # another order, and other borders
    assert sorted(passes[0].tolist()) != sorted(passes[1].tolist())


def test_batches_follow_from_seed_and_number(shard_folder):
    reference = _batches(TokenDataModule(shard_folder, 16, 4, seed=1), 300)
    assert all(a.shape == b.shape == (4, 16) for a, b in reference)
    _equal(_batches(TokenDataModule(shard_folder, 16, 4, seed=1), 300), reference)
    module = TokenDataModule(shard_folder, 16, 4, seed=1)
    module.load_state_dict({"batches_served": 123})
    _equal(_batches(module, 177), reference[123:])
    other = _batches(TokenDataModule(shard_folder, 16, 4, seed=2), 1)
    assert not np.array_equal(other[0][1], reference[0][1])


def test_a_batch_may_be_larger_than_the_shard(shard_folder):
    ((inputs, targets),) = _batches(TokenDataModule(shard_folder, 4096, 50), 1)
    assert inputs.shape == targets.shape == (50, 4096)


def test_a_shard_of_one_sequence_serves_and_a_smaller_one_is_refused(shard_folder):
    size = TokenShard.open(shard_path(shard_folder, "train")).num_tokens
    ((_, targets),) = _batches(TokenDataModule(shard_folder, size, 2), 1)
    np.testing.assert_array_equal(targets[0], targets[1])
    with pytest.raises(LaconicError, match=rf"a sequence needs {size + 1}: .* at most {size}"):
        TokenDataModule(shard_folder, size + 1, 2).train_dataloader()


class _Place:
    """What a data module asks its Trainer."""

    def __init__(self, rank, world):
        self.global_rank, self.world_size = rank, world


def _of_rank(shard_folder, rank, world, seq_len, batch_size):
    module = TokenDataModule(shard_folder, seq_len, batch_size, seed=1)
    module.trainer = _Place(rank, world)
    return module


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_train_on_the_batches_of_one_process(shard_folder, world):
    whole = _batches(TokenDataModule(shard_folder, 32, 2 * world, seed=1), 200)
    parts = [_batches(_of_rank(shard_folder, rank, world, 32, 2), 200) for rank in range(world)]
    _equal(
        [
            tuple(np.concatenate(arrays) for arrays in zip(*step, strict=True))
            for step in zip(*parts, strict=True)
        ],
        whole,
    )
    resumed = _of_rank(shard_folder, 1, world, 32, 2)
    resumed.load_state_dict({"batches_served": 50})
    _equal(_batches(resumed, 150), parts[1][50:])


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(("seq_len", "batch_size"), [(64, 4), (7, 3), (1000, 5), (10**6, 2)])
def test_ranks_together_validate_every_token_once_in_as_many_batches(
    shard_folder, world, seq_len, batch_size
):
    shard = TokenShard.open(shard_path(shard_folder, "validation"))
    loaders = [
        _of_rank(shard_folder, rank, world, seq_len, batch_size).val_dataloader() for rank in range(world)
    ]
    parts = [[targets for _, targets in loader] for loader in loaders]
    assert {len(part) for part in parts} == {len(loader) for loader in loaders} == {len(parts[0])}
    in_order = [targets.flatten() for step in zip(*parts, strict=True) for targets in step]
    np.testing.assert_array_equal(torch.cat(in_order), shard.tokens)


class _Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append((batch[0].numpy().copy(), batch[1].numpy().copy()))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def _fit(folder, shards, steps, resume=None, **settings):
    model, data = _Recorder(), TokenDataModule(shards, 16, 4, seed=3)
    keep = pl.callbacks.ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        callbacks=[keep],
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"val_check_interval": 3, "check_val_every_n_epoch": None} | settings,
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    assert data.batches_served == len(model.batches) + (data.skipped if resume else 0)
    return model.batches


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings",
    [{}, {"limit_train_batches": 4, "val_check_interval": None, "check_val_every_n_epoch": 1}],
    ids=["endless", "epochs of four batches"],
)
def test_a_resumed_run_goes_on_with_the_next_batch(tmp_path, shard_folder, monkeypatch, settings):
    load = TokenDataModule.load_state_dict

    def remember(self, state_dict):
        self.skipped = state_dict["batches_served"]
        load(self, state_dict)

    monkeypatch.setattr(TokenDataModule, "load_state_dict", remember)
    whole = _fit(tmp_path / "whole", shard_folder, 12, **settings)
    assert len(whole) == 12
    _equal(whole, _batches(TokenDataModule(shard_folder, 16, 4, seed=3), 12))
    for step in (1, 5, 8):
        rest = _fit(
            tmp_path / f"from{step}", shard_folder, 12, tmp_path / "whole" / f"step={step}.ckpt", **settings
        )
        _equal(rest, whole[step:])
