import pytest
from fakes import predictable

from laconic.cli import main
from laconic.coder.files import compress


@pytest.fixture(autouse=True)
def inside(known, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_recovery_says_that_something_follows_the_end(inside, capsys):
    blob = compress(predictable(6000), "default", segment_size=2000)
    (inside / "two.lac").write_bytes(blob + blob)
    assert main(["decompress", "--recover", "two.lac"]) == 1
    assert (inside / "two").read_bytes() == predictable(6000)
    assert "what is restored is sound; but" in capsys.readouterr().err
    (inside / "one.lac").write_bytes(blob)
    assert main(["decompress", "--recover", "one.lac"]) == 0
    assert capsys.readouterr().err == ""
