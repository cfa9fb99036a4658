"""laconic models: what is here, what is damaged, and what a name means."""

import pytest
from graphs import random_checkpoint, random_config

from laconic.cli import main
from laconic.coder import registry


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A checkpoint called default among those that ship, and the environment listing the folder `mine`."""
    monkeypatch.setattr(registry, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path / "mine"))
    return save(tmp_path / "shipped" / "default")


def save(folder, seed=0):
    checkpoint = random_checkpoint(random_config(), seed)
    checkpoint.summary = {"validation": {"coded": {"bits_per_byte": 1.5}}}
    checkpoint.save(folder)
    return folder


def damage(folder):
    content = bytearray((folder / "model.lacw").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.lacw").write_bytes(content)


def models(capsys):
    """(the rows as (name, state, folder), the notes beneath them)"""
    assert main(["models"]) == 0
    table, _, notes = capsys.readouterr().out.partition("\n\n")
    rows = [line.split() for line in table.splitlines()[1:]]
    return [(row[0], row[4], row[5]) for row in rows], notes.splitlines()


def test_sound(shipped, capsys):
    assert models(capsys) == ([("default", "sound", str(shipped))], [])
    assert main(["models"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    identity = random_checkpoint(random_config()).id.hex()[:16]
    size = sum((shipped / name).stat().st_size for name in ("model.lacw", "config.json", "tokenizer.json.xz"))
    assert row.split()[1:4] == [identity, f"{size:,}", "1.500"]


def test_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv(registry.VARIABLE, "")
    assert main(["models"]) == 0
    assert "no checkpoints" in capsys.readouterr().out


def test_damaged(shipped, tmp_path, capsys):
    flipped, cut = save(tmp_path / "mine" / "flipped", 1), save(tmp_path / "mine" / "short", 2)
    damage(flipped)
    (cut / "model.lacw").write_bytes((cut / "model.lacw").read_bytes()[:-9])
    rows, notes = models(capsys)
    assert [row[:2] for row in rows] == [("flipped", "damaged"), ("short", "damaged"), ("default", "sound")]
    assert notes[0].startswith(
        f"damaged: {flipped}/model.lacw is damaged, or of another version: get a good copy"
    )
    assert notes[1].startswith(f"damaged: {cut}/model.lacw is damaged, or")
    assert len(notes) == 2


def test_a_folder_called_default_takes_the_place_of_the_shipped_one(shipped, tmp_path, capsys):
    mine = save(tmp_path / "mine" / "default", 1)
    rows, notes = models(capsys)
    assert rows == [("default", "sound", str(mine)), ("default", "hidden", str(shipped))]
    assert notes == [f"hidden: default means {mine}; take {shipped} by this path or by its id"]
    assert registry.find("default").path == mine


def test_a_damaged_copy_hides_nothing(shipped, tmp_path, capsys):
    mine = save(tmp_path / "mine" / "default")
    damage(mine)
    rows, notes = models(capsys)
    assert rows == [("default", "damaged", str(mine)), ("default", "sound", str(shipped))]
    assert len(notes) == 1
    assert registry.find("default").path == shipped


def test_where_no_folder_is_called_default_that_is_one_of_those_that_ship(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path / "mine"))
    (meant,) = registry.ALIASES["default"]
    shipped = save(tmp_path / "shipped" / meant)
    assert models(capsys) == ([(meant, "sound", str(shipped))], [f"default means {meant}"])
    assert registry.find("default").path == shipped
    mine = save(tmp_path / "mine" / "default", 1)
    assert registry.find("default").path == mine
    assert not any(note.startswith("default means") for note in models(capsys)[1])


def test_what_other_names_mean_ships():
    for names in registry.ALIASES.values():
        assert all((registry.SHIPPED / name / "config.json").is_file() for name in names)
