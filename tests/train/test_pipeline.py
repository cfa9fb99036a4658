"""From a corpus to a file and back, in seconds: tiny models on this project's own source."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY

import laconic
from laconic.cli import main
from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.errors import LaconicError
from laconic.train.commands.common import print_report
from laconic.train.configuration import build_recipe, load_recipe
from laconic.train.consolidate import consolidate, is_done
from laconic.train.language import LanguageModule, load_language_module
from laconic.train.optimizer import MuonAdamW
from laconic.train.pipeline import distill, prepare, run
from laconic.train.run import Run


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    recipe = load_recipe("nano", None, {**TINY, "distillation.teacher_share": 0.5})
    return out, run([str(corpus)], out, recipe)


def test_every_stage_leaves_what_it_made(trained):
    out, report = trained
    for name in ("recipe.yaml", "tokenizer.json", "shards/manifest.json"):
        assert (out / name).is_file(), name
    for stage in ("teacher", "student"):
        assert (out / stage / "final.ckpt").is_file(), stage
    for stage in ("tokenizer", "teacher", "student"):
        assert list((out / stage).rglob("metrics.csv")), stage
        assert list((out / stage).rglob("events.out.tfevents.*")), stage
    assert json.loads((out / "report.json").read_text()) == report


def test_what_the_machine_gave_is_logged_and_reported(trained):
    out, report = trained
    names = {"tokens_per_second", "mfu", "waiting_share", "peak_bytes"}
    usage = report["usage"]
    assert names == set(usage)
    assert 0 < usage["mfu"] < 1
    assert 0 < usage["waiting_share"] < 0.5
    assert usage["peak_bytes"] > 10_000_000
    with next((out / "student").rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert names <= set(rows[0])
    last = {
        name: [int(row["step"]) for row in rows if row[name]][-1]
        for name in ("mfu", "validation/bits_per_byte")
    }
    assert len(set(last.values())) == 1, last


def test_the_checkpoint_is_sound_and_its_figures_are_near_each_other(trained):
    out, report = trained
    checkpoint = FrozenCheckpoint.load(out / "checkpoint")
    validation = report["validation"]
    assert checkpoint.id.hex() == report["id"]
    assert validation["float_bits_per_byte"] < 3
    assert validation["integer_bits_per_byte"] == pytest.approx(validation["float_bits_per_byte"], abs=0.05)
    assert validation["coded"]["bits_per_byte"] < 3.2
    assert report["corpora"][0]["bytes"] > 100_000
    assert report["id"] in checkpoint.card


def test_files_come_back_with_the_new_checkpoint(trained, corpus):
    out, _ = trained
    text = (corpus / "07.txt").read_bytes() + bytes(range(256))
    blob = laconic.compress(text, out / "checkpoint")
    assert laconic.decompress(blob, out / "checkpoint") == text
    with pytest.raises(LaconicError):
        laconic.decompress(blob)


def test_the_same_command_again_changes_nothing(trained, corpus):
    out, report = trained
    recipe = load_recipe("nano", None, {**TINY, "distillation.teacher_share": 0.5})
    again = run([str(corpus)], out, recipe)
    assert again["id"] == report["id"]


def test_a_stage_that_is_done_keeps_its_budget(trained, tmp_path, capsys):
    out, recipe = tmp_path / "run", (trained[0] / "recipe.yaml").read_text()
    shutil.copytree(trained[0], out)
    more = load_recipe("nano", None, {**TINY, "distillation.teacher_share": 0.5, "training.max_steps": 400})
    capsys.readouterr()
    with Run.open(out, more) as this:
        assert this.recipe.training.max_steps == 30
    said = "the {0} is done, and other minutes or steps change nothing: remove {1}/{0} to train it anew\n"
    assert capsys.readouterr().err == said.format("student", out)
    assert main(["pretrain", "--stage", "teacher", "-o", str(out), "--training.max_steps=400"]) == 0
    assert capsys.readouterr().err == said.format("teacher", out)
    for command in ("distill", "export"):
        assert main([command, "-o", str(out), "--training.max_steps=400", "--training.threads=1"]) == 0
        assert capsys.readouterr().err == said.format("student", out)
    assert (out / "recipe.yaml").read_text() == recipe
    shutil.rmtree(out / "student")
    assert main(["distill", "-o", str(out), "--training.max_steps=6"]) == 0
    assert load_language_module(out / "student" / "final.ckpt").tokens_seen == 6 * 8 * 32
    assert "max_steps: 6\n" in (out / "recipe.yaml").read_text()


def test_stages_one_by_one_make_the_same_checkpoint(trained, corpus, tmp_path, capsys):
    _, report = trained
    settings = [f"--{key}={'null' if value is None else value}" for key, value in TINY.items()]
    half = ["--training.max_steps=15"]
    assert main(["tokenizer", str(corpus), "-o", str(tmp_path / "run"), *settings, *half]) == 0
    assert main(["pretrain", "--stage", "teacher", "-o", str(tmp_path / "run")]) == 0
    assert main(["distill", "-o", str(tmp_path / "run")]) == 0
    assert main(["export", "-o", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert report["id"][:16] in out
    assert "in place of" not in out
    assert main(["export", "-o", str(tmp_path / "run"), "--training.weight_bits", "4"]) == 0
    out = capsys.readouterr().out
    assert f"in place of  {report['id'][:16]}" in out
    assert "settings of before give it again" in out
    shutil.rmtree(tmp_path / "run" / "student")
    assert main(["distill", "-o", str(tmp_path / "run"), "--training.max_steps=6"]) == 0
    assert main(["export", "-o", str(tmp_path / "run")]) == 0
    assert "this run may not give it again" in capsys.readouterr().out


def test_non_finite_loss_stops_before_the_step(monkeypatch, corpus, tmp_path):
    taken = {}

    def poisoned(self, inputs, targets):
        if self.global_step == 5:
            taken["weights"] = self.transformer.embed.weight.detach().clone()
            taken["module"] = self
            return torch.tensor(float("nan"), requires_grad=True), torch.tensor(0.0)
        nats = self.code_length(inputs, targets)
        return nats, nats

    monkeypatch.setattr(LanguageModule, "loss", poisoned)
    recipe = load_recipe("nano", None, TINY)
    with pytest.raises(LaconicError, match="step 5; the step was not taken"):
        run([str(corpus)], tmp_path / "run", recipe)
    assert torch.equal(taken["module"].transformer.embed.weight.detach().cpu(), taken["weights"])


def test_what_a_run_had_before_it_diverged_is_kept(monkeypatch, corpus, tmp_path, capsys):
    take = MuonAdamW.step

    def overflowing(self, closure=None):
        loss = take(self, closure)
        if self.steps_taken == 12:
            self.param_groups[0]["params"][0].data.fill_(float("inf"))
        self.steps_taken += 1
        return loss

    monkeypatch.setattr(MuonAdamW, "steps_taken", 1, raising=False)
    monkeypatch.setattr(MuonAdamW, "step", overflowing)
    recipe = load_recipe("nano", None, {**TINY, "training.max_steps": 16, "training.validations": 4})
    with pytest.raises(LaconicError, match=r"text became nan at step 12, .*consolidate"):
        run([str(corpus)], tmp_path / "run", recipe)
    assert main(["consolidate", "-o", str(tmp_path / "run")]) == 0
    assert "(8 steps)" in capsys.readouterr().out
    weights = load_language_module(tmp_path / "run" / "student" / "final.ckpt").state_dict()
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_another_shape_does_not_go_on_in_an_old_folder(trained, corpus):
    out, _ = trained
    recipe = load_recipe("nano", None, {**TINY, "model.d_model": 64})
    with pytest.raises(LaconicError, match="another recipe"):
        run([str(corpus)], out, recipe)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.txt"], "missing.txt"),
        (["missing.txt", "--training.seed", "x", "--model.wide", "3"], "training.seed"),
        (["missing.txt", "--config", "none.yaml"], "none.yaml"),
    ],
)
def test_mistakes_are_one_line_and_status_1(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments, "-o", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.strip()
    assert words in error
    assert error.startswith("laconic: error:")
    assert "\n" not in error


def test_a_corpus_that_is_too_small_or_repeats_itself(tmp_path, capsys):
    (tmp_path / "small.txt").write_text("hello " * 100)
    assert main(["train", str(tmp_path / "small.txt"), "-o", str(tmp_path / "a")]) == 1
    assert "20,000" in capsys.readouterr().err
    (tmp_path / "dull.txt").write_text("0123456789\n" * 5000)
    assert main(["train", str(tmp_path / "dull.txt"), "-o", str(tmp_path / "b")]) == 1
    error = capsys.readouterr().err
    assert "(not 4,096: the text has no more)" in error
    assert "none fell to the validation split" in error
    (tmp_path / "bb.txt").write_text("bb\n" * 20_000)  # its digest lies in the first half
    half = ["--data.validation_share", "0.5"]
    assert main(["train", str(tmp_path / "bb.txt"), "-o", str(tmp_path / "c"), *half]) == 1
    error = capsys.readouterr().err
    assert "fell to the train split" in error


def test_a_model_worse_than_bytes_is_said(capsys):
    coded = {"bits_per_byte": 1.5, "bytes": 200_000, "coded_bytes": 37_500}
    report = {"checkpoint_bytes": 1, "id": "ab" * 32, "macs_per_byte": 1.0}
    for worst, said in ((7.9, False), (28.3, True)):
        figures = {"float_bits_per_byte": worst, "integer_bits_per_byte": 5.9, "coded": coded}
        print_report({**report, "validation": figures}, Path("run"))
        assert ("worse than bytes as they are" in capsys.readouterr().out) == said


def test_loading_reads_no_pickled_code(trained):
    out, _ = trained
    module = load_language_module(out / "student" / "final.ckpt")
    assert module.tokens_seen == 15 * 8 * 32
    assert module.transformer.quantised


def test_early_stopping_goes_back_to_the_best_weights(corpus, tmp_path, monkeypatch):
    """Validation is made to worsen after its second time; patience 2 allows two more.

    A run that ended between this and its final checkpoint does not learn on when it is started again.
    """
    figures = {10: 2.0, 20: 1.5, 30: 1.6, 40: 1.7, 50: 1.8, 60: 1.9}
    seen = {}

    def stop(folder):
        raise RuntimeError("the machine stopped")

    def scripted(self):
        figure = figures[self.global_step]
        seen[figure] = self.transformer.embed.weight.detach().clone()
        self.log("validation/bits_per_byte", figure)
        self.validation_bits_per_byte.reset()

    monkeypatch.setattr(LanguageModule, "on_validation_epoch_end", scripted)
    changes = {"training.max_steps": 60, "training.validations": 6, "training.patience": 2}
    recipe = load_recipe("nano", None, {**TINY, **changes})
    with monkeypatch.context() as patch:
        patch.setattr("laconic.train.trainer.consolidate", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            run([str(corpus)], tmp_path / "run", recipe)
    assert sorted(seen) == [1.5, 1.6, 1.7, 2.0]
    run([str(corpus)], tmp_path / "run", recipe)
    assert sorted(seen) == [1.5, 1.6, 1.7, 2.0]
    final = load_language_module(tmp_path / "run" / "student" / "final.ckpt")
    assert torch.equal(final.transformer.embed.weight, seen[1.5])
    assert not torch.equal(seen[1.5], seen[1.7])


def test_what_failed_before_anything_was_made_does_not_bind_the_folder(corpus, tmp_path):
    out = tmp_path / "run"
    broken = tmp_path / "rows.jsonl"
    broken.write_text('{"text": "words"}\n')
    with pytest.raises(LaconicError, match="column"), Run.open(out, build_recipe(TINY)) as this:
        prepare(this, [f"datasets:json:{broken}:words"])
    taught = {"distillation.teachers": ["nobody"], "tokenizer.source": "english-nano"}
    with (
        pytest.raises(LaconicError, match="no checkpoint 'nobody'"),
        Run.open(out, build_recipe(TINY, taught)) as this,
    ):
        prepare(this, [str(corpus)])
    (out / "skipped.json.partial").write_text("{")  # killed while it was written
    with Run.open(out, build_recipe(TINY)) as this:
        prepare(this, [str(corpus)])
    assert Run(out, build_recipe(TINY)).tokenizer().vocab_size == TINY["tokenizer.vocab_size"]


def test_a_run_is_tied_to_its_corpus_and_its_recipe(trained, corpus, tmp_path, capsys):
    out, report = trained
    other = tmp_path / "other.txt"
    other.write_text("another text altogether, " * 2000)
    settings = [f"--{key}={'null' if value is None else value}" for key, value in TINY.items()]
    taught = "--distillation.teacher_share=0.5"
    recipe = (out / "recipe.yaml").read_text()
    assert main(["train", str(other), "-o", str(out), *settings, taught]) == 1
    assert "another corpus" in capsys.readouterr().err
    assert (
        main(["train", str(corpus), "-o", str(out), *settings, taught, "--training.learning_rate=0.1"]) == 1
    )
    assert "training.learning_rate" in capsys.readouterr().err
    assert main(["train", str(corpus), "-o", str(out), *settings, "--data.validation_share=0.3"]) == 1
    assert "data.validation_share" in capsys.readouterr().err
    assert main(["distill", "-o", str(out), "--training.learning_rate=0.1"]) == 1
    assert "training.learning_rate" in capsys.readouterr().err
    assert (out / "recipe.yaml").read_text() == recipe
    assert json.loads((out / "report.json").read_text())["id"] == report["id"]


@pytest.mark.parametrize("command", ["pretrain", "distill", "export"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("data.validation_share", 0.001), ("data.streaming", True), ("tokenizer.kind", "unigram")],
)
def test_a_stage_alone_does_not_change_what_the_first_one_made(command, key, value, tmp_path, capsys):
    this = Run(tmp_path / "run", build_recipe(TINY))
    this.keep_recipe()
    before = (this.folder / "recipe.yaml").read_text()
    assert main([command, "-o", str(this.folder), f"--{key}={value}", "--data.skip_unreadable=true"]) == 1
    assert f"begun with other settings ({key}): leave" in capsys.readouterr().err
    assert (this.folder / "recipe.yaml").read_text() == before


def test_pretraining_a_distilled_student_is_refused(trained, capsys):
    out, _ = trained
    plain = ["--distillation.teacher_share=0", "--training.max_steps=15"]
    assert main(["pretrain", "-o", str(out), *plain]) == 1
    assert "distillation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "stage"),
    [("teacher_share=0.5", "pretrain --stage teacher"), ("teachers=[english-nano]", "distill")],
)
def test_a_student_with_teachers_is_not_trained_without_them(given, stage, corpus, tmp_path, capsys):
    out = tmp_path / "run"
    settings = [f"--{key}={'null' if value is None else value}" for key, value in TINY.items()]
    words = [*settings, f"--distillation.{given}", "--tokenizer.source=english-nano"]
    assert main(["tokenizer", str(corpus), "-o", str(out), *words]) == 0
    assert f"next: laconic {stage} -o {out}" in capsys.readouterr().out
    assert main(["pretrain", "-o", str(out)]) == 1
    assert f"without them: give `laconic {stage} -o {out}`" in capsys.readouterr().err
    assert not (out / "student").exists()


def test_a_run_within_its_own_corpus_does_not_learn_from_itself(corpus, tmp_path):
    texts = tmp_path / "texts"
    shutil.copytree(corpus, texts)
    first = run([str(texts)], texts / "run", load_recipe("nano", None, TINY))
    again = run([str(texts)], texts / "run", load_recipe("nano", None, TINY))
    assert first["corpora"] == again["corpora"]
    assert first["corpora"][0]["bytes"] < sum(p.stat().st_size for p in corpus.iterdir())


def test_a_damaged_training_checkpoint_is_one_line(trained, tmp_path, capsys):
    out, _ = trained
    shutil.copytree(out, tmp_path / "run")
    sound, path = (folder / "student" / "final.ckpt" for folder in (out, tmp_path / "run"))
    path.write_bytes(path.read_bytes()[:1000])
    assert main(["export", "-o", str(tmp_path / "run")]) == 1
    assert "final.ckpt is damaged" in capsys.readouterr().err
    assert not is_done(path.parent)
    said = capsys.readouterr().err
    assert f"making it again from {path.parent / 'last.ckpt'}" in said
    assert said.count("\n") == 1
    again, before = load_language_module(consolidate(path.parent)), load_language_module(sound)
    torch.testing.assert_close(again.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert is_done(path.parent)


def test_the_best_checkpoint_takes_the_place_of_damaged_ones(trained, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(trained[0], out)
    student = out / "student"
    before = load_language_module(student / "final.ckpt")
    shutil.copy(student / "last.ckpt", student / "best.ckpt")
    for name in ("final.ckpt", "last.ckpt", "last.ckpt.old"):
        (student / name).write_bytes((student / name).read_bytes()[:-100])
    recipe = load_recipe("nano", None, {**TINY, "distillation.teacher_share": 0.5})
    again = distill(Run(out, recipe), replace(recipe.training, max_steps=15))
    assert f"making it again from {student / 'best.ckpt'}" in capsys.readouterr().err
    torch.testing.assert_close(again.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert is_done(student)


def test_a_run_that_failed_before_it_made_anything_may_begin_anew(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "run"
    with pytest.raises(LaconicError, match="empty"):
        run([str(tmp_path / "empty")], out, load_recipe("nano", None, TINY))
    run([str(corpus)], out, load_recipe("nano", None, {**TINY, "model.ffn_dim": 48}))
    assert (out / "checkpoint").is_dir()
