"""A run folder: where each stage of a run puts what it makes."""

from dataclasses import dataclass
from pathlib import Path

from ..coder.errors import LaconicError
from ..coder.tokenizer import ByteTokenizer
from .configuration import build_recipe, dump_recipe, read_yaml
from .recipe import Recipe


@dataclass
class Run:
    """Paths below one folder, and the recipe that made them."""

    folder: Path
    recipe: Recipe

    @property
    def tokenizer_file(self) -> Path:
        """The trained tokenizer."""
        return self.folder / "tokenizer.json"

    @property
    def shards(self) -> Path:
        """Token shards of the corpus."""
        return self.folder / "shards"

    @property
    def checkpoint(self) -> Path:
        """The frozen checkpoint."""
        return self.folder / "checkpoint"

    @property
    def report_file(self) -> Path:
        """Figures of the run, as JSON."""
        return self.folder / "report.json"

    def stage(self, name: str) -> Path:
        """Logs and training checkpoints of one stage: tokenizer, teacher or student."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

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
    def open(cls, folder: Path, recipe: Recipe | None) -> "Run":
        """The run in a folder, made where it is not; its recipe is kept there.

        Raises:
            LaconicError: no recipe is given and none is there, or the folder holds another recipe's run.
        """
        path = folder / "recipe.yaml"
        if path.is_file():
            kept = build_recipe(read_yaml(path))
            if recipe is not None and (kept.tokenizer, kept.model, kept.teacher) != (
                recipe.tokenizer,
                recipe.model,
                recipe.teacher,
            ):
                raise LaconicError(
                    f"{folder} holds another recipe's run ({kept.name}): choose another folder, or remove it"
                )
            recipe = recipe or kept
        elif recipe is None:
            raise LaconicError(
                f"{folder} holds no run: start one with `laconic train` or `laconic tokenizer`"
            )
        elif folder.exists() and not folder.is_dir():
            raise LaconicError(f"{folder} is a file: give a folder to hold the run")
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(dump_recipe(recipe))
        return cls(folder, recipe)
