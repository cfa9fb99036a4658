"""`laconic quickstart`: from text that every machine has to a compressor, a table and two pictures.

The text is the standard library's source of the running Python. About a megabyte of its modules, chosen by a
hash of their content, is held out; a model is trained on the rest, frozen, and compresses what was held out,
beside the peers.
"""

import argparse
import hashlib
import importlib.util
import json
import platform
import shutil
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .coder.errors import LaconicError

OUT = Path("runs") / "quickstart"
LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "encodings",
}  # installed, tests, tables
LEAST_BYTES = 2_000_000
HELD_OUT_BYTES = 1_000_000
LARGEST_HELD_OUT = 200_000  # bytes: no single module decides the figures
ALONE_BYTES = 80_000  # of modules that are compressed one by one as well
SMALLEST_ALONE = 2_048
PEERS = "gzip,bzip2,xz,zstd,brotli,ppmd"  # the same tables on every machine, and columns that fit a line
STAGES = ("teacher", "student")


@dataclass(frozen=True)
class Split:
    """Modules of a library, relative to `root`, by their SHA-256 in order; no content is in both parts."""

    root: Path
    training: list[Path]
    held_out: list[Path]

    def size(self, part: list[Path]) -> int:
        """Bytes of a part."""
        return sum((self.root / module).stat().st_size for module in part)


def split_library(root: Path) -> Split:
    """Hold out modules in the order of their SHA-256 until there is a megabyte of them.

    Content that occurs more than once is used once.

    Raises:
        LaconicError: there is too little source under `root`.
    """
    by_digest: dict[str, Path] = {}
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root)
        if not LEFT_OUT & set(module.parts):
            by_digest.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), module)
    split = Split(root, [], [])
    held_out_bytes = 0
    for _, module in sorted(by_digest.items()):
        size = (root / module).stat().st_size
        if size <= LARGEST_HELD_OUT and held_out_bytes < HELD_OUT_BYTES:
            split.held_out.append(module)
            held_out_bytes += size
        else:
            split.training.append(module)
    total = held_out_bytes + split.size(split.training)
    if total < LEAST_BYTES:
        raise LaconicError(
            f"{root} holds {total:,} bytes of Python source, {LEAST_BYTES:,} are needed: run a Python that "
            "has its library's source, or train on text of your own with laconic train PATH -o DIR"
        )
    return split


def lay_out(split: Split, out: Path) -> None:
    """Copy the parts to out/corpus and out/held-out, once.

    Raises:
        LaconicError: `out` holds something else, or another Python's split.
    """
    marker = out / "split.json"
    parts = {"corpus": split.training, "held-out": split.held_out}
    wanted: dict[str, Any] = {"python": platform.python_version(), "root": str(split.root)}
    wanted |= {name: [str(module) for module in modules] for name, modules in parts.items()}
    if marker.is_file():
        try:
            found = json.loads(marker.read_text())
        except ValueError:
            raise LaconicError(
                f"{marker} is damaged: remove {out}, or choose another folder with -o"
            ) from None
        if found != wanted:
            raise LaconicError(
                f"{out} is the quickstart of another Python: choose another folder with -o, or remove it"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LaconicError(
            f"{out} exists and is no quickstart's folder: choose another with -o, or remove it"
        )
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, modules in parts.items():
        for module in modules:
            target = partial / name / module
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(split.root / module, target)
    (partial / marker.name).write_text(json.dumps(wanted, indent=1) + "\n")
    if out.exists():
        out.rmdir()
    partial.rename(out)


def train_checkpoint(out: Path, minutes: float | None) -> dict[str, Any]:
    """Run the pipeline on out/corpus within out/run; what is finished there is not done again.

    Returns:
        The report of the pipeline.
    """
    from .train.configuration import load_recipe
    from .train.pipeline import run as run_pipeline

    overrides = {} if minutes is None else {"training.minutes": minutes}
    recipe = load_recipe("quickstart", overrides=overrides)
    print(
        f"about {recipe.training.minutes:g} minutes on {recipe.training.threads or 'all'} cores", flush=True
    )
    return run_pipeline([str(out / "corpus")], out / "run", recipe)


def measure_held_out(split: Split, out: Path) -> None:
    """Compress what was held out beside the peers; print tables, write figures and pictures into `out`."""
    from .bench.commands import compare, write_json
    from .bench.measure import Sample
    from .bench.plots import plot_bits_per_byte, plot_loss_curve

    note = "no, held out by the hash of its content"
    model = str(out / "run" / "checkpoint")
    texts = {str(module): (out / "held-out" / module).read_bytes() for module in split.held_out}
    name = f"{len(texts)} modules as one"
    whole = compare([Sample(name, b"".join(texts.values()), note)], model, PEERS)
    alone: list[Sample] = []
    for module, text in texts.items():
        if (
            len(text) >= SMALLEST_ALONE
            and sum(len(sample.data) for sample in alone) + len(text) <= ALONE_BYTES
        ):
            alone.append(Sample(module, text, note))
    single = compare(alone, model, PEERS)

    print("\n".join(["", whole.bytes_table(), "", whole.bits_table(), "", single.bits_table()]))
    print(
        "\n".join(["", "Speed, all modules as one file:", "", whole.speed_table(), "", whole.account(), ""])
    )
    write_json(whole, out / "held-out.json")
    write_json(single, out / "held-out-alone.json")
    panels = {
        f"{len(texts)} held-out modules as one file": whole.results,
        f"{len(alone)} of them, one by one": single.results,
    }
    plot_bits_per_byte(panels, out / "bits-per-byte.png")
    curves = {stage: out / "run" / stage / "metrics.csv" for stage in STAGES}
    plot_loss_curve({stage: [path] for stage, path in curves.items() if path.is_file()}, out / "loss.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `laconic quickstart`."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="where everything goes (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="of training (default: what the recipe says)"
    )


def run(args: argparse.Namespace) -> int:
    """Split, train, freeze, compress, compare, draw."""
    began = time.monotonic()
    out: Path = args.output
    if importlib.util.find_spec("matplotlib") is None:
        raise LaconicError("quickstart draws pictures: pip install 'laconic[train,bench]'")
    split = split_library(Path(sysconfig.get_path("stdlib")))
    lay_out(split, out)
    print(f"1. The standard library of Python {platform.python_version()}")
    print(f"   {split.size(split.training):>12,} bytes in {len(split.training)} modules to learn from")
    print(f"   {split.size(split.held_out):>12,} bytes in {len(split.held_out)} modules held out\n")
    print("2. Tokenizer, models, freezing: ", end="", flush=True)
    train_checkpoint(out, args.minutes)
    print("\n3. The held-out modules, compressed, restored and compared")
    measure_held_out(split, out)
    print(
        f"Everything is in {out}: bits-per-byte.png, loss.png, held-out.json, and run/checkpoint (for\n"
        f"laconic's -m). That took {(time.monotonic() - began) / 60:.1f} minutes."
    )
    return 0
