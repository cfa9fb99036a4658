"""Logs of a stage, for people and programs, which go on where a checkpoint left them."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from .run import write_whole

METRICS, EVENTS = "metrics.csv", "tensorboard"


class CsvLog(Logger):
    """metrics.csv: a row each time that something is logged, a column for each name."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / METRICS
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They are in the run's recipe.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; the file is written anew where a name is new."""
        row = {"step": step, **metrics}
        if not set(row) <= set(self._columns):
            rows = [*read_rows(self.path), row]
            write_whole(self.path, as_csv(rows))
            self._columns = list(dict.fromkeys(key for row in rows for key in row))
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)


def stage_loggers(folder: Path) -> list[Logger]:
    """metrics.csv and TensorBoard's events below the stage's folder."""
    return [CsvLog(folder), TensorBoardLogger(folder, name=EVENTS, version="", default_hp_metric=False)]


def position(folder: Path) -> dict[str, Any]:
    """How far the logs of a stage are, when they have been flushed: {"rows", "events": {file: bytes}}."""
    files = sorted((folder / EVENTS).glob("events.*"))
    return {"rows": len(read_rows(folder / METRICS)), "events": {f.name: f.stat().st_size for f in files}}


def cut(folder: Path, to: Mapping[str, Any] | None) -> None:
    """Drop what was logged after a `position`, or all of it: those steps are taken, and logged, once more."""
    to = to or {"rows": 0, "events": {}}
    rows = read_rows(folder / METRICS)
    if not to["rows"]:
        (folder / METRICS).unlink(missing_ok=True)
    elif len(rows) > to["rows"]:
        write_whole(folder / METRICS, as_csv(rows[: to["rows"]]))
    for file in (folder / EVENTS).glob("events.*"):
        if file.name not in to["events"]:
            file.unlink()
        elif file.stat().st_size > to["events"][file.name]:
            with file.open("rb+") as events:
                events.truncate(to["events"][file.name])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What was logged, without what is empty."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the columns of all of them, in the order in which they first occur."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
