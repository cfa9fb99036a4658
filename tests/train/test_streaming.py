"""Runs that tokenise while they train: in one process and in several, cut off and resumed."""

import json
import os

import pytest
from test_pipeline import TINY

from laconic.cli import main
from laconic.coder.errors import LaconicError
from laconic.data.corpus import Corpus
from laconic.data.shards import open_shard
from laconic.data.splits import split_of
from laconic.train.configuration import build_recipe, load_recipe
from laconic.train.language import LanguageModule
from laconic.train.pipeline import prepare, pretrain, run
from laconic.train.run import Run

STREAMED = {**TINY, "data.streaming": True, "data.shuffle_bytes": 20_000, "data.skip_unreadable": True}


@pytest.mark.parametrize("cut_at", [20])
def test_a_streamed_run_cut_off_and_resumed_equals_the_uninterrupted_one(
    cut_at, corpus, tmp_path, monkeypatch, capsys
):
    sources = [str(corpus), str(tmp_path / "texts")]
    (tmp_path / "texts").mkdir()
    os.symlink(tmp_path / "gone", tmp_path / "texts" / "dangling.txt")
    recipe = load_recipe("nano", None, {**STREAMED, "training.validations": 4, "training.max_steps": 32})
    whole = run(sources, tmp_path / "whole", recipe)
    assert list(whole["skipped"]) == [str(tmp_path / "texts" / "dangling.txt")]
    assert "hash of a sample" in whole["corpora"][0]["source"]
    assert "left out: cannot read" in capsys.readouterr().err
    step = LanguageModule.training_step

    def cut_off(self, batch, batch_idx):
        if self.global_step == cut_at:
            raise RuntimeError("the machine stopped")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LanguageModule, "training_step", cut_off)
    with pytest.raises(RuntimeError, match="stopped"):
        run(sources, tmp_path / "cut", recipe)
    monkeypatch.undo()
    resumed = run(sources, tmp_path / "cut", recipe)
    assert resumed["tokens_seen"] == whole["tokens_seen"] == 32 * 8 * 32
    assert resumed["id"] == whole["id"]


def test_nothing_but_a_sample_is_on_disk_and_validation_is_kept_out(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("laconic.train.recipe.LEAST_SAMPLE_BYTES", 50_000)
    changes = {"data.validation_tokens": 1000, "tokenizer.sample_bytes": 50_000}
    this = Run.open(tmp_path / "run", load_recipe("nano", None, {**STREAMED, **changes}))
    prepare(this, [str(corpus)])
    held, total = open_shard(this.shards, "train").num_bytes, Corpus([str(corpus)]).total_bytes
    assert 0 < held < 0.6 * total
    tokenizer, validation = this.tokenizer(), open_shard(this.shards, "validation")
    for begin, end in zip(validation.offsets[:-1], validation.offsets[1:], strict=True):
        document = tokenizer.decode(validation.tokens[begin:end])
        assert split_of(document, 0.05, 0.01) == "validation"


def test_a_stage_alone_finds_the_corpus_and_refuses_another(corpus, tmp_path, capsys):
    texts = tmp_path / "texts"
    texts.mkdir()
    for path in corpus.iterdir():
        (texts / path.name).write_bytes(path.read_bytes())
    settings = [f"--{key}={'null' if value is None else value}" for key, value in STREAMED.items()]
    out = str(tmp_path / "run")
    assert main(["tokenizer", str(texts), "-o", out, *settings, "--training.max_steps=3"]) == 0
    assert main(["pretrain", "-o", out]) == 0
    (texts / "more.txt").write_text("more\n")
    (tmp_path / "run" / "student" / "final.ckpt").unlink()
    capsys.readouterr()
    assert main(["pretrain", "-o", out]) == 1
    assert "its files have changed since" in capsys.readouterr().err
    (tmp_path / "run" / "corpus.json").unlink()
    assert main(["pretrain", "-o", out]) == 1
    assert "has no corpus yet" in capsys.readouterr().err


def test_what_does_not_stream_is_refused():
    with pytest.raises(LaconicError, match=r"data\.streaming is true, and n-grams"):
        build_recipe({"kind": "ngram", "data.streaming": True})


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need two processor cores")
def test_two_processes_share_a_stream_and_go_on(corpus, tmp_path):
    """Resumed after 8 of 16 steps, the weights are those of an uninterrupted run."""
    constant = {"warmup_share": 0.0, "warmdown_share": 0.0, "quantised_share": 0.0}
    settings = {f"training.{name}": value for name, value in constant.items()}
    settings |= {"training.devices": 2, "training.accelerator": "cpu", "training.threads": 2}
    modules = []
    for folder, ends in (("whole", [16]), ("cut", [8, 16])):
        for steps in ends:
            recipe = build_recipe({**STREAMED, **settings, "training.max_steps": steps})
            this = Run(tmp_path / folder, recipe)
            this.keep_recipe()
            prepare(this, [str(corpus)])
            (this.stage("student") / "final.ckpt").unlink(missing_ok=True)
            module = pretrain(this, "student", recipe.training)
        modules.append(module)
    whole, cut = (m.state_dict() for m in modules)
    assert all((whole[name] == cut[name]).all() for name in whole)
    assert modules[0].tokens_seen == 16 * 2 * 8 * 32
    assert json.loads((tmp_path / "cut" / "corpus.json").read_text())["sources"] == [str(corpus)]
