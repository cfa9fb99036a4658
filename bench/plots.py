"""Pictures of results: bits per byte by codec, and loss curves."""

import csv
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..coder.errors import LaconicError
from .outputs import write_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .measure import CodecResult
    from .scaling import Growth

OURS, OTHERS, INK = "#c8553d", "#b8c0cc", "#2f3640"
CURVES = ("#8d99ae", "#c8553d", "#3d7ea6", "#6a994e")
STAGES = (*CURVES, "#b08968")
DPI = 160
MOST_NAMED, LABEL_LENGTH = 24, 60  # trials, and characters of each, that have a place beside a picture


def _save(figure: "Figure", out: Path) -> None:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    write_output(out, picture.getvalue())


def plot_bits_per_byte(panels: Mapping[str, Sequence["CodecResult"]], out: Path) -> None:
    """A panel for each set of files: one horizontal bar a codec, the smallest output on top, ours in colour.

    Args:
        panels: title -> results, at least one.
        out: the PNG to write.

    Raises:
        LaconicError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    rows = max(len(results) for results in panels.values())
    size = (6.4 * len(panels), 1.5 + 0.46 * rows)
    figure, grid = pyplot.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for axes, (title, results) in zip(grid[0], panels.items(), strict=True):
        _bars(axes, title, results)
    _save(figure, out)
    pyplot.close(figure)


def plot_every_file(results: Sequence["CodecResult"], out: Path) -> None:
    """Bars of all files together, and a row for every file: bytes of each codec beside the first codec's.

    Args:
        results: of the same files, at least one; the first is what the others are held against.
        out: the PNG to write.

    Raises:
        LaconicError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    ours, *others = results
    files = [m for m in ours.measurements if m.compressed_bytes]
    heights = (1.5 + 0.46 * len(results), 1.0 + 0.25 * len(others), 0.19 * len(files))
    figure, parts = pyplot.subplot_mosaic(
        [["bars", "dots"], ["names", "dots"], [".", "dots"]],
        figsize=(12.8, max(sum(heights[:2]), 1.5 + heights[2])),
        layout="constrained",
        width_ratios=(2, 3),
        height_ratios=(*heights[:2], max(0.1, heights[2] - sum(heights[:2]))),
    )
    dots = parts["dots"]
    _bars(parts["bars"], f"{len(ours.measurements)} files together", results)
    colours = pyplot.get_cmap("tab10")
    for place, codec in enumerate(others):
        sizes = {m.file: m.compressed_bytes for m in codec.measurements}
        ratios = [sizes[m.file] / m.compressed_bytes for m in files]
        dots.scatter(ratios, range(len(files)), s=16, color=colours(place % 10), label=codec.codec, zorder=2)
    dots.axvline(1, color=OURS, lw=2, zorder=1)
    dots.set(xscale="log", xlabel=f"bytes, where those of {ours.codec} are 1", ylim=(len(files) - 0.4, -0.6))
    low, high = dots.get_xlim()
    dots.set_xticks([x for x in (0.5, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10, 20) if low <= x <= high], minor=False)
    dots.xaxis.set_major_formatter("{x:g}")
    dots.xaxis.set_minor_formatter("")
    dots.set_yticks(range(len(files)), [m.file for m in files], fontsize=7)
    dots.grid(axis="y", color="#eef0f4", lw=0.8)
    _dress(dots, "File by file")
    parts["names"].axis("off")
    parts["names"].legend(*dots.get_legend_handles_labels(), frameon=False, loc="upper center", ncols=2)
    _save(figure, out)
    pyplot.close(figure)


def _bars(axes: "Axes", title: str, results: Sequence["CodecResult"]) -> None:
    ranked = sorted(results, key=lambda result: result.bits_per_byte, reverse=True)
    bits = [result.bits_per_byte for result in ranked]
    colours = [OTHERS if result.level is None else OURS for result in ranked]
    bars = axes.barh([result.codec for result in ranked], bits, height=0.68, color=colours)
    axes.bar_label(bars, fmt="%.3f", padding=5, color=INK, fontsize=10)
    axes.set_xlim(0, 1.15 * max(bits) or 1)
    axes.set_xlabel("bits per byte (less is better)", color=INK)
    _dress(axes, title)
    axes.tick_params(axis="y", length=0, labelsize=11)
    axes.spines["left"].set_visible(False)


def plot_loss_curve(csv_paths: Mapping[str, Sequence[Path]], out: Path) -> None:
    """Bits per byte over minutes of training, one colour a run: training thin, validation thick.

    Args:
        csv_paths: label -> the metrics.csv files of a run, put end to end, with columns
            `train/bits_per_byte`, `validation/bits_per_byte` and `elapsed_minutes` (or `step`), empty where
            nothing was logged.
        out: the PNG to write.

    Raises:
        LaconicError: matplotlib is not installed, or a file without such columns.
    """
    curves = {label: read_loss_curve(paths) for label, paths in csv_paths.items()}
    in_minutes = all(curve["minutes"] for curve in curves.values())
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    for (label, curve), colour in zip(curves.items(), CURVES * len(curves), strict=False):
        for kind, style in (
            ("train", {"alpha": 0.45, "lw": 1.0}),
            ("validation", {"lw": 2.2, "marker": "o", "ms": 3}),
        ):
            points: list[tuple[float, float, float]] = curve[kind]
            if points:
                times = [minutes if in_minutes else step for step, minutes, _ in points]
                axes.plot(
                    times, [value for *_, value in points], color=colour, label=f"{label}, {kind}", **style
                )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.2g}")
    axes.yaxis.set_minor_formatter("{x:.2g}")
    axes.set_xlabel("minutes of training" if in_minutes else "steps", color=INK)
    axes.set_ylabel("bits per byte", color=INK)
    axes.grid(axis="y", which="both", color="#e6e9ee", lw=0.8)
    _dress(axes, "Code length while training")
    axes.legend(frameon=False, fontsize=9)
    _save(figure, out)
    pyplot.close(figure)


def plot_front(
    points: Sequence[tuple[float, float]], labels: Mapping[int, str], front: Sequence[int], out: Path
) -> None:
    """Trials by work and bits per byte, those that none is better than in both joined by a line.

    Args:
        points: (multiply-accumulates a byte, bits per byte) of each trial.
        labels: its number -> what it is, of each trial; listed beside the picture, of many trials those of
            the front alone.
        front: indices of the front's points, by work.
        out: the PNG to write.

    Raises:
        LaconicError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    named = sorted(front) if len(points) > MOST_NAMED else range(len(points))
    figure, axes = pyplot.subplots(figsize=(9, 4.6), layout="constrained")
    work, bits = [[point[i] / (1e6 if i == 0 else 1) for point in points] for i in (0, 1)]
    axes.scatter(work, bits, color=OTHERS, s=28, zorder=2)
    axes.plot([work[i] for i in front], [bits[i] for i in front], color=OURS, marker="o", lw=1.6, zorder=3)
    numbers = list(labels)
    for i in named:
        axes.annotate(
            str(numbers[i]), (work[i], bits[i]), (5, 5), textcoords="offset points", fontsize=8, color=INK
        )
    lines = "\n".join(f"{numbers[i]}  {labels[numbers[i]][:LABEL_LENGTH]}" for i in named)
    axes.annotate(lines, (1.03, 1), xycoords="axes fraction", va="top", fontsize=8, color=INK)
    axes.set_xlabel("million multiply-accumulates a byte", color=INK)
    axes.set_ylabel("bits per byte of shipped bytes", color=INK)
    axes.grid(color="#e6e9ee", lw=0.8)
    _dress(axes, "What is worth its work")
    _save(figure, out)
    pyplot.close(figure)


def plot_growth(growth: "Growth", out: Path) -> None:
    """CPU seconds and peak memory of every stage over the size of the text, on logarithmic axes.

    Args:
        out: the PNG to write.

    Raises:
        LaconicError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for (stage, costs), colour in zip(growth.stages().items(), STAGES * len(growth.costs), strict=False):
        sizes = [cost.megabytes for cost in costs]
        style: dict[str, Any] = {"color": colour, "marker": "o", "ms": 4, "lw": 1.6, "label": stage}
        time.plot(sizes, [cost.cpu_seconds for cost in costs], **style)
        memory.plot(sizes, [cost.peak_bytes / 1e6 for cost in costs], **style)
    for axes, title in ((time, "CPU seconds"), (memory, "Peak memory, MB")):
        axes.set(xscale="log", yscale="log", xlabel="MB of text")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.minorticks_off()
        axes.grid(color="#e6e9ee", lw=0.8)
        _dress(axes, title)
    time.set_ylim(0.1)
    memory.set_ylim(10, 10_000)
    time.legend(frameon=False, fontsize=9)
    _save(figure, out)
    pyplot.close(figure)


def read_loss_curve(paths: Sequence[Path]) -> dict[str, Any]:
    """Points of metrics.csv files, put end to end.

    Returns:
        {"train": [...], "validation": [...], "minutes": whether times are known}; a point is
        (step, minutes since the start or 0.0, bits per byte).

    Raises:
        LaconicError: a file that is missing or logs no bits per byte.
    """
    rows: list[dict[str, str]] = []
    for path in paths:
        try:
            with path.open(newline="") as file:
                rows += csv.DictReader(file)
        except OSError as error:
            raise LaconicError(f"{path}: {error.strerror}; give the metrics.csv of a run") from error
    curve: dict[str, Any] = {"train": [], "validation": [], "minutes": False}
    minutes = 0.0
    for row in rows:
        if row.get("elapsed_minutes"):
            minutes = float(row["elapsed_minutes"])
            curve["minutes"] = True
        for kind in ("train", "validation"):
            value = row.get(f"{kind}/bits_per_byte")
            if value and value != "nan":
                curve[kind].append((float(row.get("step") or 0), minutes, float(value)))
    if not curve["train"] and not curve["validation"]:
        raise LaconicError(
            f"{paths[-1]} logs no bits per byte: give the metrics.csv of a pretrain or distill run"
        )
    return curve


def _dress(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=12, pad=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise LaconicError("pictures need matplotlib: pip install 'laconic[bench]'") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    return pyplot
