"""Golden files, the fake models, and files that they wrote."""

import os
from functools import cache
from pathlib import Path

import pytest
from containers import ORIGINALS, WORDS, write
from fakes import fake_model, know_only, predictable

from laconic.coder.codec import decode_segment
from laconic.coder.container import PREFIX
from laconic.coder.model import ensemble


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
def pair():
    """Two checkpoints of one vocabulary, as one model."""
    return ensemble([fake_model(), fake_model("other", 5)])


@pytest.fixture
def decode(model, pair):
    """Decodes by one model or by two, as many as a file names, whatever their ids; and remembers."""

    @cache
    def decode(segment, checkpoint):
        return decode_segment(segment, model if len(checkpoint or b"") <= PREFIX else pair)

    return decode


@pytest.fixture
def direct(model):
    """A file of many, at level 1."""
    return write(ORIGINALS, model, level=1)


@pytest.fixture
def many(model):
    """A file of many, by models and experts."""
    return write(ORIGINALS, model)


@pytest.fixture
def several(pair):
    """A file of many that names two checkpoints."""
    return write(ORIGINALS, pair)


@pytest.fixture
def single(model):
    """A file of one segment, at level 1."""
    return write([predictable(400)], model, level=1)


@pytest.fixture
def single_mixed(model):
    """A file of one segment, by model and experts."""
    return write([predictable(400)], model)


@pytest.fixture
def single_experts():
    """A file of one segment, by experts alone."""
    return write([ORIGINALS[2]], None)


@pytest.fixture
def many_tokens(model):
    """A file of many, by tables of tokens."""
    return write([WORDS, *ORIGINALS[1:3]], model, entropy="tans")


@pytest.fixture
def single_tokens(model):
    """A file of one segment, by a table of tokens."""
    return write([WORDS], model, entropy="huffman")


@pytest.fixture
def single_bytes():
    """A file of one segment, by a table of bytes."""
    return write([WORDS], None, entropy="rans")


@pytest.fixture
def single_backwards(model):
    """A file of one segment, the model's predictions by rANS."""
    return write([predictable(400)], model, level=1, entropy="rans")


@pytest.fixture
def known(model, tmp_path, monkeypatch):
    know_only(model, tmp_path / "known", monkeypatch)
    return tmp_path / "known"
