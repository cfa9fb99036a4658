"""laconic: train language models whose purpose is compression, and compress with them.

compress(data, model="default") -> bytes      decompress(blob) -> bytes      open(path, mode, model="default")
generate(prompt, model="default") -> iterator of bytes
Compressor(model="default").compress_many(records) -> list of bytes, .decompress_many(blobs) -> list of bytes
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .coder.errors import LaconicError

if TYPE_CHECKING:
    from .coder.fileobject import open_file as open
    from .coder.files import compress, decompress
    from .coder.generate import generate
    from .coder.records import Compressor

__all__ = ["Compressor", "LaconicError", "compress", "decompress", "generate", "open"]

_LAZY = {
    "Compressor": ("coder.records", "Compressor"),
    "compress": ("coder.files", "compress"),
    "decompress": ("coder.files", "decompress"),
    "generate": ("coder.generate", "generate"),
    "open": ("coder.fileobject", "open_file"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("laconic")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
