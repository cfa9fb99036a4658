"""The repository keeps its own rules: the README tells the truth, the package is whole, nothing leaks in."""

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml

from laconic.cli import COMMANDS, _take_settings
from laconic.coder.errors import LaconicError
from laconic.train.configuration import build_recipe, read_overrides

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TREE_ENTRY = re.compile(r"^(?P<indent> *)(?P<name>\S+)(?: {2,}(?P<what>\S.*))?$")
LISTED = (".py", ".yaml", ".md")


@pytest.fixture(scope="module")
def files() -> list[PurePosixPath]:
    """What git tracks or would track, relative to the root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = (PurePosixPath(name) for name in listing.stdout.split("\0") if name)
    return sorted({name for name in names if (ROOT / name).is_file()})


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a document that are in a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name == language]


def tree() -> dict[str, str | None]:
    """Path -> what the README's tree says of it; folders end in a slash."""
    (block,) = (block for block in blocks(README) if block.startswith("__init__.py "))
    entries, folders = {}, []
    for line in block.splitlines():
        entry = TREE_ENTRY.match(line)
        assert entry, f"no entry of a tree: {line!r}"
        depth, name = len(entry["indent"]) // 2, entry["name"]
        folders = folders[:depth]
        assert len(folders) == depth, f"{line!r} is indented too far"
        entries["".join(folders) + name] = entry["what"]
        folders.append(name)
    return entries


def test_the_tree_names_every_module_and_folder(files):
    inside = [
        path for path in files if path.parts[0] not in ("tests", "checkpoints") and path.suffix in LISTED
    ]
    modules = {str(path) for path in inside if path.name != "__init__.py" and len(path.parts) > 1}
    modules |= {path.name for path in inside if len(path.parts) == 1 and path.suffix == ".py"}
    folders = {
        f"{path.parts[0]}/" for path in files if len(path.parts) > 1 and not path.parts[0].startswith(".")
    }
    named = set(tree())
    assert modules | folders <= named, f"the README's tree lacks {sorted((modules | folders) - named)}"


def test_the_tree_names_nothing_else():
    for path, what in tree().items():
        assert (ROOT / path).exists(), f"the README's tree names {path}, which is not there"
        assert (ROOT / path).is_dir() == path.endswith("/")
        assert what, f"the README's tree does not say what {path} is"


def commands(text: str) -> list[str]:
    """Commands in a document: lines of its blocks, and what stands in backticks, in tables too."""
    lines = [line for block in blocks(text) for line in block.splitlines() if line.startswith("laconic ")]
    quoted = re.findall(r"`(laconic [^`\n]*)`", text)
    # `laconic train` in the prose names a command, and is not to be run as it stands.
    return lines + [line for line in quoted if len(line.split()) > 2]


def check_command(line: str) -> None:
    """Parse a command as `cli` does, settings included.

    Raises:
        ValueError: there is no such command, argument or setting.
    """
    name, *words = shlex.split(line, comments=True)[1:]
    if name not in COMMANDS:
        raise ValueError(f"there is no command {name!r}")
    module = importlib.import_module(f"laconic.{COMMANDS[name].module}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    settings: list[str] = []
    if getattr(module, "TAKES_SETTINGS", False):
        words, settings = _take_settings(words)
    try:
        parser.parse_args(words)
        build_recipe(read_overrides(settings))
    except (SystemExit, LaconicError) as error:
        raise ValueError(f"{line!r} is refused: {error}") from None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_are_accepted(document):
    text = document.read_text()
    for line in commands(text):
        check_command(line)
    for name in re.findall(r"`laconic ([a-z]+)", text):
        assert name in COMMANDS


def test_documents_have_commands():
    found = {document.name: len(commands(document.read_text())) for document in DOCUMENTS}
    assert found["README.md"] >= 6
    assert found["gpu.md"] >= 1


@pytest.mark.parametrize(
    "line",
    [
        "laconic frobnicate f",
        "laconic compress f --frobnicate",
        "laconic compress f --training.minutes 5",
        "laconic train corpus/",
        "laconic train corpus/ -o out --tier gigantic",
        "laconic train corpus/ -o out --training.no_such_key 5",
        "laconic train corpus/ -o out --training.batch_size=many",
        "laconic train corpus/ -o out --training.batch_size",
    ],
)
def test_wrong_commands_are_found(line):
    table = f"| what | command |\n|---|---|\n| it | `{line}` |\n"
    assert commands(table) == commands(f"```\n{line}\n```\n") == [line]
    with pytest.raises(ValueError, match=r"refused|no command"):
        check_command(line)


def test_the_readme_names_every_command_that_makes_or_reads_files():
    for name in ("train", "compress", "decompress", "cat", "info", "generate", "models", "bench", "eval"):
        assert f"laconic {name} " in README or f"laconic {name}\n" in README


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(README, "python")
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "notes.lac").stat().st_size > 0


def test_make_targets_in_documents_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    assert {"help", "demo", "test", "test-slow", "lint"} <= targets
    for path in (*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / ".ci" / "run"):
        assert set(re.findall(r"^make ([a-z-]+)", path.read_text(), flags=re.MULTILINE)) <= targets


def test_links_in_documents_lead_somewhere():
    for document in (*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


def test_the_package_list_is_that_of_the_folders(files):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in files if path.suffix == ".py" and path.parts[0] != "tests"}
    code = {".".join(("laconic", *folder.parts)) for folder in folders}
    data = set(settings["package-data"])
    assert set(settings["packages"]) == code | data
    for package, patterns in settings["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        found = {path for pattern in patterns for path in folder.glob(pattern)}
        inside = {
            ROOT / path for path in files if folder in (ROOT / path).parents and path.name != ".gitkeep"
        }
        assert inside <= found | set(folder.rglob("*.py")), f"{package} would be shipped without some files"


def test_recipes_are_yaml(files):
    recipes = [path for path in files if path.suffix == ".yaml"]
    assert len([path for path in recipes if path.parts[0] == "configs"]) >= 2
    for path in recipes:
        kind = list if "sweeps" in path.parts else dict
        assert isinstance(yaml.safe_load((ROOT / path).read_text()), kind)


def test_files_stay_short(files):
    for path in files:
        if path.suffix == ".py":
            lines = len((ROOT / path).read_text().splitlines())
            assert lines < 400, f"{path} has {lines} lines: give each idea a file of its own"


def test_nothing_of_one_machine_is_in_the_files(files):
    slash = "/"
    forbidden = [f"{slash}work{slash}", f"{slash}tmp{slash}corp", f"{slash}tmp{slash}lv", f"..{slash}shared"]
    for path in files:
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        found = [word for word in forbidden if word in text]
        assert not found, f"{path} mentions {found}"


def test_the_continuous_integration_calls_all_three():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert re.findall(r"^make (\S+)$", script.read_text(), flags=re.MULTILINE) == [
        "lint",
        "test",
        "test-slow",
    ]
