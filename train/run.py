"""A run folder: where each stage of a run puts what it makes."""

import errno
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..coder.checkpoint import CONFIG, FrozenCheckpoint
from ..coder.errors import LaconicError
from ..coder.registry import find
from ..coder.tokenizer import ByteTokenizer
from ..data.corpus import Corpus
from ..data.shards import read_manifest
from .configuration import build_recipe, dump_recipe, read_yaml
from .lock import LOCK, locked
from .rank import is_first
from .recipe import Recipe

BUDGET = (
    "minutes",
    "max_steps",
    "threads",
    "timeout_minutes",
    "checkpoint_activations",
)  # what may change from one call of a run to the next
RECIPE = "recipe.yaml"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what a disk says against writing


def say(message: str) -> None:
    """Progress for people, on stderr."""
    print(message, file=sys.stderr, flush=True)


def changed_settings(
    kept: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "", free: Collection[str] = BUDGET
) -> list[str]:
    """Names of the settings that differ, but for those that are free to."""
    changed: list[str] = []
    for name in sorted(set(kept) | set(wanted)):
        a, b = kept.get(name), wanted.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            changed += changed_settings(a, b, f"{prefix}{name}.", free)
        elif a != b and name not in free:
            changed.append(prefix + name)
    return changed


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its final name, on the disk, and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Name the folder where the disk is full, or fails: what writes to an open file does not say which.

    Raises:
        LaconicError: in place of an OSError without a name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in DISK:
            raise
        raise LaconicError(
            f"cannot write into {folder}: {error.strerror}; what is done is kept: make room, and give the "
            "same command again"
        ) from None


def _is_begun(folder: Path) -> bool:
    """Whether a run has made anything but logs of a tokenizer; one that failed before may begin anew."""
    nothing = {folder / name for name in (RECIPE, LOCK, "corpus.json", "tokenizer")}
    made = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".partial")
    return any(nothing.isdisjoint((path, *path.parents)) for path in made)


def _description(corpus: Corpus) -> dict[str, Any]:
    files = [[os.path.abspath(file.path), file.size, file.mtime_ns] for file in corpus.files]
    return {"sources": corpus.sources, "files": files}


@dataclass
class Run:
    """Paths below one folder, and the recipe that made them."""

    folder: Path
    recipe: Recipe

    @property
    def recipe_file(self) -> Path:
        """The recipe, as YAML."""
        return self.folder / RECIPE

    @property
    def tokenizer_file(self) -> Path:
        """The trained tokenizer."""
        return self.folder / "tokenizer.json"

    @property
    def corpus_file(self) -> Path:
        """Which corpus the run is tied to."""
        return self.folder / "corpus.json"

    @property
    def skips_file(self) -> Path:
        """Files of the corpus that were left out, where there are any."""
        return self.folder / "skipped.json"

    @property
    def shards(self) -> Path:
        """Token shards of the corpus, or of a sample of it."""
        return self.folder / "shards"

    @property
    def checkpoint(self) -> Path:
        """The frozen checkpoint."""
        return self.folder / "checkpoint"

    @property
    def start(self) -> Path:
        """A copy of the checkpoint that the run began with, where it adapts one."""
        return self.folder / "start"

    @property
    def replay(self) -> Path:
        """Token shards of old text that was named for replay."""
        return self.folder / "replay"

    @property
    def replay_file(self) -> Path:
        """Which old text the run is tied to, where it adapts a checkpoint."""
        return self.folder / "replay.json"

    @property
    def names_replay(self) -> bool:
        """Whether old text was named, of which `replay` has the shards."""
        return self.replay_file.is_file() and "sources" in (json.loads(self.replay_file.read_text()) or {})

    @property
    def doubt_file(self) -> Path:
        """Why figures of held-out text may be too good, in one line, where they may."""
        return self.folder / "doubt.txt"

    @property
    def report_file(self) -> Path:
        """Figures of the run, as JSON."""
        return self.folder / "report.json"

    def stage(self, name: str) -> Path:
        """Logs and training checkpoints of one stage: tokenizer, teacher or student; counts of n-grams."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def take_tokenizer(self, source: str) -> None:
        """Use the tokenizer of a checkpoint, or of another run, as it is.

        Raises:
            LaconicError: there is neither, or it is damaged.
        """
        path = Path(source) / self.tokenizer_file.name
        if path.is_file() and not (path.parent / CONFIG).is_file():
            tokenizer = ByteTokenizer.load(path)
        else:
            tokenizer = FrozenCheckpoint.load(find(source).path).tokenizer
        self.folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(self.tokenizer_file)

    def tokenizer(self) -> ByteTokenizer:
        """The trained tokenizer.

        Raises:
            LaconicError: it has not been trained.
        """
        if not self.tokenizer_file.is_file():
            raise LaconicError(
                f"{self.folder} has no tokenizer yet: run `laconic tokenizer PATH... -o {self.folder}`"
            )
        return ByteTokenizer.load(self.tokenizer_file)

    @classmethod
    @contextmanager
    def open(cls, folder: Path, recipe: Recipe | None) -> Iterator["Run"]:
        """The run in a folder, for the one command that writes there until the block ends.

        A recipe that is given begins a run, or goes on with that of the same recipe, and is kept there. Where
        processes train together, the first one keeps other commands out, or the one that started them.

        Raises:
            LaconicError: no recipe is given and none is there, the folder holds another recipe's run, or
                another command is writing there.
        """
        if folder.exists() and not folder.is_dir():
            raise LaconicError(f"{folder} is a file: give a folder to hold the run")
        if recipe is None and not (folder / RECIPE).is_file():
            raise LaconicError(
                f"{folder} holds no run: start one with `laconic train` or `laconic tokenizer`"
            )
        with locked(folder) if is_first() else nullcontext():
            run = cls(folder, recipe or build_recipe(read_yaml(folder / RECIPE)))
            if recipe is not None:
                run.check_recipe()
                run.keep_budget("student")
                run.keep_recipe()
            yield run

    def check_recipe(self, free: Collection[str] = BUDGET) -> None:
        """Refuse a folder in which another recipe has made something.

        Args:
            free: settings that may differ.

        Raises:
            LaconicError: it names the others that do.
        """
        if not self.recipe_file.is_file() or not _is_begun(self.folder):
            return
        kept = build_recipe(read_yaml(self.recipe_file))
        if changed := changed_settings(asdict(kept), asdict(self.recipe), free=free):
            raise LaconicError(
                f"{self.folder} holds a run of another recipe ({', '.join(changed)}): choose another folder, "
                "remove it, or give the settings that it was begun with"
            )

    def keep_budget(self, stage: str) -> None:
        """Where a stage is done, go on with the minutes and steps that the run had; others are said."""
        if not (self.recipe_file.is_file() and (self.folder / stage / "final.ckpt").is_file()):
            return
        old, new = build_recipe(read_yaml(self.recipe_file)).training, self.recipe.training
        if (old.minutes, old.max_steps) == (new.minutes, new.max_steps):
            return
        self.recipe = replace(
            self.recipe, training=replace(new, minutes=old.minutes, max_steps=old.max_steps)
        )
        made = [path for path in (self.folder / stage, self.folder / "steps.json") if path.exists()]
        if is_first():
            say(
                f"the {stage} is done, and other minutes or steps change nothing: "
                f"remove {' and '.join(map(str, made))} to train it anew"
            )

    def keep_recipe(self) -> None:
        """Write the recipe into the folder, where it is not there already."""
        path, text = self.recipe_file, dump_recipe(self.recipe)
        if not path.is_file() or path.read_text() != text:
            write_whole(path, text)

    def claim(self, corpus: Corpus) -> None:
        """Tie the run to a corpus: the sources, sizes and times of its files.

        Raises:
            LaconicError: it is tied to another.
        """
        if self._tie(self.corpus_file, _description(corpus), "another corpus", _is_begun(self.folder)):
            self.skips_file.unlink(missing_ok=True)

    def claim_replay(self, old: Corpus | Path | None) -> None:
        """Tie the run to the old text that it replays: a corpus, shards of its start, or none.

        Raises:
            LaconicError: it has begun to learn with another.
        """
        if isinstance(old, Path):
            description = {"sha256": read_manifest(old)["splits"]["train"]["sha256"]}
        else:
            description = None if old is None else _description(old)
        begun = (self.folder / "student").is_dir()
        self._tie(self.replay_file, description, "other old text (--replay)", begun)

    def _tie(self, path: Path, description: Any, other: str, begun: bool) -> bool:
        """Keep what the run is tied to; returns whether that is new. Raises LaconicError where it binds."""
        text = json.dumps(description, indent=1) + "\n"
        if path.is_file() and path.read_text() == text:
            return False
        if path.is_file() and begun:
            raise LaconicError(
                f"{self.folder} was begun with {other}, or its files have changed since: "
                "choose another folder, or remove it"
            )
        write_whole(path, text)
        return True

    def sources(self) -> list[str]:
        """The sources of the corpus that the run is tied to; relative ones as the command was given them.

        Raises:
            LaconicError: it is tied to none.
        """
        if not self.corpus_file.is_file():
            raise LaconicError(
                f"{self.folder} has no corpus yet: run `laconic tokenizer PATH... -o {self.folder}`"
            )
        return json.loads(self.corpus_file.read_text())["sources"]

    def skips(self) -> dict[str, str]:
        """Files of the corpus that were left out, and why."""
        return json.loads(self.skips_file.read_text()) if self.skips_file.is_file() else {}

    def keep_skips(self, skips: Mapping[str, str]) -> None:
        """Add files that were left out."""
        if skips:
            write_whole(self.skips_file, json.dumps({**self.skips(), **skips}, indent=1) + "\n")
