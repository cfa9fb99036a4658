import pytest
from tiny import TINY

from laconic.train.configuration import load_recipe
from laconic.train.integers import main, measure_integers
from laconic.train.pipeline import run


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    report = run([str(corpus)], out, load_recipe("nano", None, {**TINY, "training.weight_bits": 3}))
    return out, report["validation"]


def test_each_step_is_measured_alone_and_the_whole_is_the_checkpoints(finished):
    folder, validation = finished
    rows = {name: (bits, added) for name, bits, added in measure_integers(folder)}
    base = rows.pop("float")[0]
    assert base == pytest.approx(validation["float_bits_per_byte"], abs=1e-5)
    assert rows["the frozen integers"][0] == pytest.approx(validation["integer_bits_per_byte"], abs=1e-9)
    assert len(rows) == 11
    for name, (bits, added) in rows.items():
        assert bits - base == pytest.approx(added, abs=1e-5)
        assert 0 < abs(added) < 0.5, name  # each changes something, and none breaks the model
    assert rows["matrices of the blocks, 3 bits"][1] == max(
        added for name, (_, added) in rows.items() if name not in ("all of these", "the frozen integers")
    )
    assert rows["all of these"][0] == pytest.approx(rows["the frozen integers"][0], abs=0.003)


def test_what_is_no_finished_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no finished run" in capsys.readouterr().err
