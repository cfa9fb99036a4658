import random
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Sixty documents of words from one sentence."""
    folder = tmp_path_factory.mktemp("corpus")
    text = "the code length of a message is what the model did not know about it"
    words = text.split()
    rng = random.Random(0)
    for i in range(60):
        lines = (" ".join(rng.choices(words, k=9)) for _ in range(60))
        (folder / f"{i:02}.txt").write_text("\n".join(lines))
    return folder
