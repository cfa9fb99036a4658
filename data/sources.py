"""What the name of a source means: plain files, or rows that the `datasets` library reads.

Source                                     Documents
`PATH` of a file                           its raw bytes, whatever its suffix (`.parquet` excepted)
`PATH` of a folder                         its files, recursively and sorted, but for hidden files and folders
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..coder.errors import LaconicError

PREFIX = "datasets:"
BUILDERS = ("json", "csv", "parquet", "text")
DEFAULT_COLUMN = "text"


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
    """Rows of one column that `datasets` reads, from local files or, without files, from the hub."""

    name: str  # as messages call it
    builder: str  # of BUILDERS, or the hub's name of the data set
    files: tuple[SourceFile, ...] = ()
    column: str | None = None
    config: str | None = None
    split: str = "train"

    def values(self) -> Iterator[bytes]:
        """The column's values, in order, streamed.

        Raises:
            LaconicError: the data cannot be read, or which column to take is not clear.
        """
        try:
            rows = self._load()
            column, encoding = None, "latin-1" if self.builder == "text" else "utf-8"
            for row in rows:
                column = column or self._choose(rows, row)
                value = row[column]
                if value:
                    yield value.encode(encoding, "surrogatepass") if isinstance(value, str) else bytes(value)
        except (LaconicError, MemoryError):
            raise
        except Exception as error:
            # The library has no common exception: pyarrow, pandas, network and hub errors all end here.
            reason = " ".join(f"{error.__cause__ or error}".split())[:200]
            raise LaconicError(
                f"datasets cannot read {self.name}: {reason or type(error).__name__}"
            ) from error

    def _load(self) -> Any:
        import datasets

        datasets.disable_progress_bars()
        datasets.logging.set_verbosity(logging.CRITICAL)  # what fails is raised as well
        if not self.files:
            return datasets.load_dataset(self.builder, self.config, split=self.split, streaming=True)
        # Latin-1 makes a character of every byte, so that lines of any encoding come through.
        options = {"encoding": "latin-1", "keep_linebreaks": True} if self.builder == "text" else {}
        paths = [file.path for file in self.files]
        return datasets.load_dataset(self.builder, data_files=paths, split="train", streaming=True, **options)

    def _choose(self, rows: Any, row: dict[str, Any]) -> str:
        features = rows.features
        if features is None:
            usable = [name for name, value in row.items() if isinstance(value, (str, bytes))]
        else:
            kinds = {"string", "large_string", "string_view", "binary", "large_binary", "binary_view"}
            usable = [name for name in features if getattr(features[name], "dtype", None) in kinds]
        wanted = self.column or (DEFAULT_COLUMN if DEFAULT_COLUMN in usable else None)
        if wanted is None and len(usable) == 1:
            return usable[0]
        if wanted is not None and wanted in usable:
            return wanted
        there = ", ".join(usable) or f"none (of {', '.join(row)})"
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
        if self.files:
            return f"{PREFIX}{self.builder}:{self.files[0].path}:{column}"
        config = f"@{self.config}" if self.config else ""
        return f"{PREFIX}{self.builder}{config}:{self.split}:{column}"


Part = PlainFile | Rows


def resolve(sources: list[str], exclude: str | os.PathLike[str] | None = None) -> list[Part]:
    """What the sources name, in order: each file once, those below `exclude` never.

    Raises:
        LaconicError: a path is missing, empty or unreadable, or a source is malformed.
    """
    if not sources:
        raise LaconicError("no corpus is given: name files, folders, patterns or datasets:... sources")
    parts: list[Part] = []
    seen: set[str] = set()
    left_out = None if exclude is None else Path(os.path.realpath(exclude))
    for source in sources:
        if source.startswith(PREFIX):
            parts.append(_resolve_rows(source, seen, left_out))
            continue
        for file in _files(source, seen, left_out):
            is_parquet = file.path.endswith(".parquet")
            parts.append(Rows(file.path, "parquet", (file,)) if is_parquet else PlainFile(file))
    return [
        part for part in parts if isinstance(part, PlainFile) or part.files or part.builder not in BUILDERS
    ]


def _resolve_rows(source: str, seen: set[str], left_out: Path | None) -> Rows:
    builder, _, rest = source.removeprefix(PREFIX).partition(":")
    if builder in BUILDERS:
        pattern, column = rest, None
        if not _matches(pattern):
            pattern, _, column = rest.rpartition(":")
        if not pattern:
            pattern, column = rest, None
        files = tuple(_files(pattern, seen, left_out)) if pattern else ()
        if not pattern:
            raise LaconicError(f"{source!r} names no files: write {PREFIX}{builder}:PATTERN[:COLUMN]")
        return Rows(source, builder, files, column or None)
    name, _, config = builder.partition("@")
    split, _, column = rest.partition(":")
    if not name or ":" in column:
        raise LaconicError(
            f"{source!r} is malformed: write {PREFIX}BUILDER:PATTERN[:COLUMN], with BUILDER one of "
            f"{', '.join(BUILDERS)}, or {PREFIX}NAME[@CONFIG][:SPLIT[:COLUMN]] for a data set of the hub"
        )
    return Rows(source, name, (), column or None, config or None, split or "train")


def _matches(pattern: str) -> list[str]:
    if os.path.lexists(pattern):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []


def _files(source: str, seen: set[str], left_out: Path | None) -> Iterator[SourceFile]:
    """Files that a path or a pattern names, that were not seen before and are not below `left_out`."""
    matches = _matches(source)
    if not matches:
        reason = "no file matches" if glob.has_magic(source) else "no such file or folder:"
        raise LaconicError(f"{reason} {source!r}: check the path")
    found = 0
    for match in matches:
        for path in _walk(match) if os.path.isdir(match) else [match]:
            real = os.path.realpath(path)
            if left_out is not None and Path(real).is_relative_to(left_out):
                continue
            found += 1
            if real not in seen:
                seen.add(real)
                yield _inspect(path)
    if not found:
        skipped = "hidden ones are" if left_out is None else "hidden ones and the output folder are"
        raise LaconicError(f"{source!r} holds no files ({skipped} skipped): put text there or name another")


def _walk(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise LaconicError(f"cannot read folder {error.filename}: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(parent, name)
            if not name.startswith(".") and (os.path.isfile(path) or not os.path.exists(path)):
                yield path


def _inspect(path: str) -> SourceFile:
    try:
        status = os.stat(path)
        readable = os.access(path, os.R_OK)
    except OSError as error:
        raise LaconicError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise LaconicError(f"{path} is not a regular file: a corpus needs files that can be read again")
    if not readable:
        raise LaconicError(f"cannot read {path}: permission denied")
    return SourceFile(str(Path(path)), status.st_size, status.st_mtime_ns)
