import pytest

from laconic.bench.measure import CodecResult, Measurement
from laconic.bench.plots import (
    plot_bits_per_byte,
    plot_every_file,
    plot_front,
    plot_loss_curve,
    read_loss_curve,
)
from laconic.coder.errors import LaconicError

HEADER = "elapsed_minutes,learning_rate,step,tokens_per_second,train/bits_per_byte,validation/bits_per_byte\n"
RUN = HEADER + "0.5,0.1,10,900,3.5,\n,,20,,,3.25\n1.5,0.1,30,900,nan,\n2.0,,40,,2.5,2.75\n"
PNG = b"\x89PNG\r\n\x1a\n"


def write(path, text: str):
    path.write_text(text)
    return path


def test_a_loss_curve_is_read_around_its_gaps(tmp_path):
    curve = read_loss_curve([write(tmp_path / "metrics.csv", RUN)])
    assert curve["train"] == [(10.0, 0.5, 3.5), (40.0, 2.0, 2.5)]
    assert curve["validation"] == [(20.0, 0.5, 3.25), (40.0, 2.0, 2.75)]
    assert curve["minutes"]


def test_the_parts_of_a_run_that_went_on_are_one_curve(tmp_path):
    later = HEADER + "2.5,,50,,2.25,\n"
    paths = [write(tmp_path / "first.csv", RUN), write(tmp_path / "later.csv", later)]
    assert read_loss_curve(paths)["train"] == [(10.0, 0.5, 3.5), (40.0, 2.0, 2.5), (50.0, 2.5, 2.25)]


def test_faults_of_a_loss_curve_are_named(tmp_path):
    with pytest.raises(LaconicError, match="No such file"):
        read_loss_curve([tmp_path / "none.csv"])
    with pytest.raises(LaconicError, match="logs no bits per byte"):
        read_loss_curve([write(tmp_path / "empty.csv", HEADER)])


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    teacher = write(tmp_path / "teacher.csv", RUN)
    by_steps = write(tmp_path / "student.csv", "step,train/bits_per_byte\n1,4.0\n2,3.0\n")
    plot_loss_curve({"teacher": [teacher], "student": [by_steps]}, tmp_path / "loss.png")
    results = [
        CodecResult(
            name,
            "1",
            0.0,
            None,
            [Measurement("f", 100, size, 0.1, 0.1), Measurement("empty", 0, 0, 0.1, 0.1)],
            level=level,
        )
        for name, size, level in (("laconic -1", 25, 1), ("laconic -6", 20, 6), ("xz -9e", 40, None))
    ]
    plot_bits_per_byte({"one": results, "two": results[:1]}, tmp_path / "bits.png")
    plot_every_file(results, tmp_path / "files.png")
    plot_every_file(results[:1], tmp_path / "one.png")
    plot_front([(2e5, 1.6), (3e5, 1.5), (4e5, 1.7)], {1: "a", 3: "b", 4: "c"}, [0, 1], tmp_path / "front.png")
    many = {number: f"width {number}" for number in range(40)}
    plot_front([(1e5 * number, 1.5) for number in many], many, [0], tmp_path / "many.png")
    for name in ("loss.png", "bits.png", "files.png", "one.png", "front.png", "many.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
