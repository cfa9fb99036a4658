"""Streams of symbols for the entropy coders: real tokens and bytes, and distributions that break coders."""

import argparse
from functools import cache
from pathlib import Path

import numpy as np

from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.registry import SHIPPED

VOCAB = 4096
TEXT = Path(argparse.__file__).read_bytes()  # of the standard library


def bits_of(counts):
    """Bits that the symbols of these counts need by their own frequencies."""
    counts = np.asarray(counts, dtype=np.float64)
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())


@cache
def real_tokens():
    """The text as tokens of a checkpoint that ships, int32 [n]."""
    return FrozenCheckpoint.load(SHIPPED / "english-nano").tokenizer.encode_batch([TEXT])[0]


def of_bytes(data):
    return np.frombuffer(data, dtype=np.uint8).astype(np.int32)


def _drawn(parts, count, seed):
    parts = np.asarray(parts, dtype=np.float64)
    return np.random.default_rng(seed).choice(len(parts), count, p=parts / parts.sum()).astype(np.int32)


def _fibonacci():
    """Counts whose Huffman codes would be 29 bits long."""
    counts = [1, 1]
    while len(counts) < 30:
        counts.append(counts[-1] + counts[-2])
    return np.repeat(np.arange(30, dtype=np.int32), counts)


@cache
def streams():
    """Name -> (symbols, alphabet)."""
    rng = np.random.default_rng(1)
    rare = np.zeros(1 << 20, dtype=np.int32)
    rare[12345] = 1
    rare_in_many = np.full(300_000, 40_000, dtype=np.int32)
    rare_in_many[::100_000] = [0, 65_535, 7]
    return {
        "tokens": (real_tokens(), VOCAB),
        "bytes": (of_bytes(TEXT), 256),
        "few tokens": (real_tokens()[:300], VOCAB),
        "one symbol": (np.full(5000, 3, dtype=np.int32), 8),
        "one symbol of one": (np.zeros(5000, dtype=np.int32), 1),
        "one symbol of many": (np.full(5000, 65_535, dtype=np.int32), 65_536),
        "once": (np.array([2], dtype=np.int32), 4),
        "two, even": (rng.integers(0, 2, 40_000).astype(np.int32), 2),
        "two, one in a million": (rare, 2),
        "four of many, extreme": (rare_in_many, 65_536),
        "all of 65536, once": (rng.permutation(1 << 16).astype(np.int32), 1 << 16),
        "all of 65536, even": (rng.integers(0, 1 << 16, 400_000).astype(np.int32), 1 << 16),
        "65536, by rank": (_drawn(1 / np.arange(1, (1 << 16) + 1), 300_000, 2), 1 << 16),
        "256, halving": (_drawn(2.0 ** -np.arange(256).clip(0, 40), 100_000, 3), 256),
        "fibonacci": (rng.permutation(_fibonacci()), 30),
        "odd ends": (rng.integers(0, 5, 4093).astype(np.int32), 5),
    }


NAMES = tuple(streams())
SMALL = ("few tokens", "once", "odd ends")
