"""A checkpoint and an engine that are tiny, exact and instant, and data that they predict well."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from laconic.coder import registry
from laconic.coder.model import Model

LONGER = [b"ab", b"abc", b"\x00\xff", b"end "]
TOKENS = sorted([bytes([b]) for b in range(256)] + LONGER)
VOCAB = len(TOKENS)
IDS = {token: number for number, token in enumerate(TOKENS)}


def follows(previous, last):
    """The id that the engine expects after two ids."""
    return (5 * last + 3 * previous + 1) % VOCAB


class FakeTokenizer:
    """Longest match first."""

    def encode(self, data):
        ids, at = [], 0
        while at < len(data):
            found = next(n for n in (4, 3, 2, 1) if data[at : at + n] in IDS)
            ids.append(IDS[data[at : at + found]])
            at += found
        return np.array(ids, dtype=np.int32)

    def encode_batch(self, batch):
        return [self.encode(data) for data in batch]


@dataclass
class FakeCheckpoint:
    name: str = "fake"
    token_bytes: list = field(default_factory=lambda: list(TOKENS))
    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)
    path: Path | None = None
    prior: None = None
    config: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(
            memory_per_stream=lambda: 28 * VOCAB, macs_per_token=lambda: 1000
        )
    )

    @property
    def id(self):
        return hashlib.sha256(self.name.encode()).digest()


class FakeEngine:
    """Logits from the last two ids of each stream: `bits` for what `follows`, noise for the rest."""

    name = "fake"
    kernel = "none"
    vocab_size = VOCAB

    def __init__(self, bits=12):
        self.bits = bits
        self.tokens_seen = 0

    def start(self, num_streams):
        return np.full((num_streams, 2), VOCAB, dtype=np.int64)

    def advance(self, state, ids):
        assert ids.min() >= 0
        assert ids.max() <= VOCAB
        streams, steps = ids.shape
        state = state[:streams]
        self.tokens_seen += ids.size
        logits = np.empty((streams, steps, VOCAB), dtype=np.int32)
        symbols = np.arange(VOCAB, dtype=np.int64)
        for t in range(steps):
            state[:, 0] = state[:, 1]
            state[:, 1] = ids[:, t]
            mix = state[:, :1] * 7919 + state[:, 1:] * 104729 + symbols * 1299709 + self.bits
            logits[:, t] = (mix ^ (mix >> 7)) % 2048 - 4000
            logits[np.arange(streams), t, follows(state[:, 0], state[:, 1])] = self.bits * 1024
        return logits

    def select(self, state, streams):
        return state[list(streams)].copy()


def predictable(length, seed=0):
    """Bytes that the fake engine predicts but for every eighth token, and that LZMA cannot shorten much."""
    rng = np.random.default_rng(seed)
    previous, last, out = VOCAB, VOCAB, bytearray()
    while len(out) < length:
        token = int(rng.integers(VOCAB)) if rng.random() < 0.125 else follows(previous, last)
        previous, last = last, token
        out += TOKENS[token]
    return bytes(out[:length])


def fake_model(name="fake", bits=12):
    return Model(FakeCheckpoint(name), FakeEngine(bits))


def know_only(model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch, **others: Model) -> None:
    """Make `model` the checkpoint called default, described in `folder`, and the only one that is known.

    `others` are known too, by their names here.
    """
    models = {"default": model, **others}
    for name, known in models.items():
        (folder / name).mkdir(parents=True)
        summary = {"validation": {"coded": {"bits_per_byte": 1.5}}}
        head = {"id": known.checkpoint.id.hex(), "summary": summary}
        (folder / name / "config.json").write_text(json.dumps(head))
    by_id = {known.checkpoint.id: known for known in models.values()}
    monkeypatch.setenv(registry.VARIABLE, str(folder))
    monkeypatch.setattr(registry, "SHIPPED", folder / "nothing")
    monkeypatch.setattr(registry, "fault", lambda listing: None)
    monkeypatch.setattr(registry, "open_model", lambda listing, engine=None, threads=None: by_id[listing.id])
