"""A sweep whose trials take no time: rows, faults, stopping and going on."""

import csv
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest

from laconic.coder.errors import LaconicError
from laconic.train import processes
from laconic.train import trials as module
from laconic.train.run import Run
from laconic.train.trials import Sweep


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
        ([{}, faulty, {"model.d_model": 1}], r"^trial model.layers=3: .* \(other trials with faults: 1\)$"),
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
