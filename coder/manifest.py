"""An account of compressed files, in JSON."""

import json
import time
from types import TracebackType
from typing import Any

from .files import Name, PendingFile
from .pipeline import Job, Part
from .segment import METHOD_NAMES


class Manifest:
    """As a context manager it writes what became of each file that was over, however it is left.

    Raises:
        LaconicError: its path exists, or lies in a folder that does not exist.
    """

    def __init__(self, path: Name, force: bool) -> None:
        self._pending = PendingFile(path, force)
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

    def add_failure(self, job: Job, reason: str) -> None:
        """A file that was not."""
        self._files.append({"file": job.name, "error": reason})

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._pending as pending:
            if self._files:
                account = {"seconds": round(time.monotonic() - self._begin, 3), "files": self._files}
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
