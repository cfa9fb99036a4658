"""model.lacw: the integer tensors of a checkpoint, each stored as what is smallest. docs/frozen.md, The file.

A tensor's bytes are taken apart by their place in the integer, and each of these planes is stored as it is,
by rANS with a table of its own, or by LZMA. Nothing is ever unpickled.
"""

import hashlib
import math
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .classical import decode_lzma, encode_lzma
from .entropy.coders import CODERS
from .errors import LaconicError
from .fixedpoint import Array
from .segment import DamageError, Source, pack_varint

MAGIC = b"LACW\x01"  # the last byte is the version
DTYPES = ("uint8", "int8", "uint16", "int32", "int64")
PLAIN, RANS, LZMA = range(3)  # how a plane is stored
MAX_TENSORS, MAX_NAME, MAX_DIMENSIONS = 1 << 12, 256, 4
DIGEST = 8  # bytes
MAX_BYTES = 1 << 28  # of all tensors of a file

Plane = npt.NDArray[np.uint8]


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Array]) -> None:
    """Write tensors of the DTYPES, in order of their names."""
    Path(path).write_bytes(pack_tensors(tensors))


def pack_tensors(tensors: Mapping[str, Array]) -> bytes:
    """The content of the file."""
    parts = [MAGIC, pack_varint(len(tensors))]
    for name in sorted(tensors):
        tensor = tensors[name]
        encoded = name.encode()
        parts += [pack_varint(len(encoded)), encoded, bytes([DTYPES.index(tensor.dtype.name), tensor.ndim])]
        parts += [pack_varint(size) for size in tensor.shape]
        for plane in _planes(tensor):
            method, payload = _smallest(plane)
            parts += [bytes([method]), pack_varint(len(payload)), payload]
    content = b"".join(parts)
    return content + _digest(content)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()


def _planes(tensor: Array) -> Array:
    """uint8 [bytes an integer, integers], the lowest byte first."""
    little = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<"))
    return little.reshape(-1, 1).view(np.uint8).T if tensor.size else np.zeros((tensor.itemsize, 0), np.uint8)


def _smallest(plane: Plane) -> tuple[int, bytes]:
    ways = {PLAIN: plane.tobytes()}
    if plane.size:
        ways[RANS] = CODERS["rans"].encode(plane.astype(np.int32), 256).blob
        ways[LZMA] = encode_lzma(plane.tobytes())
    return min(ways.items(), key=lambda way: (len(way[1]), way[0]))


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The tensors of a file.

    Raises:
        LaconicError: it is damaged, of another version, or claims more than MAX_BYTES.
    """
    try:
        return unpack_tensors(Path(path).read_bytes())
    except DamageError:
        raise LaconicError(
            f"{path} is damaged, or of another version: get a good copy of the checkpoint, or export it again"
        ) from None


def unpack_tensors(data: bytes) -> dict[str, Array]:
    """The inverse of `pack_tensors`.

    Raises:
        DamageError: no writer writes this.
    """
    content = data[:-DIGEST]
    if _digest(content) != data[len(content) :]:
        raise DamageError("it is not what its digest says")
    source = Source(BytesIO(content))
    if source.exactly(len(MAGIC)) != MAGIC:
        raise DamageError("it does not begin as this version of the format does")
    tensors: dict[str, Array] = {}
    total = 0
    for _ in range(source.varint(0, MAX_TENSORS, "the number of tensors")):
        name = source.exactly(source.varint(1, MAX_NAME, "the length of a name")).decode("utf-8", "replace")
        number, dimensions = source.exactly(2)
        if number >= len(DTYPES) or dimensions > MAX_DIMENSIONS or (tensors and name <= max(tensors)):
            raise DamageError(f"tensor {name!r} has an unknown type, too many dimensions, or is out of order")
        dtype = np.dtype(DTYPES[number])
        shape = [source.varint(0, MAX_BYTES, "a dimension") for _ in range(dimensions)]
        count = math.prod(shape)
        total += math.prod(max(size, 1) for size in shape) * dtype.itemsize
        if total > MAX_BYTES:
            raise DamageError(f"its tensors claim more than {MAX_BYTES:,} bytes")
        planes = [_read_plane(source, count) for _ in range(dtype.itemsize)]
        little = np.stack(planes, axis=1).reshape(-1).view(dtype.newbyteorder("<"))
        tensors[name] = little.astype(dtype).reshape(shape)
    if source.position != len(content):
        raise DamageError(f"{len(content) - source.position} bytes follow the last tensor")
    return tensors


def _read_plane(source: Source, count: int) -> Plane:
    (method,) = source.exactly(1)
    payload = source.exactly(source.varint(0, MAX_BYTES, "the length of a plane"))
    if method == PLAIN and len(payload) == count:
        return np.frombuffer(payload, dtype=np.uint8)
    if method == RANS and count:
        return CODERS["rans"].decode(payload, count, 256).astype(np.uint8)
    if method == LZMA and count:
        return np.frombuffer(decode_lzma(payload, count), dtype=np.uint8)
    raise DamageError(f"a plane of {count} bytes is stored in an unknown way, {method}, or is too short")
