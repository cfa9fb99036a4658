"""Predictions of a shard's tokens on disk: of each token the k likeliest ids, and the mass of all others.

File: a record a token of the shard, in order, little-endian, of 4 k + 2 bytes (6 k + 2 above 65,536 ids):

    ids          uint16 or uint32 [k], the likeliest first
    log_probs    float16 [k + 1]: natural logarithms of their probabilities, and last that of all other ids

What is being written ends in `.partial`, and goes on where it was cut off.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..coder.errors import LaconicError
from .tokenshard import item_size

LEAST_LOG = -30.0  # that float16 holds instead of the logarithm of nothing
ROUNDING = 0.02  # by which probabilities may miss a sum of 1 after float16


def record_type(vocab_size: int, top_k: int) -> np.dtype:
    """The record of a token."""
    return np.dtype([("ids", f"<u{item_size(vocab_size)}", (top_k,)), ("log_probs", "<f2", (top_k + 1,))])


@dataclass(frozen=True)
class Predictions:
    """Those of one shard, memory-mapped: records [num_tokens]."""

    path: Path
    records: NDArray
    vocab_size: int

    @classmethod
    def open(cls, path: Path, vocab_size: int, top_k: int, num_tokens: int) -> "Predictions":
        """Map them.

        Raises:
            LaconicError: the file is not there, or is not of that many tokens.
        """
        record = record_type(vocab_size, top_k)
        wanted = record.itemsize * num_tokens
        if not path.is_file() or path.stat().st_size != wanted:
            raise LaconicError(f"{path} is not there, or has not {wanted:,} bytes: remove it to make it anew")
        return cls(path, np.memmap(path, record, "r"), vocab_size)

    def at(self, starts: NDArray[np.int64], seq_len: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Of T = seq_len tokens from each of B starts on: ids [B, T, k], log-probabilities [B, T, k + 1].

        Raises:
            LaconicError: these are no distributions over the vocabulary, so that the file is damaged.
        """
        rows = np.stack([self.records[start : start + seq_len] for start in starts.tolist()])
        ids, log_probs = rows["ids"].astype(np.int64), rows["log_probs"].astype(np.float32)
        if ids.max() >= self.vocab_size or not np.allclose(np.exp(log_probs).sum(-1), 1, atol=ROUNDING):
            raise LaconicError(f"{self.path} is damaged: remove it to make it anew")
        return ids, log_probs


def write_predictions(
    path: Path,
    vocab_size: int,
    top_k: int,
    num_tokens: int,
    stretch: int,
    predict: Callable[[int, int], tuple[NDArray, NDArray]],
) -> None:
    """Write the file, or what an earlier call left of it to do.

    Args:
        stretch: tokens that are predicted and written at a time.
        predict: from (begin, end) to ids [end - begin, k] and log-probabilities [end - begin, k + 1].

    Raises:
        LaconicError: the file cannot be written.
    """
    from tqdm import tqdm

    record, partial = record_type(vocab_size, top_k), path.with_name(path.name + ".partial")
    try:
        with open(partial, "ab") as file:
            done = file.tell() // record.itemsize // stretch * stretch
            file.truncate(done * record.itemsize)
            bar = tqdm(total=num_tokens, initial=done, unit=" tokens", unit_scale=True, desc="teachers",
                       leave=False, disable=not sys.stderr.isatty())  # fmt: skip
            for begin in range(done, num_tokens, stretch):
                end = min(begin + stretch, num_tokens)
                records = np.empty(end - begin, record)
                records["ids"], log_probs = predict(begin, end)
                records["log_probs"] = np.maximum(log_probs, LEAST_LOG)
                file.write(records.tobytes())
                bar.update(end - begin)
            bar.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise LaconicError(
            f"cannot write {record.itemsize * num_tokens:,} bytes of predictions to {path} "
            f"({error.strerror}): make room, or set distillation.top_k lower, or to 0"
        ) from None
