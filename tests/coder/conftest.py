"""Golden files, and the fake model."""

import os
from pathlib import Path

import pytest
from fakes import fake_model, know_only


@pytest.fixture
def golden():
    """golden(name, data) compares with tests/coder/golden/NAME.hex; LACONIC_REGENERATE=1 rewrites that."""

    def compare(name: str, data: bytes) -> None:
        path = Path(__file__).parent / "golden" / f"{name}.hex"
        text = "\n".join(data.hex()[i : i + 96] for i in range(0, len(data) * 2, 96)) + "\n"
        if os.environ.get("LACONIC_REGENERATE") == "1":
            path.write_text(text)
        assert path.read_text() == text, f"the coded bytes of {name} have changed: that breaks every old file"

    return compare


@pytest.fixture
def model():
    return fake_model()


@pytest.fixture
def known(model, tmp_path, monkeypatch):
    know_only(model, tmp_path / "known", monkeypatch)
    return tmp_path / "known"
