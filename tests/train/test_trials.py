import csv
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from tiny import TINY

from laconic import sweep as command
from laconic.cli import main
from laconic.coder.errors import LaconicError
from laconic.data.shards import read_manifest
from laconic.train import processes, teachers
from laconic.train import trials as module
from laconic.train.configuration import CONFIGS, load_recipe
from laconic.train.pipeline import run as run_pipeline
from laconic.train.run import Run
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


class Pipeline:
    """In place of training: there is a report, or the error of the trial's name."""

    def __init__(self) -> None:
        self.errors = {}

    def __call__(self, sources, folder, recipe):
        Run(folder, recipe).keep_recipe()
        (folder / "student").mkdir(exist_ok=True)
        (folder / "student" / "final.ckpt").touch()
        if folder.name in self.errors:
            raise self.errors[folder.name]
        (folder / "report.json").write_text('{"validation": {"coded": {"bits_per_byte": 2.5, "bytes": 9}}}')


@pytest.fixture
def pipeline(monkeypatch):
    stub = Pipeline()
    monkeypatch.setattr(module, "run_pipeline", stub)
    monkeypatch.setattr(Sweep, "_share_shards", lambda self, run: None)
    return stub


def sweep_of(folder, trials, config=None):
    """A sweep whose trials are numbered by their seeds."""
    base = {"recipe": "nano", "config": config, "settings": {}}
    return Sweep(folder, ["text"], base, [{"training.seed": seed} for seed in range(trials)])


def test_a_trial_that_fails_is_a_row_and_the_others_go_on(pipeline, tmp_path):
    pipeline.errors = {
        "000": LaconicError("the loss became nan"),
        "001": RuntimeError("CUDA error:\nlaunch failure"),
        "002": MemoryError(),
        "003": OSError(28, "No space left on device"),
    }
    rows = list(sweep_of(tmp_path, 5).run())
    assert [row["status"] for row in rows] == ["failed"] * 4 + ["done"]
    assert [row["fault"] for row in rows[:4]] == [
        "the loss became nan",
        "CUDA error: launch failure",
        "MemoryError",
        "[Errno 28] No space left on device",
    ]
    pipeline.errors = {}
    assert [row["status"] for row in sweep_of(tmp_path, 5).run()] == ["done"] * 5


def test_a_row_has_all_that_varies_as_the_trial_had_it(pipeline, tmp_path):
    base = {"recipe": "nano", "config": None, "settings": {"model.window": 32}}
    trials = [{}, {"model.window": 128}, {"model.num_layers": 5, "tokenizer.source": "english-nano"}]
    list(Sweep(tmp_path, ["text"], base, trials).run())
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    keys = ("trial", "model.window", "model.num_layers", "tokenizer.source")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("0", "32", "2", ""),
        ("1", "128", "2", ""),
        ("2", "32", "5", "english-nano"),
    ]


def test_a_row_of_what_is_done_has_the_threads_that_it_was_done_with(pipeline, tmp_path):
    config = tmp_path / "config.yaml"
    for threads, trials in ((1, [{}]), (2, [{}, {"training.threads": 3}])):
        config.write_text(f"training: {{threads: {threads}}}")
        base = {"recipe": "nano", "config": str(config), "settings": {}}
        list(Sweep(tmp_path / "out", ["text"], base, trials).run())
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [row["training.threads"] for row in rows] == ["1", "3"]


def test_a_fault_of_a_trial_says_which_one_has_it(tmp_path):
    base = {"recipe": "nano", "config": None, "settings": {}}
    out, faulty = tmp_path / "out", {"model.layers": 3}
    for trials, words in (
        ([{}, faulty], r"^trial model.layers=3: the recipe has faults: .*model.layers is unknown"),
        ([{}, faulty, {"model.d_model": 1}], r"^trial model.layers=3: .* \(and 1 more trials have faults\)$"),
    ):
        with pytest.raises(LaconicError, match=words):
            Sweep(out, ["text"], base, trials)
    with pytest.raises(LaconicError, match=r"^the recipe has faults: model.layers is unknown"):
        Sweep(out, ["text"], {**base, "settings": faulty}, [{}, {"training.seed": 1}])
    with pytest.raises(LaconicError, match=r"^.*none.yaml: No such file"):
        Sweep(out, ["text"], {**base, "config": str(tmp_path / "none.yaml")}, [{}, {"training.seed": 1}])
    assert not out.exists()


def test_a_sweep_that_is_stopped_keeps_the_rows_of_what_is_done(pipeline, tmp_path):
    def table():
        rows = csv.DictReader((tmp_path / "results.csv").open())
        return [(row["trial"], row["bits_per_byte"]) for row in rows]

    whole = [(str(number), "2.5") for number in range(3)]
    list(sweep_of(tmp_path, 3).run())
    assert table() == whole
    (tmp_path / "001" / "report.json").unlink()
    for stop in (KeyboardInterrupt(), processes.Interrupted("stopped")):
        pipeline.errors = {"001": stop}
        with pytest.raises(type(stop)):
            list(sweep_of(tmp_path, 3).run())
        assert table() == [whole[0], whole[2]]
    pipeline.errors = {}
    list(sweep_of(tmp_path, 3).run())
    assert table() == whole


def test_a_sweep_goes_on_with_trials_that_were_added_at_its_end(pipeline, tmp_path):
    list(sweep_of(tmp_path, 2).run())
    pipeline.errors = {name: AssertionError(name) for name in ("000", "001")}
    assert [row["status"] for row in sweep_of(tmp_path, 4).run()] == ["done"] * 4
    for trials in ([{"training.seed": 1}], [{"training.seed": n} for n in (0, 1, 3, 2)]):
        with pytest.raises(LaconicError, match=r"holds another sweep.*add trials after those"):
            Sweep(tmp_path, ["text"], {"recipe": "nano", "config": None, "settings": {}}, trials)
    with pytest.raises(LaconicError, match="holds another sweep"):
        sweep_of(tmp_path, 3)  # fewer than were begun
    for text in ("{", "[]", "{}", '{"trials": 3}'):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(LaconicError, match="holds another sweep"):
            sweep_of(tmp_path, 4)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_sweep_is_stopped_while_its_trial_trains_in_several_ranks(stop, pipeline, tmp_path, monkeypatch):
    def wait(ranks):
        raise stop

    def train(sources, folder, recipe):
        processes.launch(Run(folder, recipe), "student", replace(recipe.training, devices=2), False)

    monkeypatch.setattr(processes, "_started", lambda command, logs: nullcontext())
    monkeypatch.setattr(processes, "_wait", wait)
    monkeypatch.setattr(processes, "check_room", lambda training: None)
    monkeypatch.setattr(module, "run_pipeline", train)
    with pytest.raises(processes.Interrupted, match="interrupted: the same command goes on"):
        list(sweep_of(tmp_path, 2).run())
    assert (tmp_path / "000").exists()
    assert not (tmp_path / "001").exists()


@pytest.mark.parametrize("setting", ["batch_size", "max_steps"])
def test_a_trial_of_another_recipe_is_refused_where_it_has_begun(setting, pipeline, tmp_path):
    config, folder = tmp_path / "config.yaml", tmp_path / "out"
    config.write_text(f"training: {{{setting}: 8}}")
    list(sweep_of(folder, 2, str(config)).run())
    config.write_text(f"training: {{{setting}: 16}}")
    with pytest.raises(LaconicError, match=rf"000 holds a run of another recipe \(training.{setting}\)"):
        sweep_of(folder, 2, str(config))
    for name in ("000", "001"):
        (folder / name / "report.json").unlink()
        shutil.rmtree(folder / name / "student")  # its recipe.yaml is all that is left
    assert [row["status"] for row in sweep_of(folder, 2, str(config)).run()] == ["done"] * 2


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
