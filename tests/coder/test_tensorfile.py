import contextlib
import hashlib

import numpy as np
import pytest
from graphs import random_checkpoint, random_config

from laconic.coder.errors import LaconicError
from laconic.coder.segment import DamageError
from laconic.coder.tensorfile import (
    DTYPES,
    MAGIC,
    pack_tensors,
    read_tensors,
    unpack_tensors,
    write_tensors,
)


def tensors():
    random = np.random.default_rng(0)
    made = {}
    for dtype in DTYPES:
        limits = np.iinfo(dtype)
        made[dtype] = random.integers(limits.min, limits.max, (3, 5), dtype=dtype, endpoint=True)
        made[f"{dtype}.few"] = random.integers(0, 3, 4000, dtype=dtype)
    made["empty"], made["scalar"] = np.zeros((0, 4), np.int32), np.array(7, np.int32)
    made["text"] = np.frombuffer(b"what repeats is stored by LZMA; " * 40, np.uint8)
    made["one"], made["zeros"] = np.array([9], np.uint8), np.zeros(10_000, np.int8)
    made["gauss"] = np.clip(random.normal(size=(64, 64)) * 5, -127, 127).astype(np.int8)
    return made


def same(a, b):
    return set(a) == set(b) and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and np.array_equal(a[k], b[k]) for k in a
    )


def test_tensors_come_back(tmp_path):
    write_tensors(tmp_path / "model.lacw", tensors())
    assert same(read_tensors(tmp_path / "model.lacw"), tensors())
    assert same(unpack_tensors(pack_tensors({})), {})


def test_memory_order_and_byte_order_do_not_matter():
    x = np.arange(12, dtype=np.int32).reshape(3, 4)
    swapped = x.astype(">i4")
    assert pack_tensors({"x": np.asfortranarray(x)}) == pack_tensors({"x": x}) == pack_tensors({"x": swapped})


def test_weights_take_little_more_than_their_entropy():
    q = np.clip(np.rint(np.random.default_rng(1).normal(size=(256, 256)) * 5), -15, 15).astype(np.int8)
    counts = np.bincount(q.ravel() + 15)
    shares = counts[counts > 0] / q.size
    bound = -(shares * np.log2(shares)).sum() * q.size / 8
    assert bound < len(pack_tensors({"q": q})) < 1.005 * bound + 100


def signed(content):
    return content + hashlib.blake2b(content, digest_size=8).digest()


def test_every_cut_and_every_flip_is_noticed():
    blob = pack_tensors({k: v for k, v in tensors().items() if v.nbytes < 5000})
    random = np.random.default_rng(0)
    for end in range(0, len(blob), 7):
        with pytest.raises(DamageError):
            unpack_tensors(blob[:end])
        damaged = bytearray(blob)
        damaged[end] ^= 1 << int(random.integers(8))
        with pytest.raises(DamageError):
            unpack_tensors(bytes(damaged))
    for wrong in (blob + b"\0", signed(blob[:-8] + b"\0")):
        with pytest.raises(DamageError):
            unpack_tensors(wrong)


def test_what_is_damaged_and_signed_is_damage_or_other_values():
    content = pack_tensors({k: v for k, v in tensors().items() if v.nbytes < 5000})[:-8]
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        with contextlib.suppress(DamageError):  # and nothing else
            unpack_tensors(signed(bytes(damaged)))


def test_what_claims_too_much_is_refused_before_memory_is_taken():
    head = MAGIC + b"\x01\x01x\x03\x02"  # one tensor x, int32, two dimensions
    huge = b"\x80\x80\x80\x40"  # 2^27
    with pytest.raises(DamageError, match="claim more"):
        unpack_tensors(signed(head + huge + huge))
    none = MAGIC + b"\x01\x01x\x03\x04" + b"\0" + huge * 3 + b"\0\0" * 4  # and one without elements
    with pytest.raises(DamageError, match="claim more"):
        unpack_tensors(signed(none))


def test_a_file_that_is_none_names_the_remedy(tmp_path):
    path = tmp_path / "model.lacw"
    for content in (b"", signed(b"LACW\x02\x00"), b"nonsense" * 10):
        path.write_bytes(content)
        with pytest.raises(LaconicError, match="get a good copy of the checkpoint, or export it again"):
            read_tensors(path)


def test_a_checkpoint_is_smaller_than_its_integers(tmp_path):
    checkpoint = random_checkpoint(random_config())
    checkpoint.save(tmp_path / "frozen")
    assert (tmp_path / "frozen" / "model.lacw").stat().st_size < sum(
        t.nbytes for t in checkpoint.tensors.values()
    )
