import csv
import shutil

import numpy as np
import pytest
import torch
from test_transformer import small
from tiny import TINY
from torch.nn import functional as F

from laconic.cli import main
from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.errors import LaconicError
from laconic.data.shards import shard_path
from laconic.data.tokenshard import TokenShard
from laconic.models.loss import SLICE
from laconic.models.teaching import attention_distance, hidden_distance, mean_log_probs
from laconic.models.transformer import rms_norm
from laconic.train import pipeline
from laconic.train import teachers as teachers_module
from laconic.train.configuration import build_recipe, load_recipe
from laconic.train.distill import DistillationModule
from laconic.train.language import LanguageModule
from laconic.train.pipeline import prepare, run
from laconic.train.recipe import DistillationRecipe, Recipe, TrainingRecipe
from laconic.train.run import Run
from laconic.train.saving import write_checkpoint
from laconic.train.teachers import cached_predictions, find_teachers

SHORT = {**TINY, "training.max_steps": 8, "training.validations": 1}


def module(vocabulary="a" * 64, **changes) -> LanguageModule:
    torch.manual_seed(1)
    made = LanguageModule(small(**changes), [1] * 50, TrainingRecipe(), vocabulary)
    for parameter in made.transformer.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return made


def distillation(teachers, **settings) -> DistillationModule:
    made = DistillationModule(module(), [t.transformer for t in teachers], DistillationRecipe(**settings))
    made.log = lambda *_: None
    return made


def batch():
    torch.manual_seed(2)
    return torch.randint(0, 51, (2, 16)), torch.randint(0, 50, (2, 16))


def plain(student, teachers, recipe, share):
    """The loss by autograd alone, with all logits at once."""
    inputs, targets = batch()
    rows, logits = student.transformer.trunk(inputs)[0], student(inputs)
    with torch.no_grad():
        p = mean_log_probs([t.transformer(inputs) for t in teachers], recipe.temperature).exp()
    kl = F.kl_div(F.log_softmax(logits / recipe.temperature, -1).flatten(0, 1), p.flatten(0, 1),
                  reduction="batchmean") * recipe.temperature**2  # fmt: skip
    weight = share * recipe.weight
    total = (1 - weight) * F.cross_entropy(logits.flatten(0, 1), targets.flatten()) + weight * kl
    for i, teacher in enumerate(teachers):
        theirs = teacher.transformer
        if recipe.hidden_weight:
            projected = student.projections[i](rows)
            distance = hidden_distance(projected, theirs.trunk(inputs)[0])
            total = total + share * recipe.hidden_weight * distance / len(teachers)
        if recipe.attention_weight:
            maps = []
            for transformer in (student.transformer, theirs):
                seen: list[torch.Tensor] = []
                transformer.trunk(inputs, seen)
                maps.append(transformer.layers[-1].attention.map(rms_norm(seen[-1])))
            total = total + share * recipe.attention_weight * attention_distance(*maps) / len(teachers)
    return total


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 2.0},
        {"hidden_weight": 2.0},
        {"attention_weight": 3.0},
        {"weight": 0.0, "hidden_weight": 1.0, "attention_weight": 1.0},
    ],
)
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_loss_is_the_sum_of_its_terms_and_only_the_student_learns(settings, share, monkeypatch):
    teachers = [module(d_model=48, num_layers=3, window=12), module(num_heads=2, head_dim=16)]
    student = distillation(teachers, **settings)
    monkeypatch.setattr(DistillationModule, "share", lambda _: share)
    expected = plain(student, teachers, student.recipe, share)
    parameters = list(student.parameters())
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    loss, text = student.loss(*batch())
    torch.testing.assert_close(loss, expected)
    inputs, targets = batch()
    torch.testing.assert_close(text, F.cross_entropy(student(inputs).flatten(0, 1), targets.flatten()))
    for found, want in zip(torch.autograd.grad(loss, parameters), wanted, strict=True):
        torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-3)
    assert all(not p.requires_grad for t in teachers for p in t.transformer.parameters())
    assert not any("teacher" in name for name in student.state_dict())
    assert len(parameters) == len(list(student.transformer.parameters())) + 2 * ("hidden_weight" in settings)


def test_the_weights_fall_in_a_straight_line(monkeypatch):
    student = distillation([module()], final_weight=0.2)
    for progress, share in ((0.0, 1.0), (0.5, 0.6), (1.0, 0.2)):
        monkeypatch.setattr(DistillationModule, "progress", lambda _, at=progress: at)
        assert student.share() == pytest.approx(share)


def test_the_student_begins_as_it_would_alone_and_its_projection_learns():
    student = distillation([module(d_model=48)], hidden_weight=1.0)
    alone = module()
    torch.testing.assert_close(student.transformer.state_dict(), alone.transformer.state_dict())
    learning = [p for group in student.configure_optimizers().param_groups for p in group["params"]]
    assert {id(p) for p in learning} == {id(p) for p in student.parameters()}


@pytest.fixture(scope="module")
def teacher(corpus, tmp_path_factory):
    """A run that can teach."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    run([str(corpus)], out, load_recipe("nano", None, SHORT))
    return out


def recipe_of(teacher, **distillation):
    settings = {f"distillation.{name}": value for name, value in distillation.items()}
    named = {"tokenizer.source": str(teacher), "distillation.teachers": [str(teacher)]}
    return load_recipe("nano", None, {**SHORT, "training.validations": 4, **named, **settings})


def test_cached_predictions_are_those_of_these_teachers_and_this_text(corpus, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers_module, "CONTEXT", 64)
    monkeypatch.setattr(teachers_module, "STRETCH", 600)
    this = Run(tmp_path / "run", recipe_of(teacher, top_k=5, temperature=2.0))
    this.recipe.data.train_share = 0.2
    prepare(this, [str(corpus)])
    shard, teachers = TokenShard.open(shard_path(this.shards, "train")), find_teachers(this)
    cached = cached_predictions(this, teachers)
    assert cached is not None

    # As the whole text at once gives them, where the context suffices: two layers, a window of 16.
    inputs = torch.from_numpy(shard.tokens[:2000].astype(np.int64)).roll(1)
    inputs[shard.offsets[shard.offsets < 2000]] = shard.vocab_size
    with torch.no_grad():
        log_p = torch.log_softmax(teachers[0](inputs[None])[0] / 2, -1)
    ids, log_probs = (torch.from_numpy(x).flatten(0, 1) for x in cached.at(np.array([0, 1000]), 1000))
    assert SLICE < 600
    wanted = log_p.topk(5).values
    torch.testing.assert_close(log_probs[:, :5], wanted, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2000), atol=2e-3, rtol=0)
    torch.testing.assert_close(log_p.gather(1, ids), wanted, atol=1e-5, rtol=0)

    assert cached_predictions(this, find_teachers(this)).path == cached.path
    paths = {cached.path}
    with torch.no_grad():
        teachers[0].embed.weight[3] += 1e-3
    paths.add(cached_predictions(this, teachers).path)
    this.recipe.distillation.temperature = 1.0
    paths.add(cached_predictions(this, teachers).path)
    this.recipe.data.train_share = 0.1
    prepare(this, [str(corpus)])
    paths.add(cached_predictions(this, teachers).path)
    this.recipe.distillation.top_k = 3
    paths.add(cached_predictions(this, teachers).path)
    assert len(paths) == 5


@pytest.mark.parametrize("done", [False, True])
def test_a_student_that_has_learned_needs_no_predictions(done, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "cached_predictions", lambda *_: "read")
    this = Run(tmp_path, Recipe())
    if done:
        write_checkpoint({}, this.stage("student") / "final.ckpt")
    assert pipeline._predictions(this, []) == (None if done else "read")


@pytest.mark.slow
def test_several_teachers_and_one_of_its_own(corpus, teacher, tmp_path):
    named = [str(teacher), str(teacher / "checkpoint")]
    recipe = recipe_of(teacher, teachers=named, teacher_share=0.5, weight=0.9, final_weight=0.0)
    recipe.training.max_steps = 16
    report = run([str(corpus)], tmp_path / "run", recipe)
    assert FrozenCheckpoint.load(tmp_path / "run" / "checkpoint").id.hex() == report["id"]
    with (tmp_path / "run" / "student" / "metrics.csv").open() as metrics:
        assert any(row["train/bits_per_byte"] for row in csv.DictReader(metrics))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"hidden_weight": 1.0, "attention_weight": 1.0, "final_weight": 0.5}, {"top_k": 4, "temperature": 2.0}],
    ids=["hidden and attention", "cached"],
)
def test_a_taught_run_cut_off_and_resumed_equals_the_uninterrupted_one(
    settings, corpus, teacher, tmp_path, monkeypatch
):
    recipe = recipe_of(teacher, **settings)
    whole = run([str(corpus)], tmp_path / "whole", recipe)
    assert whole["tokens_seen"] == 8 * 8 * 32
    weights = torch.load(tmp_path / "whole" / "student" / "final.ckpt", weights_only=True)["state_dict"]
    assert any("projections" in name for name in weights) == ("hidden_weight" in settings)
    step = LanguageModule.training_step

    def cut_off(self, batch, batch_idx):
        if self.global_step == 5:
            raise RuntimeError("the machine stopped")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModule, "training_step", cut_off)
        with pytest.raises(RuntimeError, match="stopped"):
            run([str(corpus)], tmp_path / "cut", recipe)

    def another(run):
        found = find_teachers(run)
        with torch.no_grad():
            found[0].embed.weight[3] += 1e-3
        return found

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "find_teachers", another)
        with pytest.raises(LaconicError, match=r"other settings \(teachers\)"):
            run([str(corpus)], tmp_path / "cut", recipe)
    assert run([str(corpus)], tmp_path / "cut", recipe)["id"] == whole["id"]


def test_another_tokenizer_and_no_teacher_are_refused(corpus, teacher, tmp_path, capsys):
    settings = [f"--{key}={'null' if value is None else value}" for key, value in SHORT.items()]
    arguments = ["train", str(corpus), "-o", str(tmp_path / "run"), *settings]
    named = f"--distillation.teachers=[{teacher}, english-nano]"
    for more, words in (
        ([named, f"--tokenizer.source={teacher}"], "the tokenizer of teacher english-nano is "),
        ([named], f"give it theirs, --tokenizer.source {teacher} as the run begins"),
        (["--distillation.top_k=4"], "asks for a teacher, and there is none"),
    ):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        assert main([*arguments, *more]) == 1
        assert words in capsys.readouterr().err
        assert not (tmp_path / "run" / "student").exists()
    assert main(["distill", "-o", str(teacher)]) == 1
    assert "has no teacher yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"top_k": 4, "hidden_weight": 1.0}, "hidden_weight is 1, which is not cached"),
        ({"top_k": 4, "weight": 0.0}, "distillation.weight is 0"),
        ({"teacher_share": 0.5, "weight": 0.0}, "of whom nothing would be learned"),
        ({"attention_weight": 1.0}, "training.strategy fsdp cuts up"),
        ({"top_k": 4000}, "distillation.top_k is 4000, allowed are 0 to 128"),
        ({"final_weight": 2.0}, "distillation.final_weight is 2"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings, words):
    sharded = {"training.strategy": "fsdp", "training.optimizer": "adamw"}
    with pytest.raises(LaconicError, match=words):
        build_recipe(sharded, {f"distillation.{name}": value for name, value in settings.items()})
