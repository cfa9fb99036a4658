from types import SimpleNamespace

import numpy as np

from laconic.data.corpus import Corpus
from laconic.data.shards import build_shards
from laconic.models.tokenizer import train_tokenizer
from laconic.train import worth as worth_module
from laconic.train.worth import break_even, measure_worth, worth_lines


def test_break_even_is_where_output_and_checkpoint_meet():
    assert break_even(1000, 2.0, 2.0) is None
    size = break_even(1000, 2.0, 1.5)
    assert size * 1.5 / 8 + 1000 == size * 2.0 / 8
    worth = {"new": {"bytes": 9, "start": 2.0, "adapted": 1.5, "both": 1.4, "none": 1.8}, "old": None}
    worth |= {"break_even": {"start": 16000, "none": None, "best": 26667}, "corpus_bytes": 20_000}
    worth["pruned"] = None
    lines = "\n".join(worth_lines(worth, 1000, "default", "mine"))
    assert "16,000 bytes" in lines
    assert "against experts alone: never" in lines
    assert "20,000 bytes of text: too little to pay" in lines
    assert "until 26,667 bytes" in lines
    for until, words in ((5000, "smaller until 5,000 bytes"), (None, "however long")):
        worth["pruned"] = {"start_bytes": 2000, "start_macs_per_byte": 5e5, "until": until}
        lines = "\n".join(worth_lines(worth, 1000, "default", "mine"))
        assert "from 2,000 bytes, 0.500 M" in lines
        assert words in lines


def test_old_text_that_is_learned_as_new_text_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(worth_module, "shipped", lambda folders, text: {"bits_per_byte": 2.0 - len(folders)})
    monkeypatch.setattr(worth_module, "_pruned", lambda *_: None)
    tokenizer = train_tokenizer([b"abc"], "bytes", 256)
    old, other = (
        np.random.default_rng(seed).integers(97, 123, 60_000, np.uint8).tobytes() for seed in (0, 1)
    )
    shards = {}
    for name, data in (("old", old), ("other", other), ("both", other[:777] + old)):
        (tmp_path / f"{name}.txt").write_bytes(data)
        shards[name] = tmp_path / name
        build_shards(Corpus([str(tmp_path / f"{name}.txt")]), tokenizer, shards[name], 0.1, 0.1)
    for name, relearned in (("other", False), ("both", True)):
        run = SimpleNamespace(shards=shards[name], start=None, checkpoint=None, tokenizer=lambda: tokenizer)
        worth = measure_worth(run, {"checkpoint_bytes": 1000}, shards["old"])
        assert worth["old"]["relearned"] is relearned
        assert any("of other, more" in line for line in worth_lines(worth, 1000, "a", "b")) is relearned
