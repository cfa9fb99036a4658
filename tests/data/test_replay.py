import itertools

import numpy as np
import pytest
import torch

from laconic.coder.errors import LaconicError
from laconic.coder.tokenizer import ByteTokenizer
from laconic.data.corpus import Corpus
from laconic.data.datamodule import TrainingBatches, open_training
from laconic.data.replay import ReplayDataModule, found_in, held_out
from laconic.data.shards import build_shards
from laconic.models.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> ByteTokenizer:
    return train_tokenizer([b"abc"], "bytes", 256)


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory):
    """Shards of digits, new, and of letters, old."""
    root = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    made = []
    for name, alphabet in (("new", b"0123456789"), ("old", b"abcdefghij")):
        (root / name).mkdir()
        (root / name / "text").write_bytes(bytes(rng.choice(list(alphabet), 60_000).tolist()))
        build_shards(Corpus([str(root / name)]), tokenizer, root / f"{name}-shards", 0.1, 0.0)
        made.append(root / f"{name}-shards")
    return made


def take(module, count):
    loader = iter(module.train_dataloader())
    return [next(loader) for _ in range(count)]


def letters(targets):
    """Which sequences are of letters alone; no sequence is of both."""
    few, many = targets.min(dim=1).values, targets.max(dim=1).values
    is_letter = few >= targets.new_tensor(ord("a"))
    assert torch.equal(is_letter, many >= targets.new_tensor(ord("a")))
    return is_letter


@pytest.mark.parametrize("old", [1, 3, 7])
def test_each_batch_has_its_share_of_old_text(folders, old):
    for _, targets in take(ReplayDataModule(*folders, old, 16, 8), 5):
        assert targets.shape == (8, 16)
        assert letters(targets).tolist() == [True] * old + [False] * (8 - old)


def test_a_module_goes_on_with_the_batch_after_those_that_were_served(folders):
    whole = take(ReplayDataModule(*folders, 3, 16, 8, seed=4), 6)
    later = ReplayDataModule(*folders, 3, 16, 8, seed=4)
    later.load_state_dict({"batches_served": 4})
    for (a, b), (c, d) in zip(whole[4:], take(later, 2), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_validation_is_of_the_new_text(folders):
    for _, targets in ReplayDataModule(*folders, 3, 16, 8).val_dataloader():
        assert not letters(targets).any()


def test_what_the_new_text_keeps_out_is_not_replayed_wherever_documents_begin(folders, tokenizer, tmp_path):
    new = folders[0]
    texts = [folder.parent / name / "text" for folder, name in zip(folders, ("new", "old"), strict=True)]
    (tmp_path / "both").write_bytes(texts[1].read_bytes()[:100] + texts[0].read_bytes())
    build_shards(Corpus([str(tmp_path / "both")]), tokenizer, tmp_path / "both-shards", 0.0, 0.0)
    kept_out = b"".join(bytes(shard.tokens.tolist()) for shard in held_out(new))
    assert len(kept_out) > 3000
    rows = [
        bytes(row.tolist())
        for _, targets in take(ReplayDataModule(new, tmp_path / "both-shards", 7, 16, 8), 600)
        for row in targets[:7]
    ]
    assert not any(row in kept_out for row in rows)
    assert len(set(rows)) > 2000  # of what is learned, all is replayed
    (tmp_path / "known").write_bytes(kept_out * 8)
    build_shards(Corpus([str(tmp_path / "known")]), tokenizer, tmp_path / "known-shards", 0.0, 0.0)
    with pytest.raises(LaconicError, match="kept out of training: give other old text"):
        take(ReplayDataModule(new, tmp_path / "known-shards", 3, 16, 8), 1)


def test_short_documents_are_found_as_wholes(folders, tokenizer, tmp_path):
    digits, letters = (
        (folder.parent / n / "text").read_bytes() for folder, n in zip(folders, ("new", "old"), strict=True)
    )
    mixed = [digits[i : i + 32] + letters[i : i + 32] for i in range(0, len(digits), 32)]
    (tmp_path / "new").write_bytes(digits)
    (tmp_path / "old").write_bytes(b"".join(mixed))
    for name, share in (("new", 0.1), ("old", 0.0)):
        corpus = Corpus([str(tmp_path / name)], max_document_bytes=32)
        made = build_shards(corpus, tokenizer, tmp_path / f"{name}-shards", share, 0.0)
    kept_out = held_out(tmp_path / "new-shards")
    found = found_in(kept_out, made["train"])
    assert found.sum() == sum(shard.num_tokens for shard in kept_out) > 3000


def test_lines_that_recur_are_no_documents(tokenizer, tmp_path):
    letters = np.random.default_rng(1).integers(97, 123, (50, 80), dtype=np.uint8)
    lines = [line.tobytes() + b"\n" for line in letters]
    for name, seed in (("new", 2), ("old", 3)):
        drawn = np.random.default_rng(seed).integers(50, size=1000)
        (tmp_path / name).write_bytes(b"".join(lines[i] for i in drawn))
        corpus = Corpus([str(tmp_path / name)], max_document_bytes=1000)
        made = build_shards(corpus, tokenizer, tmp_path / f"{name}-shards", 0.1, 0.0)
    kept_out = held_out(tmp_path / "new-shards")
    assert kept_out[0].num_documents
    assert not found_in(kept_out, made["train"]).any()


def test_a_clean_stretch_is_found_at_any_shift(folders):
    shard = open_training(folders[1], 16)
    barred = np.ones(shard.num_tokens, dtype=bool)
    barred[100:116] = False  # fits at one shift of sixteen
    clean = shard.tokens[100:116].tolist()
    batches = TrainingBatches(ReplayDataModule(*folders, 3, 16, 8), shard, 3, barred)
    assert all(row == clean for _, targets in itertools.islice(batches, 200) for row in targets.tolist())


def test_old_text_shorter_than_a_sequence_is_refused(folders):
    with pytest.raises(LaconicError, match="a sequence needs"):
        ReplayDataModule(*folders, 3, 65_000, 8).train_dataloader()
