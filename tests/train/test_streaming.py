"""Runs that tokenise while they train: in one process and in several, cut off and resumed."""

import json
import os

import pytest
from tiny import TINY

from laconic.cli import main
from laconic.coder.errors import LaconicError
from laconic.data import corpus as corpus_module
from laconic.data.corpus import Corpus
from laconic.data.shards import open_shard
from laconic.data.sources import Unreadable
from laconic.data.splits import split_of
from laconic.train.configuration import build_recipe, load_recipe
from laconic.train.language import LanguageModule
from laconic.train.pipeline import prepare, pretrain
from laconic.train.publish import corpora
from laconic.train.run import Run

STREAMED = {**TINY, "data.streaming": True, "data.shuffle_bytes": 20_000, "data.skip_unreadable": True}


def _prepared(folder, sources, **changes):
    with Run.open(folder, load_recipe("nano", None, {**STREAMED, **changes})) as this:
        prepare(this, sources)
    return this


def test_a_streamed_run_cut_off_and_resumed_equals_one_that_was_not(corpus, tmp_path, monkeypatch, capsys):
    gone = tmp_path / "texts" / "dangling.txt"
    gone.parent.mkdir()
    gone.symlink_to(tmp_path / "gone")
    sources, changes = [str(corpus), str(gone.parent)], {"training.validations": 4, "training.max_steps": 32}
    whole, cut = (_prepared(tmp_path / name, sources, **changes) for name in ("whole", "cut"))
    straight = pretrain(whole, "student", whole.recipe.training)
    assert list(whole.skips()) == [str(gone)]
    assert "hash of a sample" in corpora(whole)[0]["source"]
    assert "left out: cannot read" in capsys.readouterr().err
    step = LanguageModule.training_step

    def cut_off(self, batch, batch_idx):
        if self.global_step == 20:
            raise RuntimeError("the machine stopped")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LanguageModule, "training_step", cut_off)
    with pytest.raises(RuntimeError, match="stopped"):
        pretrain(cut, "student", cut.recipe.training)
    monkeypatch.undo()
    resumed = pretrain(cut, "student", cut.recipe.training)
    assert resumed.tokens_seen == straight.tokens_seen == 32 * 8 * 32
    assert _same(straight, resumed)


def test_what_was_left_out_is_known_after_a_kill(corpus, tmp_path, monkeypatch):
    documents, this = corpus_module._file_documents, _prepared(tmp_path / "streamed", [str(corpus)])

    def damaged(path, *args):
        if not path.endswith(("0.txt", "1.txt", "2.txt", "3.txt")):
            raise Unreadable("it is damaged", path)
        return documents(path, *args)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus_module, "_file_documents", damaged)
    monkeypatch.setattr(LanguageModule, "training_step", killed)
    with pytest.raises(LaconicError, match="interrupted"):
        pretrain(this, "student", this.recipe.training)
    assert set(this.skips().values()) == {"it is damaged"}
    with monkeypatch.context() as patch:  # when the shards are there, and nothing else knows
        patch.setattr(Run, "keep_skips", killed)
        with pytest.raises(KeyboardInterrupt):
            _prepared(tmp_path / "shards", [str(corpus)], **{"data.streaming": False})
    assert len(_prepared(tmp_path / "shards", [str(corpus)], **{"data.streaming": False}).skips()) == 36


def _same(left, right):
    left, right = (module.state_dict() for module in (left, right))
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)


def test_nothing_but_a_sample_is_on_disk_and_validation_is_kept_out(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("laconic.train.recipe.LEAST_SAMPLE_BYTES", 50_000)
    changes = {"data.validation_tokens": 1000, "tokenizer.sample_bytes": 50_000}
    this = _prepared(tmp_path / "run", [str(corpus)], **changes)
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
    taught = {"distillation.teachers": ["a"], "tokenizer.source": "a", "distillation.top_k": 4}
    for settings, named in (
        (taught, "distillation.top_k is 4"),
        ({"data.train_share": 0.5}, "data.train_share is 0.5"),
    ):
        with pytest.raises(LaconicError, match=f"data.streaming is true, and {named}"):
            build_recipe({"data.streaming": True, **settings})


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
    assert _same(*modules)
    assert modules[0].tokens_seen == 16 * 2 * 8 * 32
    assert json.loads((tmp_path / "cut" / "corpus.json").read_text())["sources"] == [str(corpus)]
