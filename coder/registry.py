"""Where checkpoints are found: by name, by path, or by the id that a file names.

They lie in the folders that the environment variable LACONIC_CHECKPOINTS lists (separated as in PATH) and in
the package's `checkpoints` folder. A name means the first folder that is called so, in that order; where none
is called default, that means one of those that ship, and another name several together (`ALIASES`). Searching
reads `config.json` alone; only what is chosen is loaded and verified, and the others of its id where it is
damaged.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from .container import PREFIX, UNKNOWN
from .errors import LaconicError
from .limits import check_memory_limit
from .parallel import check_threads
from .reference import Reference, check_reference
from .segment import BY_MODEL, Segment

if TYPE_CHECKING:
    from .model import Model
    from .report import Report

Name = str | os.PathLike[str]

VARIABLE = "LACONIC_CHECKPOINTS"
SHIPPED = Path(__file__).parent.parent / "checkpoints"
DEFAULT = "default"
ALIASES = {  # of those that ship, where no folder is called so
    DEFAULT: ("general-ngrams",),  # what serves most people: many languages and data, and fast
    "english-base": ("english-deep", "english-ngrams"),  # smaller, in more time: two that predict together
    "general-base": ("general-small", "general-ngrams"),
}
_MIN_ID_DIGITS = 4


@dataclass(frozen=True)
class Listing:
    """A checkpoint as its folder describes it; unverified."""

    name: str
    path: Path
    id: bytes
    summary: dict[str, Any]


def read_listing(path: Path) -> Listing | None:
    """What `path`/config.json says, or None where it is no description of a checkpoint."""
    try:
        parsed: Any = json.loads((path / "config.json").read_bytes())
        head = cast(dict[str, Any], parsed)
        identity = bytes.fromhex(head["id"])
        summary = cast(dict[str, Any], dict(head.get("summary", {})))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Listing(path.name, path, identity, summary) if len(identity) == 32 else None


def _is_leftover(path: Path) -> bool:
    """Whether an interrupted save or export left it."""
    return path.name.startswith(".") or path.suffix in (".partial", ".old")


def available() -> Iterator[Listing]:
    """Every checkpoint in the known folders, those of LACONIC_CHECKPOINTS first, by name."""
    listed = [Path(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
    for folder in [*listed, SHIPPED]:
        try:
            candidates = sorted(folder.iterdir())
        except OSError:
            continue
        for path in candidates:
            listing = None if _is_leftover(path) else read_listing(path)
            if listing is not None:
                yield listing


def fault(listing: Listing) -> str | None:
    """What is wrong with a checkpoint's content, in one line; None where it is sound."""
    from .checkpoint import FrozenCheckpoint

    try:
        FrozenCheckpoint.load(listing.path)
    except (LaconicError, OSError) as error:
        return str(error)
    return None


def _sound_copy(chosen: Listing, here: list[Listing]) -> Listing:
    """The checkpoint chosen, or, where it is damaged, the first sound one of its id."""
    others = [other for other in here if other.id == chosen.id and other.path != chosen.path]
    if not others or fault(chosen) is None:
        return chosen
    return next((other for other in others if fault(other) is None), chosen)


def _what_is_here() -> str:
    here = list(available())
    known = {listing.name for listing in here}
    names = [f"{listing.name} ({listing.id[:4].hex()})" for listing in here]
    names += [alias for alias, meant in ALIASES.items() if alias not in known and known.issuperset(meant)]
    return ", ".join(names) or "none"


def find(wanted: Name) -> Listing:
    """The one checkpoint that a name, a path or the first digits of an id (at least 4) stand for.

    A name is taken before a folder here that is called the same: ./NAME or a Path means the folder. A name or
    an id stands for content: of a damaged checkpoint a sound copy elsewhere is taken.

    Raises:
        LaconicError: there is none, or several.
    """
    found = find_all([wanted])
    if len(found) > 1:
        names = " and ".join(listing.name for listing in found)
        raise LaconicError(
            f"{wanted} means {names} together, and this takes one checkpoint: name one of them"
        )
    return found[0]


def find_all(wanted: Sequence[Name]) -> list[Listing]:
    """The checkpoints that names, paths or ids stand for, each as `find` says; an alias may mean several."""
    return [listing for name in wanted for listing in _meant(name)]


def _meant(wanted: Name) -> list[Listing]:
    text = os.fspath(wanted)
    here = [] if isinstance(wanted, Path) or os.sep in text else list(available())
    first = {listing.name: listing for listing in reversed(here)}
    for names in ((text,), ALIASES.get(text, ())):
        if names and first.keys() >= set(names):
            return [_sound_copy(first[name], here) for name in names]
    return [_by_path_or_id(text, here)]


def _by_path_or_id(text: str, here: list[Listing]) -> Listing:
    path = Path(text)
    if (path / "config.json").is_file():
        listing = read_listing(path)
        if listing is None:
            raise LaconicError(f"{path} is no frozen checkpoint: make one by laconic train or laconic export")
        return listing
    if len(text) >= _MIN_ID_DIGITS:
        matching = [listing for listing in here if listing.id.hex().startswith(text.lower())]
        several = len({listing.id for listing in matching})
        if several > 1:
            raise LaconicError(f"{several} checkpoints have ids that begin with {text}: give more digits")
        if matching:
            return _sound_copy(matching[0], here)
    what = f"there is no checkpoint {text!r}"
    if path.exists():
        what = f"{text} has no config.json, it is no checkpoint"
        if (path / "checkpoint" / "config.json").is_file():
            raise LaconicError(f"{what}, but {path / 'checkpoint'} is one: name that")
    elif here and (names := ALIASES.get(text)):
        lacking = ", ".join(name for name in names if name not in {listing.name for listing in here})
        what += f", which means {' and '.join(names)} (not here: {lacking})"
    raise LaconicError(f"{what}; here are: {_what_is_here()}. Give one of these, a folder, or set {VARIABLE}")


def open_model(listing: Listing, engine: str | None = None, threads: int | None = None) -> "Model":
    """Load and verify a checkpoint, and choose its engine (see `load_engine`)."""
    from .checkpoint import FrozenCheckpoint
    from .engine import load_engine
    from .model import Model

    checkpoint = FrozenCheckpoint.load(listing.path)
    return Model(checkpoint, load_engine(checkpoint, engine, threads))


class Decoder:
    """Decodes segments of any file, loading the checkpoints that they name when they are first needed.

    Threads may share it.
    """

    def __init__(
        self,
        extra: "Name | Sequence[Name] | Model | None" = None,
        engine: str | None = None,
        threads: int | None = None,
        memory: int | None = None,
        reference: Reference | None = None,
    ) -> None:
        """
        Args:
            extra: checkpoints (path, name, id, or opened) beside those in the known folders; paths, names
                and ids are also what decodes a damaged file that does not tell its checkpoint any more.
            memory: bytes that a segment's mixer may take (None: 1 GiB).
            reference: for files that were compressed against one.
        """
        check_threads(threads)
        self.engine = engine
        self.threads = threads
        self.memory = check_memory_limit(memory)
        self.reference = reference
        self.models: dict[bytes | None, Model] = {}
        self.extra: list[Listing] = []
        if isinstance(extra, str | os.PathLike):
            self.extra = find_all([extra])
        elif isinstance(extra, Sequence):
            self.extra = find_all(extra)
        elif extra is not None:
            self.models[extra.prefixes] = extra
        self._opening = Lock()

    def __call__(self, segment: Segment, checkpoint: bytes | None, report: "Report | None" = None) -> bytes:
        """The original bytes of a segment.

        Raises:
            LaconicError: it is damaged, or its checkpoint is not here, or it needs another reference.
        """
        from .codec import decode_segment

        if segment.learned is not None:
            check_reference(segment.reference, self.reference)
        model = self._model(checkpoint) if segment.method in BY_MODEL else None
        return decode_segment(segment, model, report, self.memory, self.reference)

    def _model(self, prefix: bytes | None) -> "Model":
        with self._opening:
            if prefix not in self.models:
                self.models[prefix] = self._open(prefix)
            return self.models[prefix]

    def _open(self, prefixes: bytes | None) -> "Model":
        """The checkpoints that a file names by their prefixes, joined."""
        from .model import ensemble

        if prefixes == UNKNOWN and self.extra:
            return ensemble([open_model(listing, self.engine, self.threads) for listing in self.extra])
        if not prefixes:
            raise LaconicError("it needs a checkpoint and does not name it: name it by -m PATH")
        starts = range(0, len(prefixes), PREFIX)
        return ensemble([self._open_one(prefixes[start : start + PREFIX]) for start in starts])

    def _open_one(self, prefix: bytes) -> "Model":
        """The first sound checkpoint of that id: a damaged copy does not hide a good one."""
        matching = [listing for listing in [*self.extra, *available()] if listing.id[:PREFIX] == prefix]
        failure: LaconicError | None = None
        for listing in matching:
            try:
                return open_model(listing, self.engine, self.threads)
            except LaconicError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        raise LaconicError(
            f"the file was made with checkpoint {prefix.hex()}, which is not here: name its folder by "
            f"-m PATH or by {VARIABLE}; here are: {_what_is_here()}"
        )
