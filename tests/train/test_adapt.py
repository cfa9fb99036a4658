"""Adapting tiny models to other words: what is learned, what is kept, and what is refused."""

import json
import random
import shutil
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import TINY

import laconic
from laconic.cli import main
from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.errors import LaconicError
from laconic.data.corpus import Corpus
from laconic.data.shards import build_shards
from laconic.data.tokenshard import TokenShard
from laconic.train.adapt import DOUBT, _old_shards
from laconic.train.configuration import load_recipe
from laconic.train.language import LanguageModule
from laconic.train.optimizer import MuonAdamW
from laconic.train.pipeline import run
from laconic.train.publish import corpora
from laconic.train.run import Run
from laconic.train.start import find_start, keep_start

OLD = "the code length of a message is what the model did not know about it"
NEW = "seven purple zebras quietly juggle wax above flat green boxes every warm night"
SHORT = ["--training.max_steps=60", "--training.seq_len=32", "--training.batch_size=8"]
SHORT += ["--training.validations=3", "--training.precision=32-true", "--training.threads=1"]
SHORT += ["--training.matrix_learning_rate=0.02", "--training.learning_rate=0.01", "--adaptation.anchor=0"]


def text(words, lines=1500, seed=0):
    rng = random.Random(seed)
    return "\n".join(" ".join(rng.choices(words.split(), k=9)) for _ in range(lines))


@pytest.fixture(scope="module")
def old_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    (folder / "old.txt").write_text(text(OLD, 4000))
    run([str(folder / "old.txt")], folder / "run", load_recipe("nano", None, TINY))
    return folder / "run"


@pytest.fixture(scope="module")
def new_text(tmp_path_factory):
    path = tmp_path_factory.mktemp("new") / "new.txt"
    path.write_text(text(NEW))
    return path


@pytest.fixture(scope="module")
def adapted(old_run, new_text, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapted") / "run"
    assert main(["train", "--from", str(old_run), str(new_text), "-o", str(out), *SHORT]) == 0
    return out, json.loads((out / "report.json").read_text())


def ids_of(checkpoint):
    ids = checkpoint.tokenizer.encode((text(NEW, 40, 5) + text(OLD, 40, 5)).encode())
    return torch.from_numpy(np.asarray(ids[:640], dtype=np.int64).reshape(20, 32))


def test_a_checkpoint_and_the_run_that_made_it_are_the_same_start(old_run):
    of_run, of_folder = find_start(str(old_run)), find_start(str(old_run / "checkpoint"))
    assert of_run.checkpoint.id == of_folder.checkpoint.id
    assert of_run.old_shards == old_run / "shards"
    assert of_folder.old_shards is None
    ids = ids_of(of_run.checkpoint)
    with torch.no_grad():
        p, q = (torch.log_softmax(s.transformer.eval()(ids), -1) for s in (of_run, of_folder))
    assert (p.exp() * (p - q)).sum(-1).mean() < 0.003  # nats a token


def test_new_text_is_learned_and_the_report_says_what_of_the_old_was_lost(adapted, old_run):
    out, report = adapted
    worth = report["adaptation"]
    assert worth["new"]["adapted"] < worth["new"]["start"]
    assert worth["old"]["bytes"] > 5_000
    assert worth["old"]["adapted"] < worth["old"]["start"] + 0.1
    assert worth["corpus_bytes"] == len(text(NEW))
    start, checkpoint = (
        FrozenCheckpoint.load(old_run / "checkpoint"),
        FrozenCheckpoint.load(out / "checkpoint"),
    )
    assert checkpoint.config == start.config
    assert checkpoint.token_bytes == start.token_bytes
    assert checkpoint.summary["adapted_from"] == start.id.hex()
    assert checkpoint.summary["corpora"][1:] == start.summary["corpora"]
    assert f"adapted from | `{start.id.hex()}`" in checkpoint.card
    assert "doubt" not in report


def test_the_adapted_checkpoint_works_alone_and_beside_its_start(adapted, old_run):
    out, _ = adapted
    data = text(NEW, 50, 9).encode()
    for names in ([out / "checkpoint"], [old_run / "checkpoint", out / "checkpoint"]):
        assert laconic.decompress(laconic.compress(data, names), names) == data


def test_a_checkpoint_that_is_not_of_the_student_beside_it_is_no_start(old_run, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(old_run, own)
    path = own / "student" / "final.ckpt"
    state = torch.load(path, weights_only=True)
    state["state_dict"]["transformer.embed.weight"] += 1e-4
    torch.save(state, path)
    with pytest.raises(LaconicError, match="not of the student beside it: freeze it again"):
        find_start(str(own))


def test_a_start_is_pruned_first_and_its_sparse_checkpoint_works(old_run, new_text, tmp_path, capsys):
    smaller = ["--model.num_layers=1", "--model.num_heads=1", "--model.ffn_dim=21", "--training.sparsity=0.5"]
    out = tmp_path / "out"
    arguments = ["train", "--from", str(old_run), str(new_text), "-o", str(out), *SHORT, *smaller]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "num_layers 2 becomes 1, num_heads 2 becomes 1, ffn_dim 32 becomes 21" in shown.err
    assert "validation text: in its new shape, " in shown.err
    assert "in its start's place: output and checkpoint" in shown.out
    assert "so few bytes say little" in shown.out
    start, pruned = (FrozenCheckpoint.load(folder) for folder in (old_run / "checkpoint", out / "checkpoint"))
    assert asdict(pruned.config) == asdict(start.config) | {"num_layers": 1, "num_heads": 1, "ffn_dim": 21}
    assert pruned.size_bytes < start.size_bytes
    assert (pruned.tensors["layers.0.up.weight"] == 0).mean() > 0.49
    report = json.loads((out / "report.json").read_text())
    assert report["adaptation"]["new"]["adapted"] < report["adaptation"]["new"]["start"]
    matrices = [t for name, t in pruned.tensors.items() if name.startswith("layers.") and t.ndim == 2]
    zeros = sum((t == 0).sum() for t in matrices) / sum(t.size for t in matrices)
    assert report["zeros"] == pytest.approx(zeros)
    assert f"zeros        {zeros:.1%} of the weights" in shown.out
    assert report["macs_per_byte"] < report["adaptation"]["pruned"]["start_macs_per_byte"]
    data = text(NEW, 50, 9).encode()
    for names in ([out / "checkpoint"], [old_run / "checkpoint", out / "checkpoint"]):
        assert laconic.decompress(laconic.compress(data, names), names) == data


def test_no_held_out_text_is_learned_from(adapted):
    out, _ = adapted
    shards = {s: TokenShard.open(out / "shards" / f"{s}.tokens") for s in ("train", "validation", "test")}
    pieces = {
        name: {shard.tokens[a:b].tobytes() for a, b in zip(shard.offsets, shard.offsets[1:], strict=False)}
        for name, shard in shards.items()
    }
    assert min(map(len, pieces.values())) > 3
    assert not pieces["train"] & (pieces["validation"] | pieces["test"])
    assert sum(shard.num_bytes for shard in shards.values()) == len(text(NEW))


def test_the_same_command_again_changes_nothing_and_another_start_is_refused(
    adapted, old_run, new_text, capsys
):
    out, report = adapted
    assert main(["train", "--from", str(old_run), str(new_text), "-o", str(out), *SHORT]) == 0
    assert json.loads((out / "report.json").read_text())["id"] == report["id"]
    capsys.readouterr()
    arguments = ["train", "--from", str(out / "checkpoint"), str(new_text), "-o", str(out), *SHORT]
    assert main(arguments) == 1
    assert "began with checkpoint" in capsys.readouterr().err
    for other in (
        ["--from", str(old_run / "checkpoint")],
        ["--from", str(old_run), "--replay", str(new_text)],
    ):
        assert main(["train", *other, str(new_text), "-o", str(out), *SHORT]) == 1
        assert "was begun with other old text (--replay)" in capsys.readouterr().err
    assert main(["train", str(new_text), "-o", str(out)]) == 1
    assert "another recipe" in capsys.readouterr().err
    shutil.rmtree(out / "student")
    assert main(["pretrain", "-o", str(out)]) == 1
    assert "adapts a checkpoint" in capsys.readouterr().err


def test_cut_off_and_resumed_it_equals_the_uninterrupted(old_run, new_text, tmp_path, monkeypatch):
    step = LanguageModule.training_step

    def cut_off(self, batch, batch_idx):
        if self.global_step == 45:
            raise RuntimeError("the machine stopped")
        return step(self, batch, batch_idx)

    def arguments(out):
        anchored = [*SHORT, "--adaptation.anchor=1"]
        return ["train", "--from", str(old_run / "checkpoint"), str(new_text), "-o", str(out), *anchored]

    assert main(arguments(tmp_path / "whole")) == 0
    monkeypatch.setattr(LanguageModule, "training_step", cut_off)
    with pytest.raises(RuntimeError, match="stopped"):
        main(arguments(tmp_path / "cut"))
    monkeypatch.undo()
    assert main(arguments(tmp_path / "cut")) == 0
    a, b = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "cut"))
    assert a["id"] == b["id"]
    assert a["adaptation"]["old"] is None


def test_it_grows_where_the_recipe_asks_for_more(old_run, new_text, tmp_path, capsys):
    own = find_start(str(old_run)).transformer.config
    more = [f"--model.num_layers={own.num_layers + 1}"]
    out = tmp_path / "grown"
    namesake = shutil.copy(new_text, tmp_path / "old.txt")  # of what the start learned from
    start = str(old_run / "checkpoint")
    assert main(["train", "--from", start, str(namesake), "-o", str(out), *SHORT, *more]) == 0
    grown = FrozenCheckpoint.load(out / "checkpoint")
    assert grown.config.num_layers == own.num_layers + 1
    assert grown.summary["doubt"] == DOUBT
    assert f"kept out of training, but {DOUBT}:" in grown.card
    new = json.loads((out / "report.json").read_text())["adaptation"]["new"]
    assert new["adapted"] < new["start"]
    capsys.readouterr()
    arguments = ["train", "--from", str(old_run), str(new_text), "-o", str(tmp_path / "wide")]
    for other in ("--model.d_model=64", f"--model.window={2 * own.window}"):  # its positions are relative
        assert main([*arguments, other]) == 1
        assert "keeps its tokenizer and its shape, but for more layers" in capsys.readouterr().err


class Stopped(Exception):
    pass


def test_a_run_that_ended_between_its_start_and_its_tokenizer_goes_on(old_run, tmp_path):
    start = find_start(str(old_run))
    this = Run(tmp_path / "run", load_recipe("nano", None, TINY))
    this.folder.mkdir()
    keep_start(this, start)
    this.tokenizer_file.unlink()
    keep_start(this, start)
    assert this.tokenizer().token_bytes == start.checkpoint.token_bytes


@pytest.fixture
def no_training(monkeypatch):
    """Everything up to the first step."""

    def fit(*_arguments):
        raise Stopped

    monkeypatch.setattr("laconic.train.adapt.fit", fit)


def test_passes_and_minutes_bound_the_steps(old_run, new_text, tmp_path, no_training, monkeypatch):
    rest = [word for word in SHORT if "max_steps" not in word]
    clock, step = [0.0], MuonAdamW.step

    def slow_step(self):
        clock[0] += 0.125 if self.state else 100.0  # the first one does not count
        return step(self)

    monkeypatch.setattr(MuonAdamW, "step", slow_step)
    monkeypatch.setattr("laconic.train.adapt.time", SimpleNamespace(monotonic=lambda: clock[0]))
    for name, passes in (("few", 1), ("many", 1000)):
        out = [str(new_text), "-o", str(tmp_path / name), f"--adaptation.passes={passes}"]
        with pytest.raises(Stopped):
            main(["train", "--from", str(old_run), *out, *rest, "--minutes", "1"])
    steps = [json.loads((tmp_path / name / "steps.json").read_text()) for name in ("few", "many")]
    tokens = TokenShard.open(tmp_path / "few" / "shards" / "train.tokens").num_tokens
    assert steps == [-(-(tokens // 32) // 6), 480]  # 6 of 8 sequences are new


def test_text_that_the_start_has_learned_is_said_to_be(old_run, tmp_path, no_training, capsys):
    other_name = shutil.copy(old_run.parent / "old.txt", tmp_path / "renamed.txt")
    alike = ["--data.validation_share=0.05", "--data.test_share=0.01"]  # as its start was split
    for name, shares in (("other", []), ("alike", alike)):
        out = ["-o", str(tmp_path / name), *SHORT, *shares]
        mine = tmp_path / name / "replay" / "mine.txt"  # as of somebody, or of shards that were cut off
        mine.parent.mkdir(parents=True)
        mine.touch()
        with pytest.raises(Stopped):
            main(["train", "--from", str(old_run), str(other_name), *out])
        assert mine.is_file()
        assert (DOUBT in capsys.readouterr().err) == (name == "other")


def refused(arguments, capsys):
    capsys.readouterr()
    assert main(arguments) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    return error[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"one line again and again\n" * 5000, "repeats itself"),
        (bytes(np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8)), "binary data"),
        (text(NEW, 100).encode(), "20,000"),
        (b"", "empty"),
    ],
    ids=["repeats", "binary", "small", "empty"],
)
def test_text_from_which_nothing_can_be_learned_is_one_line_and_leaves_no_folder(
    content, words, old_run, tmp_path, capsys
):
    path, out = tmp_path / "text", tmp_path / "out"
    path.write_bytes(content)
    error = refused(["train", "--from", str(old_run), str(path), "-o", str(out), *SHORT], capsys)
    assert words in error
    assert not out.exists()


def test_foreign_and_little_text_is_said_to_be(old_run, tmp_path, capsys, no_training):
    path = tmp_path / "text"
    rng = random.Random(3)
    path.write_text("".join(chr(0x4E00 + rng.randrange(900)) for _ in range(20_000)))
    with pytest.raises(Stopped):
        main(["train", "--from", str(old_run), str(path), "-o", str(tmp_path / "out"), *SHORT])
    error = capsys.readouterr().err
    assert "the corpus holds 60,000 bytes" in error
    assert "tokenizer of its own" in error


def test_where_nothing_is_gained_no_checkpoint_is_written(old_run, tmp_path, capsys):
    path, out = tmp_path / "text", tmp_path / "out"
    path.write_text(text(OLD, 1500, seed=77))
    spoilt = ["--training.learning_rate=1", "--training.matrix_learning_rate=1", "--training.max_steps=6"]
    error = refused(["train", "--from", str(old_run), str(path), "-o", str(out), *SHORT, *spoilt], capsys)
    assert "nothing was gained" in error
    assert not (out / "checkpoint").exists()
    FrozenCheckpoint.load(out / "start")


def test_where_no_text_is_left_for_figures_nothing_is_trained(
    old_run, new_text, tmp_path, capsys, no_training
):
    arguments = [str(new_text), "-o", str(tmp_path / "out"), "--data.test_share=0"]
    error = refused(["train", "--from", str(old_run), *arguments, *SHORT], capsys)
    assert "test split, whose data.test_share is 0" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.d_model=64"], "d_model 64"),
        (["--model.num_heads=4"], "num_heads 4"),
        (["--model.ffn_dim=64"], "ffn_dim 64"),
        (["--model.num_heads=0", "--model.ffn_dim=0"], "model.ffn_dim is 0"),
        (["--training.sparsity=1"], "training.sparsity is 1"),
        (
            ["--distillation.teacher_share=0.3"],
            "--from has no teachers: leave out distillation.teacher_share, or",
        ),
        (["--distillation.teachers=[english-nano]"], "leave out distillation.teachers, or train anew"),
        (["--tier", "small"], "leave --tier out"),
        (["--model", "ngram"], "counted, not adapted"),
        (["--adaptation.anchor=-1"], "adaptation.anchor is -1"),
        (["--adaptation.replay_share=0.9", "--training.batch_size=2"], "no room for new text"),
    ],
)
def test_recipes_that_contradict_the_start_are_one_line(
    arguments, words, old_run, new_text, tmp_path, capsys
):
    out = str(tmp_path / "out")
    assert words in refused(["train", "--from", str(old_run), str(new_text), "-o", out, *arguments], capsys)


def test_starts_that_are_none(old_run, new_text, tmp_path, capsys):
    rest = [str(new_text), "-o", str(tmp_path / "out")]
    assert "no checkpoint 'missing'" in refused(["train", "--from", "missing", *rest], capsys)
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(old_run / "recipe.yaml", half)
    assert "not come to its end" in refused(["train", "--from", str(half), *rest], capsys)
    assert "--from" in refused(["train", "--replay", str(new_text), *rest], capsys)
    taken = refused(["train", "--from", str(old_run), str(new_text), "-o", str(old_run)], capsys)
    assert "another recipe" in taken


def test_several_processes_are_refused(old_run, new_text, tmp_path, capsys):
    arguments = ["train", "--from", str(old_run), str(new_text), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--training.devices", "2", "--training.strategy", "ddp"]) == 1
    assert "adapts in one process" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_old_text_that_was_left_out_is_in_the_report(tmp_path):
    old, gone = tmp_path / "old", tmp_path / "old" / "gone.txt"
    old.mkdir()
    gone.symlink_to(tmp_path / "nowhere")
    (old / "old.txt").write_text(text(OLD))
    this = Run(tmp_path / "run", load_recipe("nano", None, {**TINY, "data.skip_unreadable": True}))
    this.take_tokenizer("english-nano")
    assert _old_shards(this, find_start("english-nano"), [str(old)]) == this.replay
    assert list(this.skips()) == [str(gone)]
    build_shards(Corpus([str(old / "old.txt")]), this.tokenizer(), this.shards)
    assert len(corpora(this)) == 2
    this.recipe.adaptation.replay_share = 0.0
    assert len(corpora(this)) == 1
    assert _old_shards(this, find_start("english-nano"), []) is None  # nothing has been learned yet
    this.recipe.adaptation.replay_share = 0.25
    assert len(corpora(this)) == 1
