"""The classical codecs that every measurement stands beside, each as bytes in and bytes out.

Settings are the strongest that each tool's own command line documents for everyday use, and zstd's strongest
of all beside them. What the container of each adds is counted; PPMd's raw stream has no end, so its length
is stored in front. Libraries work in this process, `programs` in processes of their own.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ..coder.errors import LaconicError
from .programs import PROGRAMS, Program, ProgramMissing

PPMD_ORDER = 6
PPMD_MEMORY = 64 << 20  # bytes
LENGTH_BYTES = 8
BROTLI_WINDOW_BITS = 24


@dataclass(frozen=True)
class Codec:
    """A codec under measurement.

    Attributes:
        name: the heading of its column.
        version: of the library that does the work.
        compress: bytes -> bytes.
        decompress: the inverse.
        methods: what the bytes of a file were coded by: a blob -> {name: bytes of the original}; None where
            a codec has one method.
        prepare: what happens once on a machine, such as compilation, and belongs to no timing.
        external: it is a program, whose start is in every timing and whose memory is not ours.
        level: of laconic; None for its peers.
    """

    name: str
    version: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]
    methods: Callable[[bytes], dict[str, int]] | None = None
    prepare: Callable[[], None] | None = None
    external: bool = False
    level: int | None = None


def gzip_codec() -> Codec:
    """DEFLATE at level 9, as gzip -9 writes it (RFC 1952, no file name stored)."""
    import gzip
    import zlib

    return Codec(
        "gzip -9",
        f"zlib {zlib.ZLIB_RUNTIME_VERSION}",
        lambda data: gzip.compress(data, 9, mtime=0),
        gzip.decompress,
    )


def bzip2_codec() -> Codec:
    """Burrows-Wheeler in blocks of 900 kB, as bzip2 -9."""
    import bz2

    return Codec(
        "bzip2 -9",
        f"libbz2 of {_python()}",
        lambda data: bz2.compress(data, 9),
        lambda blob: bz2.decompress(blob),
    )


def xz_codec() -> Codec:
    """LZMA2 as xz -9e: a dictionary of 64 MiB, CRC64."""
    import lzma

    preset = 9 | lzma.PRESET_EXTREME
    return Codec(
        "xz -9e",
        f"liblzma of {_python()}",
        lambda data: lzma.compress(data, preset=preset),
        lambda blob: lzma.decompress(blob),
    )


def zstd_codec() -> Codec:
    """zstd -19, one thread, content size stored."""
    import zstandard

    version = ".".join(str(part) for part in zstandard.ZSTD_VERSION)
    return Codec(
        "zstd -19",
        f"libzstd {version}",
        lambda data: zstandard.ZstdCompressor(level=19).compress(data),
        lambda blob: zstandard.ZstdDecompressor().decompress(blob),
    )


def zstd_ultra_codec() -> Codec:
    """zstd --ultra -22 --long=N, one thread, content size stored; N bits of window cover up to 2 GiB."""
    import zstandard

    def compress(data: bytes) -> bytes:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            22, source_size=len(data), window_log=covering_window_log(len(data))
        )
        return zstandard.ZstdCompressor(compression_params=parameters).compress(data)

    return replace(zstd_codec(), name="zstd -22", compress=compress)


def covering_window_log(length: int) -> int:
    """Binary logarithm of zstd's smallest window that covers `length` bytes, or of its largest."""
    import zstandard

    return min(max(zstandard.WINDOWLOG_MIN, (length - 1).bit_length()), zstandard.WINDOWLOG_MAX)


def brotli_codec() -> Codec:
    """brotli -q 11 with a window of 16 MiB; its dictionary of English and HTML is part of the format."""
    import brotli

    return Codec(
        "brotli -11",
        f"brotli {brotli.__version__}",
        lambda data: brotli.compress(data, quality=11, lgwin=BROTLI_WINDOW_BITS),
        brotli.decompress,
    )


def ppmd_codec() -> Codec:
    """PPMd variant H (7z's PPMd method), order 6, 64 MiB of model memory."""
    import pyppmd

    def compress(data: bytes) -> bytes:
        encoder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
        return len(data).to_bytes(LENGTH_BYTES, "little") + encoder.encode(data) + encoder.flush()

    def decompress(blob: bytes) -> bytes:
        length = int.from_bytes(blob[:LENGTH_BYTES], "little")
        return (
            pyppmd.Ppmd7Decoder(PPMD_ORDER, PPMD_MEMORY).decode(blob[LENGTH_BYTES:], length)
            if length
            else b""
        )

    return Codec("PPMd o6", f"pyppmd {pyppmd.__version__}", compress, decompress)


def program_codec(program: Program) -> Codec:
    """A program on PATH.

    Raises:
        ProgramMissing: it is not there.
        LaconicError: it is there and cannot be run.
    """
    path = program.find()
    return Codec(
        program.heading,
        program.version(path),
        partial(program.pack, path),
        partial(program.unpack, path),
        external=True,
    )


PEERS: dict[str, Callable[[], Codec]] = {
    "gzip": gzip_codec,
    "bzip2": bzip2_codec,
    "xz": xz_codec,
    "zstd": zstd_codec,
    "zstd22": zstd_ultra_codec,
    "brotli": brotli_codec,
    "ppmd": ppmd_codec,
    **{program.name: partial(program_codec, program) for program in PROGRAMS},
}


def select_peers(selection: str) -> tuple[list[Codec], list[str]]:
    """The peers that a command line names.

    Args:
        selection: "all", "none", or names of PEERS with commas between them.

    Returns:
        (codecs, left_out): the peers that are here, and a line about each that is not installed.

    Raises:
        LaconicError: a name that is not among PEERS, or a program that cannot be run.
    """
    names = list(PEERS) if selection == "all" else [] if selection == "none" else selection.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise LaconicError(
            f"--peers {selection}: no peer is called {', '.join(map(repr, unknown))}; "
            f"give all, none, or some of {','.join(PEERS)}"
        )
    codecs: list[Codec] = []
    left_out: list[str] = []
    for name in names:
        try:
            codecs.append(PEERS[name]())
        except ImportError as error:
            left_out.append(
                f"{name}: left out, {error.name or name} is not installed (pip install 'laconic[bench]')"
            )
        except ProgramMissing as error:
            left_out.append(f"{name}: left out, {error}")
    return codecs, left_out


def _python() -> str:
    return f"Python {platform.python_version()}"
