"""The file of a checkpoint's tensors: safetensors as it is, or packed by xz."""

import lzma
from pathlib import Path

import numpy as np

from .errors import LaconicError
from .fixedpoint import Array

PLAIN, PACKED = "model.safetensors", "model.safetensors.xz"
MOST_BYTES = 1 << 30  # that a packed file may unpack to
_PRESET = 6  # 9 gains nothing before the tensors are larger than its dictionary of 8 MiB


def pack(tensors: dict[str, Array]) -> bytes:
    """What `write_tensors` writes packed."""
    from safetensors.numpy import save  # pyright: ignore[reportUnknownVariableType]

    content = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    return lzma.compress(content, preset=_PRESET)


def write_tensors(path: Path, tensors: dict[str, Array]) -> None:
    """Write PLAIN or PACKED, as the path is called."""
    from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

    if path.name == PACKED:
        path.write_bytes(pack(tensors))
    else:
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, Array]:
    """Read PLAIN or PACKED, as the path is called.

    Raises:
        LaconicError: it is damaged, or unpacks to more than MOST_BYTES.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load, load_file  # pyright: ignore[reportUnknownVariableType]

    try:
        return load(_unpack(path.read_bytes())) if path.name == PACKED else load_file(path)
    except (SafetensorError, lzma.LZMAError, ValueError, KeyError, AttributeError) as error:
        raise LaconicError(
            f"{path} is damaged ({error}): get a good copy of the checkpoint, or export it again"
        ) from None


def _unpack(packed: bytes) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 26)
    content = unpacker.decompress(packed, MOST_BYTES)
    if not unpacker.eof or unpacker.unused_data:
        what = "it goes on after its end" if unpacker.eof else f"it is cut off, or above {MOST_BYTES:,} bytes"
        raise ValueError(what)
    return content
