"""An account of compressed files, in JSON; docs/cluster.md describes it."""

import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from .files import Name, PendingFile
from .pipeline import Job, Part
from .segment import METHOD_NAMES


class Manifest:
    """As a context manager it writes what became of each file, however it is left.

    Raises:
        LaconicError: its path exists, or lies in a folder that does not exist.
    """

    def __init__(self, path: Name, force: bool, names: Sequence[str]) -> None:
        """`names` are those of all files, which are added in their order."""
        self._pending = PendingFile(path, force)
        self._names = names
        self._files: list[dict[str, Any]] = []
        self._begin = time.monotonic()

    def add(self, job: Job, output: str) -> None:
        """A file that was compressed, and where to."""
        original, coded = job.sha256
        self._files.append(
            {
                "file": job.name,
                "output": output,
                "bytes": job.totals.original,
                "output_bytes": job.totals.coded,
                "sha256": original,
                "output_sha256": coded,
                "seconds": round(job.seconds, 3),
                "segments": [_segment(part) for part in job.parts],
            }
        )

    def add_failure(self, name: str, reason: str) -> None:
        """A file that was not."""
        self._files.append({"file": name, "error": reason})

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = isinstance(error, Exception) and str(error)
        reason = str(error) if failed else "the command was stopped before"
        for name in self._names[len(self._files) :]:
            self.add_failure(name, reason)
        account = {"seconds": round(time.monotonic() - self._begin, 3), "files": self._files}
        with self._pending as pending:
            pending.file.write(json.dumps(account, indent=1).encode() + b"\n")
            pending.commit()


def _segment(part: Part) -> dict[str, Any]:
    segment, node, retries, seconds = part.coded
    return {
        "position": part.position,
        "bytes": segment.original_length,
        "coded_bytes": part.coded_length,
        "method": METHOD_NAMES[segment.method],
        "node": node,
        "retries": retries,
        "seconds": round(seconds, 3),
    }
