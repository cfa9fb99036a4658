import csv
import json

import numpy as np
import pytest
from tiny import TINY

from laconic import sweep as command
from laconic.cli import main
from laconic.coder.errors import LaconicError
from laconic.data.shards import read_manifest
from laconic.train import teachers
from laconic.train.configuration import CONFIGS, load_recipe
from laconic.train.pipeline import run as run_pipeline
from laconic.train.trials import Axis, Sweep, as_csv, pareto_front, plan_trials, read_axis, read_trials

TINY_SETTINGS = [f"--{key}={'null' if value is None else value}" for key, value in TINY.items()]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Some 200 short documents."""
    folder = tmp_path_factory.mktemp("text")
    random = np.random.default_rng(0)
    words = ["lake", "river", "stone", "cloud", "northern", "quiet", "of", "the", "and", "a"]
    for i in range(200):
        (folder / f"{i}.txt").write_text(" ".join(words[j] for j in random.integers(0, 10, 300)))
    return folder


def test_axes_are_read_with_their_types():
    assert read_axis("model.d_model=96,128") == Axis("model.d_model", (96, 128))
    assert read_axis("training.learning_rate=1e-3..0.1") == Axis("training.learning_rate", (1e-3, 0.1), True)
    assert read_axis("model.tied=true,false").values == (True, False)
    assert read_axis("model.ffn=relu2").values == ("relu2",)
    assert read_axis("tokenizer.source=../a,../b") == Axis("tokenizer.source", ("../a", "../b"))
    assert read_axis("tokenizer.source=runs/1..2").values == ("runs/1..2",)
    assert read_axis("tokenizer.source=a,'',null").values == ("a", "", None)


def test_an_axis_of_a_section_holds_mappings_and_a_trial_their_settings():
    axis = read_axis("distillation={},{teachers: [../a, b], top_k: 16},{weight: 0}")
    assert axis.values == ({}, {"teachers": ["../a", "b"], "top_k": 16}, {"weight": 0})
    assert not axis.between
    assert read_axis("distillation.teachers=[a],[a, b]").values == (["a"], ["a", "b"])
    trials = plan_trials([Axis("training.seed", (0, 1)), axis], None, 0)
    assert trials[0] == {"training.seed": 0}
    assert trials[4] == {"training.seed": 1, "distillation.teachers": ["../a", "b"], "distillation.top_k": 16}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.d_model", "is no axis"),
        ("model.d_model=", "is no axis"),
        ("=1,2", "is no axis"),
        ("a.b=2..1", "is no range"),
        ("a.b=1..1", "is no range"),
        ("a.b=1.0e-4..1.0e+999", "is no range, write LOW..HIGH, finite"),
        ("a.b=-1.0e+308..1.0e+308", "is no range, write LOW..HIGH, finite"),
        ("a.b=1,1", "names a value twice"),
        ("a.b=1,,2", "holds an empty value"),
        ("a.b=96,", "holds an empty value"),
        ("a.b=, 96", "holds an empty value"),
        ("a={}, ,{b: 1}", "holds an empty value"),
    ],
)
def test_what_is_no_axis_is_refused(text, message):
    with pytest.raises(LaconicError, match=message):
        read_axis(text)


def test_a_grid_is_every_combination_once():
    axes = [Axis("a.x", (1, 2, 3)), Axis("a.y", ("p", "q"))]
    trials = plan_trials(axes, None, 0)
    assert len(trials) == 6
    assert {(t["a.x"], t["a.y"]) for t in trials} == {(x, y) for x in (1, 2, 3) for y in "pq"}


def test_draws_differ_stay_inside_and_repeat_with_their_seed():
    axes = [Axis("a.rate", (1e-4, 1e-1), True), Axis("a.width", (32, 64), True), Axis("a.kind", ("p", "q"))]
    trials = plan_trials(axes, 200, 7)
    assert trials == plan_trials(axes, 200, 7) != plan_trials(axes, 200, 8)
    assert len({json.dumps(t) for t in trials}) == 200
    assert all(1e-4 <= t["a.rate"] <= 1e-1 and 32 <= t["a.width"] <= 64 for t in trials)
    assert all(isinstance(t["a.width"], int) for t in trials)
    assert 0.3 < np.mean([t["a.rate"] < 10**-2.5 for t in trials]) < 0.7  # by the logarithm


def test_plans_that_cannot_be_are_refused():
    for axes, draws, message in (
        ([], None, "nothing varies"),
        ([Axis("a.x", (1, 2)), Axis("a.x", (3,))], None, "names a key twice"),
        ([Axis("a.x", (1, 2)), Axis("a", ({}, {"x": 3}))], None, "a.x is within a, which varies too"),
        ([Axis("a", ({}, {"x": 3})), Axis("a.x", (1, 2))], 2, "a.x is within a, which varies too"),
        ([Axis("a.x", (1.0, 2.0), True)], None, "a.x is a range"),
        ([Axis("a.x", (1, 2))], 3, "3 draws of 2 combinations"),
        ([Axis("a.x", (1.0, 2.0), True)], 1001, "1,001 trials are more than 1,000"),
        ([Axis(key, tuple(range(1000))) for key in "abcdef"], None, "more than 1,000: name fewer"),
    ):
        with pytest.raises(LaconicError, match=message):
            plan_trials(axes, draws, 0)
    assert len(plan_trials([Axis("a.x", (1, 2)), Axis("a.x_y", (3,))], None, 0)) == 2


def test_listed_trials_are_settings_in_order(tmp_path):
    path = tmp_path / "trials.yaml"
    path.write_text("- {}\n- model: {num_layers: 4}\n  training: {max_steps: 10}\n- model.d_model: 96\n")
    assert read_trials(path) == [
        {},
        {"model.num_layers": 4, "training.max_steps": 10},
        {"model.d_model": 96},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "must list settings"),
        ("model: {num_layers: 4}", "must list settings"),
        ("- model.num_layers", "must list settings"),
        ("- [", "is no YAML"),
        ("- {}\n- {a.b: 1}\n- {a: {b: 1}}", "trials 1 and 2 are the same"),
        ("- {}\n" * 1001, "1,001 trials are more than 1,000"),
    ],
)
def test_what_lists_no_trials_is_refused(content, message, tmp_path):
    path = tmp_path / "trials.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LaconicError, match=message):
        read_trials(path)


def test_the_sweeps_that_ship_are_of_sound_recipes():
    files = sorted((CONFIGS / "sweeps").glob("*.yaml"))
    assert files
    for path in files:
        for trial in read_trials(path):
            load_recipe("nano", None, trial)


def test_the_front_is_what_nothing_beats_in_both():
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.0, 2.5), (4.0, 1.0), (3.5, 0.5)]
    assert [points[i] for i in pareto_front(points)] == [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (3.5, 0.5)]


def test_rows_share_the_columns_of_all():
    assert as_csv([{"a": 1}, {"b": "x,y", "a": 2}]) == 'a,b\n1,\n2,"x,y"\n'


@pytest.mark.parametrize(
    ("trials", "labels"),
    [
        (
            [{"training.max_steps": 9}, {"model.window": 32, "training.max_steps": 8}],
            {1: "the recipe as it is", 2: "window 32"},
        ),
        (  # two budgets: what was left out would tell them apart
            [{"model.window": 32, "training.max_steps": 8}, {"model.window": 32, "training.max_steps": 9}],
            {1: "model.window=32 training.max_steps=8", 2: "model.window=32 training.max_steps=9"},
        ),
        (  # one name in two sections
            [{"model.num_layers": 2}, {"teacher.num_layers": 2}],
            {1: "model.num_layers=2", 2: "teacher.num_layers=2"},
        ),
    ],
)
def test_labels_tell_trials_apart(trials, labels):
    rows = [{"trial": number, **trial} for number, trial in enumerate(trials)]
    assert command._labels(rows, trials) == labels


def test_a_sweep_runs_every_trial_and_goes_on_where_it_stopped(text, tmp_path, capsys):
    arguments = ["sweep", str(text), "-o", str(tmp_path / "out"), *TINY_SETTINGS, "--training.max_steps=4"]
    arguments += ["--over", "model.ffn_dim=32,64"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "1 of 2" in shown
    assert "2 of 2" in shown
    assert "bytes of validation text, which say little" in shown
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [row["model.ffn_dim"] for row in rows] == ["32", "64"]
    for number, row in enumerate(rows):
        report = json.loads((tmp_path / "out" / f"{number:03d}" / "report.json").read_text())
        assert float(row["bits_per_byte"]) == report["validation"]["coded"]["bits_per_byte"]
        assert int(row["checkpoint_bytes"]) == report["checkpoint_bytes"]
        assert int(row["validation_bytes"]) == report["validation"]["coded"]["bytes"]
    assert float(rows[0]["macs_per_byte"]) < float(rows[1]["macs_per_byte"])
    assert len(list((tmp_path / "out" / "corpora").iterdir())) == 1  # one tokenizer for both
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/report.json")}
    (tmp_path / "out" / "001" / "report.json").unlink()
    assert main(arguments) == 0
    assert (tmp_path / "out" / "000" / "report.json").stat().st_mtime_ns == before[
        tmp_path / "out" / "000" / "report.json"
    ]
    assert list(csv.DictReader((tmp_path / "out" / "results.csv").open()))[1]["status"] == "done"
    assert main([*arguments[:-1], "model.ffn_dim=32,96"]) == 1
    assert "holds another sweep" in capsys.readouterr().err


def test_a_faulty_recipe_is_refused_before_anything_runs(text, tmp_path, capsys):
    assert main(["sweep", str(text), "-o", str(tmp_path / "out"), "--over", "model.d_model=1,128"]) == 1
    assert "d_model is 1" in capsys.readouterr().err
    assert not (tmp_path / "out" / "000").exists()
    assert main(["sweep", str(text), "-o", str(text / "out"), "--over", "model.ffn_dim=64,128"]) == 1
    assert "is inside" in capsys.readouterr().err
    assert main(["sweep", str(text), "-o", "x", "--draws", "0", "--over", "model.ffn_dim=64,128"]) == 1
    assert "--draws 0: it must be at least 1" in capsys.readouterr().err
    (text.parent / "trials.yaml").write_text("- {model.ffn_dim: 64}\n- {model.ffn_dim: 0}\n")
    listed = ["sweep", str(text), "-o", str(tmp_path / "out"), "--trials", str(text.parent / "trials.yaml")]
    assert main(listed) == 1
    assert "ffn_dim is 0" in capsys.readouterr().err
    assert main([*listed, "--over", "model.ffn_dim=64,128"]) == 1
    assert "--trials lists what runs: leave --over" in capsys.readouterr().err
    assert command.TAKES_SETTINGS


def test_a_sweep_of_n_grams_counts(text, tmp_path):
    arguments = ["sweep", str(text), "-o", str(tmp_path / "out"), "--model", "ngram"]
    arguments += ["--tokenizer.vocab_size=300", "--data.validation_share=0.05", "--over", "ngram.order=2,3"]
    assert main(arguments) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [row["ngram.order"] for row in rows] == ["2", "3"]
    assert all(float(row["bits_per_byte"]) < 3 for row in rows)


@pytest.mark.slow
def test_what_teachers_say_is_cached_once_for_all_trials(text, tmp_path, monkeypatch):
    short = {**TINY, "training.max_steps": 3}
    run_pipeline([str(text)], tmp_path / "teacher", load_recipe("nano", None, short))
    named = {"distillation.teachers": [str(tmp_path / "teacher")]}
    cached = {**named, "distillation.top_k": 4}
    base = {
        "recipe": "nano",
        "config": None,
        "settings": {**short, "tokenizer.source": str(tmp_path / "teacher")},
    }
    written = []
    write = teachers.write_predictions
    monkeypatch.setattr(teachers, "write_predictions", lambda *args: written.append(args) or write(*args))
    trials = [{}, named, cached, {**cached, "training.seed": 1}, {"data.train_share": 0.5}]
    rows = list(Sweep(tmp_path / "out", [str(text)], base, trials).run())
    assert [row["status"] for row in rows] == ["done"] * 5
    assert len({row["float_bits_per_byte"] for row in rows}) == 5
    assert len(written) == 1
    corpora = tmp_path / "out" / "corpora"
    assert len(list((corpora / "000" / "shards").glob("*.top4"))) == 1
    tokens = [
        {
            split: values["tokens"]
            for split, values in read_manifest(corpora / name / "shards")["splits"].items()
        }
        for name in ("000", "004")
    ]
    assert tokens[1]["train"] < 0.7 * tokens[0]["train"]
    assert tokens[1]["validation"] == tokens[0]["validation"]
