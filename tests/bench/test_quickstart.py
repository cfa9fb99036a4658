import hashlib
import json

import pytest

from laconic import quickstart
from laconic.bench.peers import select_peers
from laconic.cli import main
from laconic.coder.errors import LaconicError
from laconic.quickstart import Split, lay_out, split_library


@pytest.fixture
def library(tmp_path, monkeypatch):
    """200 modules of 20 kB, and what must be left out."""
    monkeypatch.setattr(quickstart, "HELD_OUT_BYTES", 100_000)
    root = tmp_path / "library"
    (root / "package").mkdir(parents=True)
    for number in range(200):
        folder = root / "package" if number % 2 else root
        (folder / f"m{number}.py").write_text(f"x = {number}\n" * (20_000 // len(f"x = {number}\n")))
    (root / "copy.py").write_bytes((root / "m0.py").read_bytes())
    (root / "large.py").write_bytes(b"# large\n" * 30_000)
    (root / "data.txt").write_text("no source")
    for left_out in ("site-packages", "test", "encodings"):
        (root / left_out).mkdir()
        (root / left_out / "m.py").write_text(f"left = '{left_out}'\n")
    return root


def contents(split: Split, part) -> set[str]:
    return {hashlib.sha256((split.root / module).read_bytes()).hexdigest() for module in part}


def test_the_parts_share_no_content(library):
    split = split_library(library)
    assert not contents(split, split.training) & contents(split, split.held_out)
    assert len(split.training) + len(split.held_out) == 201
    assert 100_000 <= split.size(split.held_out) < 120_000
    parts = {module.as_posix() for module in [*split.training, *split.held_out]}
    assert "large.py" in {module.as_posix() for module in split.training}
    assert not any(path.startswith(("site-packages", "test", "encodings")) for path in parts)
    assert len({"copy.py", "m0.py"} & parts) == 1


def test_the_split_follows_content_not_names(library):
    before = split_library(library)
    wanted = contents(before, before.held_out)
    for number, path in enumerate(sorted(library.rglob("m*.py"))):
        if path.parent.name in ("library", "package"):
            path.rename(path.with_name(f"renamed{number}.py"))
    after = split_library(library)
    assert contents(after, after.held_out) == wanted


def test_too_little_source_is_an_error(tmp_path):
    (tmp_path / "a.py").write_text("a = 1\n")
    with pytest.raises(LaconicError, match="6 bytes of Python source, 2,000,000 are needed"):
        split_library(tmp_path)


def test_the_layout_is_made_once_and_belongs_to_one_library(library, tmp_path):
    split, out = split_library(library), tmp_path / "runs" / "quick"
    lay_out(split, out)
    for folder, part in (("corpus", split.training), ("held-out", split.held_out)):
        found = sorted(path.relative_to(out / folder) for path in (out / folder).rglob("*.py"))
        assert found == sorted(part)
    lay_out(split, out)
    with pytest.raises(LaconicError, match="another Python"):
        lay_out(Split(library, split.training[1:], split.held_out), out)
    for damage in (b'{"python": ', b"\xff"):
        (out / "split.json").write_bytes(damage)
        with pytest.raises(
            LaconicError, match=r"split\.json is damaged: remove .*, or choose another folder"
        ):
            lay_out(split, out)


def test_its_peers_do_not_depend_on_the_machine(monkeypatch):
    monkeypatch.setenv("PATH", "")
    codecs, left_out = select_peers(quickstart.PEERS)
    assert len(codecs) == 6
    assert not left_out


def test_a_folder_with_something_else_is_left_alone(library, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "letter").write_text("dear")
    with pytest.raises(LaconicError, match="no quickstart's folder"):
        lay_out(split_library(library), out)
    assert [path.name for path in out.iterdir()] == ["letter"]
    assert not (tmp_path / "mine.partial").exists()


@pytest.mark.slow
def test_all_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quickstart, "HELD_OUT_BYTES", 150_000)
    out = tmp_path / "quick"
    assert main(["quickstart", "-o", str(out), "--minutes", "4"]) == 0  # other tests run beside it
    text = capsys.readouterr().out
    assert "seen before  no, held out by the hash of its content" in text
    assert "break-even   " in text
    figures = json.loads((out / "held-out.json").read_text())
    assert [codec["codec"] for codec in figures["codecs"]][:2] == ["laconic", "gzip -9"]
    assert not figures["left_out"]
    ours, peers = figures["codecs"][0], figures["codecs"][1:]
    assert ours["bits_per_byte"] < 1.02 * min(p["bits_per_byte"] for p in peers if p["codec"] == "xz -9e")
    for picture in ("bits-per-byte.png", "loss.png"):
        assert (out / picture).read_bytes()[1:4] == b"PNG"
    assert main(["bench", "-m", str(out / "run" / "checkpoint"), "--peers", "xz", __file__]) == 0
