import pytest
from tiny import TINY

from laconic.train.configuration import load_recipe
from laconic.train.integers import main, measure_integers
from laconic.train.pipeline import run

FIXED_POINT = (
    "residual stream and its norms in fixed point",
    "attention scores in steps of 1/1024 bit",
    "positions in fixed point",
    "results of the blocks' matrices in fixed point",
    "their multipliers, 18 bits",
)


@pytest.fixture(scope="module", params=["relative", "rotary"])
def finished(corpus, tmp_path_factory, request):
    out = tmp_path_factory.mktemp("finished") / "run"
    bits = {"training.weight_bits": 3, "training.table_bits": 5, "model.positions": request.param}
    report = run([str(corpus)], out, load_recipe("nano", None, {**TINY, **bits}))
    return out, report["validation"]


def test_each_step_is_measured_alone_and_the_whole_is_the_checkpoints(finished):
    folder, validation = finished
    rows = {name: (bits, added) for name, bits, added in measure_integers(folder)}
    base = rows.pop("float")[0]
    assert base == pytest.approx(validation["float_bits_per_byte"], abs=1e-5)
    assert rows["the frozen integers"][0] == pytest.approx(validation["integer_bits_per_byte"], abs=1e-9)
    frozen = ("the frozen integers", "these with an exact softmax of their logits")
    assert len(rows) == 17
    for name, (bits, added) in rows.items():
        assert bits - base == pytest.approx(added, abs=1e-5)
        assert 0 < abs(added) < 0.5, name  # each changes something, and none breaks the model
    assert rows["matrices of the blocks, 3 bits"][1] == max(
        added for name, (_, added) in rows.items() if name not in ("all of these", *frozen)
    )
    assert all(abs(rows[name][1]) < 0.002 for name in FIXED_POINT)
    assert rows[frozen[0]][0] == pytest.approx(rows[frozen[1]][0], abs=0.001)
    assert rows["all of these"][0] == pytest.approx(rows["the frozen integers"][0], abs=0.003)


def test_what_is_no_finished_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no finished run" in capsys.readouterr().err
