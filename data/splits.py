"""Which documents are learnt from: decided by a hash of their content alone."""

import hashlib
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of(document: bytes, validation_share: float = 0.02, test_share: float = 0.02) -> Split:
    """The split of a document: the same wherever and however often it occurs, so that no copy leaks.

    The first 8 bytes of its BLAKE2b hash, as a fraction u of 2^64: u < test_share is test, the next
    validation_share is validation, the rest is train.
    """
    u = int.from_bytes(hashlib.blake2b(document, digest_size=8).digest(), "big") / 2**64
    if u < test_share:
        return "test"
    return "validation" if u < test_share + validation_share else "train"


def is_used(document: bytes, train_share: float) -> bool:
    """Whether a training document is of the share that is learnt from; a smaller one is part of a larger."""
    return train_share >= 1 or split_of(document + b"\0used", 0.0, train_share) == "test"
