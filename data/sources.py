"""What the name of a source means: plain files, or rows that the `datasets` library reads.

Source                                     Documents
`PATH` of a file                           its raw bytes, whatever its suffix (`.parquet` excepted)
`PATH` of a folder                         its files, recursively and sorted, but for hidden ones,
                                           linked ones like others, each once
`PATTERN` with `*`, `?`, `[..]`, `**`      what it matches, likewise
`FILE.parquet`, wherever it is found       one a row, of the default column
`datasets:BUILDER:PATTERN[:COLUMN]`        one a row of the files; BUILDER is `json` (JSON lines too), `csv`,
                                           `parquet` or `text`
`datasets:NAME[@CONFIG][:SPLIT[:COLUMN]]`  one a row of a data set of the hub; SPLIT defaults to `train`; e.g.
                                           `datasets:wikimedia/wikipedia@20231101.en:train:text`

The default column is `text`, or else the only one of strings or binary data. Strings become UTF-8, binary
data stays as it is, nulls and empty values are passed over. A row of `text` is a line with its line break,
each byte as stored, except that the library reads "\\r\\n" and "\\r" as "\\n": name the file itself to keep
those.
"""

import glob
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..coder.errors import LaconicError

PREFIX = "datasets:"
BUILDERS = ("json", "csv", "parquet", "text")
DEFAULT_COLUMN = "text"
ROWS_AT_A_TIME = 1000


class Unreadable(LaconicError):
    """A file that cannot be read, which data.skip_unreadable leaves out."""

    def __init__(self, fault: str, name: str) -> None:
        super().__init__(f"{fault}: mend or remove it, or set data.skip_unreadable true to leave it out")
        self.name, self.fault = name, fault


@dataclass(frozen=True)
class SourceFile:
    """A file as it was when the corpus was looked at; size in bytes."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class PlainFile:
    """A file whose raw bytes are the text."""

    file: SourceFile


@dataclass(frozen=True)
class Rows:
    """Rows of one column that `datasets` reads, from a local file or, without one, from the hub."""

    name: str  # as messages call it
    builder: str  # of BUILDERS, or the hub's name of the data set
    file: SourceFile | None = None
    column: str | None = None
    config: str | None = None
    split: str = "train"

    def values(self, start: int = 0) -> Iterator[tuple[bytes, int]]:
        """(value of the column, number of the row after it), streamed from row `start` on.

        Nulls and empty values are passed over.

        Raises:
            Unreadable: the data cannot be read.
            LaconicError: which column to take is not clear.
        """
        try:
            if self.file is not None and not self.file.size and self.builder != "parquet":
                return  # the library takes an empty file for a damaged one
            # Tables are the same from wherever it starts, for damage takes all of one.
            column, number = None, start // ROWS_AT_A_TIME * ROWS_AT_A_TIME
            for table in self._load().skip(number).with_format("arrow").iter(ROWS_AT_A_TIME):
                column = column or self._choose(table.schema)
                for value in self._as_bytes(table.column(column)):
                    number += 1
                    if value and number > start:
                        yield value, number
        except (LaconicError, MemoryError):
            raise
        except Exception as error:
            # The library has no common exception: pyarrow, pandas, network and hub errors all end here.
            reason = " ".join(f"{error.__cause__ or error}".split())[:200].rstrip(".")
            raise Unreadable(
                f"datasets cannot read {self.name}: {reason or type(error).__name__}", self.name
            ) from error

    def _load(self) -> Any:
        import datasets

        datasets.disable_progress_bars()
        datasets.logging.set_verbosity(logging.CRITICAL)  # what fails is raised as well
        if self.file is None:
            return datasets.load_dataset(self.builder, self.config, split=self.split, streaming=True)
        # Latin-1 makes a character of every byte, so that lines of any encoding come through.
        options = {"encoding": "latin-1", "keep_linebreaks": True} if self.builder == "text" else {}
        if "::" in self.file.path:
            raise Unreadable(f"datasets cannot read {self.name}, for its path holds '::'", self.name)
        paths = [glob.escape(self.file.path)]  # the library takes a path for a pattern
        return datasets.load_dataset(self.builder, data_files=paths, split="train", streaming=True, **options)

    def _as_bytes(self, column: Any) -> Iterator[bytes | None]:
        if self.builder == "text":
            return (None if value is None else value.encode("latin-1") for value in column.to_pylist())
        return iter(column.cast("large_binary").to_pylist())  # strings are UTF-8 in memory

    def _choose(self, schema: Any) -> str:
        kinds = {"string", "large_string", "string_view", "binary", "large_binary", "binary_view"}
        usable = [field.name for field in schema if str(field.type) in kinds]
        wanted = self.column or (DEFAULT_COLUMN if DEFAULT_COLUMN in usable else None)
        if wanted is None and len(usable) == 1:
            return usable[0]
        if wanted is not None and wanted in usable:
            return wanted
        there = ", ".join(usable) or f"none (of {', '.join(schema.names)})"
        asked = (
            f"has no column {self.column!r} of text"
            if self.column
            else "does not say which column holds the text"
        )
        raise LaconicError(
            f"{self.name} {asked}; columns of text: {there}: name one, as in {self._example(usable)}"
        )

    def _example(self, usable: list[str]) -> str:
        column = usable[0] if usable else "COLUMN"
        if self.file is not None:
            return f"{PREFIX}{self.builder}:{self.file.path}:{column}"
        config = f"@{self.config}" if self.config else ""
        return f"{PREFIX}{self.builder}{config}:{self.split}:{column}"


Unit = PlainFile | Rows


class Skips(dict[str, str]):
    """Files that were left out, and why; each is said once, on stderr, and to `keep` where there is one."""

    keep: Callable[["Skips"], None] | None = None

    def add(self, error: Unreadable) -> None:
        """Leave a file out."""
        if error.name not in self:
            self[error.name] = error.fault
            print(f"left out: {error.fault}", file=sys.stderr, flush=True)
            if self.keep is not None:
                self.keep(self)


def resolve(
    sources: list[str], exclude: str | os.PathLike[str] | None = None, skips: Skips | None = None
) -> list[Unit]:
    """What the sources name, in order: each file once, those below `exclude` never.

    Args:
        skips: where files and folders are noted that cannot be read; None: they are refused.

    Raises:
        LaconicError: a path is missing, empty or unreadable, or a source is malformed.
    """
    if not sources:
        raise LaconicError("no corpus is given: name files, folders, patterns or datasets:... sources")
    units: list[Unit] = []
    look = _Look(None if exclude is None else Path(os.path.realpath(exclude)), skips)
    for source in sources:
        if source.startswith(PREFIX):
            units += _resolve_rows(source, look)
            continue
        for file in look.files(source):
            is_parquet = file.path.endswith(".parquet")
            units.append(Rows(file.path, "parquet", file) if is_parquet else PlainFile(file))
    return units


def _resolve_rows(source: str, look: "_Look") -> list[Rows]:
    builder, _, rest = source.removeprefix(PREFIX).partition(":")
    if builder in BUILDERS:
        pattern, column = rest, None
        if not _matches(pattern):
            pattern, _, column = rest.rpartition(":")
        if not pattern:
            pattern, column = rest, None
        if not pattern:
            raise LaconicError(f"{source!r} names no files: write {PREFIX}{builder}:PATTERN[:COLUMN]")
        return [Rows(file.path, builder, file, column or None) for file in look.files(pattern)]
    name, _, config = builder.partition("@")
    split, _, column = rest.partition(":")
    if not name or ":" in column:
        raise LaconicError(
            f"{source!r} is malformed: write {PREFIX}BUILDER:PATTERN[:COLUMN], with BUILDER one of "
            f"{', '.join(BUILDERS)}, or {PREFIX}NAME[@CONFIG][:SPLIT[:COLUMN]] for a data set of the hub"
        )
    return [Rows(source, name, None, column or None, config or None, split or "train")]


def _matches(pattern: str) -> list[str]:
    if os.path.lexists(pattern):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []


class _Look:
    """Looks at paths: which files they name, that were not seen before and are not below `left_out`."""

    def __init__(self, left_out: Path | None, skips: Skips | None) -> None:
        self.left_out, self.skips = left_out, skips
        self.seen: set[str] = set()

    def refuse(self, error: Unreadable) -> None:
        if self.skips is None:
            raise error
        self.skips.add(error)

    def files(self, source: str) -> Iterator[SourceFile]:
        matches = _matches(source)
        if not matches:
            reason = "no file matches" if glob.has_magic(source) else "no such file or folder:"
            raise LaconicError(f"{reason} {source!r}: check the path")
        found = 0
        for match in matches:
            for path in self._walk(match) if os.path.isdir(match) else [match]:
                real = os.path.realpath(path)
                if self.left_out is not None and Path(real).is_relative_to(self.left_out):
                    continue
                found += 1
                if real in self.seen:
                    continue
                self.seen.add(real)
                try:
                    yield _inspect(path)
                except Unreadable as error:
                    self.refuse(error)
        if not found:
            skipped = "hidden ones are" if self.left_out is None else "hidden ones and the output folder are"
            raise LaconicError(
                f"{source!r} holds no files ({skipped} skipped): put text there or name another"
            )

    def _walk(self, folder: str) -> Iterator[str]:
        def refuse(error: OSError) -> None:
            name = str(error.filename)
            self.refuse(Unreadable(f"cannot read folder {name}: {error.strerror}", name))

        root = os.path.realpath(folder)
        entered = {root, *map(str, Path(root).parents)}  # links may lead in circles, or up and out

        def enters(path: str) -> bool:
            real = os.path.realpath(path)
            fresh = real not in entered
            entered.add(real)
            return fresh

        for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
            visible = sorted(name for name in folders if not name.startswith("."))
            folders[:] = [name for name in visible if enters(os.path.join(parent, name))]
            for name in sorted(names):
                path = os.path.join(parent, name)
                if not name.startswith(".") and (os.path.isfile(path) or not os.path.exists(path)):
                    yield path


def _inspect(path: str) -> SourceFile:
    try:
        status = os.stat(path)
        readable = os.access(path, os.R_OK)
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}", path) from None
    if not stat.S_ISREG(status.st_mode):
        raise LaconicError(f"{path} is not a regular file: a corpus needs files that can be read again")
    if not readable:
        raise Unreadable(f"cannot read {path}: permission denied", path)
    return SourceFile(str(Path(path)), status.st_size, status.st_mtime_ns)
