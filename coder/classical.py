"""Segments by LZMA, for what no model or expert shortens faster or further."""

import lzma
from typing import Any

from .report import Report
from .segment import DamageError

PIECE = 1 << 16  # bytes given to the encoder between two reports


def encode_lzma(data: bytes, report: Report | None = None) -> bytes:
    """`report` is told now and then that nothing is done yet: LZMA is the first of several methods."""
    encoder = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=_filters(len(data)))
    pieces: list[bytes] = []
    for begin in range(0, len(data), PIECE):
        if report is not None:
            report(0.0)
        pieces.append(encoder.compress(data[begin : begin + PIECE]))
    return b"".join([*pieces, encoder.flush()])


def _filters(original_length: int) -> list[dict[str, Any]]:
    """LZMA1 without a container: these parameters are part of the format."""
    dictionary = max(4096, original_length)
    preset = 9 | lzma.PRESET_EXTREME
    return [{"id": lzma.FILTER_LZMA1, "preset": preset, "dict_size": dictionary, "lc": 3, "lp": 0, "pb": 0}]


def decode_lzma(payload: bytes, original_length: int) -> bytes:
    """Raises DamageError where the payload is not what an encoder writes."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(original_length))
    try:
        data = decoder.decompress(payload, original_length + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise DamageError(f"the LZMA data of a segment is damaged ({error}): get the file again") from None
    if not decoder.eof or decoder.unused_data or len(data) != original_length:
        raise DamageError("the LZMA data of a segment does not end where it should: get the file again")
    return data
