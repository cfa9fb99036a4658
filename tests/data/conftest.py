import argparse
import json
from pathlib import Path

import pytest

from laconic.data.corpus import Corpus
from laconic.data.shards import build_shards
from laconic.models.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """About 130 KB of Python source."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "argparse.txt").write_bytes(Path(argparse.__file__).read_bytes())
    (folder / "json.txt").write_bytes(Path(json.decoder.__file__).read_bytes() * 2)
    return folder


@pytest.fixture(scope="session")
def tokenizer(text_folder):
    return train_tokenizer([(text_folder / "argparse.txt").read_bytes()], "bpe", 400)


@pytest.fixture(scope="session")
def shard_folder(text_folder, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    build_shards(Corpus([str(text_folder)]), tokenizer, folder, 0.1, 0.05)
    return folder
