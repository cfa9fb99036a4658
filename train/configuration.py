"""Recipes from YAML and command line: typed by jsonargparse, with all faults reported at once."""

import contextlib
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from ..coder.errors import LaconicError
from .recipe import Recipe

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
DOMAINS = CONFIGS / "domains"

IN_WORDS = {
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "list": "a list, such as [A, B]",
    "NoneType": "null",
    "str": "text",
}


@cache
def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, "recipe")
    return parser


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of them, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def recipe_names(folder: Path = CONFIGS) -> list[str]:
    """The recipes that ship with the package: whole ones, or those of DOMAINS, which change a tier's."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_config(config: str | None) -> dict[str, Any]:
    """The settings of `--config`: the name of a domain, or a file; none for None. Raises LaconicError.

    The name goes first, for a corpus may be called like what it is of: ./NAME means the file.
    """
    if config is None:
        return {}
    if config in recipe_names(DOMAINS):
        return read_yaml(DOMAINS / f"{config}.yaml")
    return read_yaml(Path(config))


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a file, keys joined by dots.

    Raises:
        LaconicError: it is missing, no YAML, or no mapping.
    """
    parsed = _parsed(path, f"; settings of domains are {', '.join(recipe_names(DOMAINS))}") or {}
    if not isinstance(parsed, dict):
        raise LaconicError(f"{path} must hold settings such as `training: {{minutes: 5}}`")
    return flatten(parsed)


def read_mappings(path: Path) -> list[dict[str, Any]]:
    """The settings that a file lists.

    Raises:
        LaconicError: it is missing, no YAML, or no list of mappings.
    """
    parsed = _parsed(path)
    if not (isinstance(parsed, list) and parsed and all(isinstance(entry, dict) for entry in parsed)):
        raise LaconicError(
            f"{path} must list settings, such as `- model: {{num_layers: 4}}`; `- {{}}` changes none"
        )
    return parsed


def _parsed(path: Path, hint: str = "") -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise LaconicError(f"{path}: {error.strerror}{hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise LaconicError(f"{path} is no YAML: {reason}") from None


def read_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """`--training.minutes 5 --model.tied=false` as settings, keys joined by dots."""
    settings: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or (not rest and "=" not in word):
            raise LaconicError(
                f"{word!r} is no setting: write --section.key VALUE, such as --training.minutes 5"
            )
        key, found, value = word[2:].partition("=")
        text = value if found else rest.pop(0)
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            settings[key] = text
        if isinstance(settings[key], str):
            with contextlib.suppress(ValueError):  # YAML 1.1 takes 1e-3 for a string
                settings[key] = float(text)
    return settings


@cache
def _nullable() -> dict[str, bool]:
    """Every setting, and whether null is one of its values."""
    return flatten(_nullable_of(Recipe))


def _nullable_of(section: type[Any]) -> dict[str, Any]:
    kinds: dict[str, Any] = get_type_hints(section)
    return {
        key: _nullable_of(kind)
        if isinstance(kind, type) and is_dataclass(kind)
        else NoneType in get_args(kind)
        for key, kind in kinds.items()
    }


def _fault(key: str, value: Any) -> str | None:
    known = _nullable()
    if key not in known:
        if below := [name for name in known if name.startswith(f"{key}.")]:
            return f"{key} is a section: give settings of it, such as {below[0]}"
        section = f"{key.partition('.')[0]}."
        parts = {name.rpartition(".")[2]: name for name in sorted(known, key=lambda n: n.startswith(section))}
        near = [parts[part] for part in difflib.get_close_matches(key.rpartition(".")[2], parts, n=1)]
        return f"{key} is unknown" + (f", did you mean {near[0]}?" if near else "")
    if value is None and not known[key]:
        return f"{key} is null: give a value, or leave it out"
    reason = _refusal({key: value})
    if reason is None:
        return None
    found: list[tuple[str, str]] = re.findall(
        r"Expected a (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", reason
    )
    kinds: list[str] = [
        f"one of {choices}" if choices else IN_WORDS.get(kind, kind) for kind, choices in found
    ]
    return f"{key} is {value!r}, expected {' or '.join(kinds) or reason[:120]}"


def _refusal(flat: Mapping[str, Any]) -> str | None:
    """What the parser says against settings; None where it takes them."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            _parser().parse_object({"recipe": _nest(flat)})
    except (ArgumentError, TypeError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return nested


def build_recipe(*settings: Mapping[str, Any]) -> Recipe:
    """A recipe from flat settings, later ones winning.

    Raises:
        LaconicError: one line with every unknown key, wrong type and impossible value.
    """
    merged: dict[str, Any] = {}
    for each in settings:
        merged |= each
    known = _nullable()
    sound = all(key in known and (value is not None or known[key]) for key, value in merged.items())
    faults: list[str] = []
    if not sound or _refusal(merged) is not None:  # one by one takes seconds
        faults = [fault for key, value in merged.items() if (fault := _fault(key, value))]
    if not faults:
        parsed = _parser().parse_object({"recipe": _nest(merged)})
        recipe: Recipe = _parser().instantiate(parsed).recipe
        if not (faults := recipe.problems()):
            return recipe
    raise LaconicError("the recipe has faults: " + "; ".join(faults))


def load_recipe(name: str, config: str | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe `name` that ships, changed by `--config`, changed by overrides."""
    return build_recipe(read_yaml(CONFIGS / f"{name}.yaml"), read_config(config), overrides or {})


def dump_recipe(recipe: Recipe) -> str:
    """YAML that `build_recipe(read_yaml(...))` turns into the same recipe."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False)
