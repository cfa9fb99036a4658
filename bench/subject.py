"""The codec under test, dressed like its peers: bytes in, bytes out, through the package's front door."""

from collections import Counter
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Optional

import numpy as np

from .. import __version__
from ..coder.access import read_header, read_layout
from ..coder.codec import LEVELS
from ..coder.errors import LaconicError
from ..coder.files import compress, decompress, open_model
from ..coder.segment import METHOD_NAMES
from .peers import Codec

if TYPE_CHECKING:
    from ..coder.checkpoint import FrozenCheckpoint
    from ..coder.model import Model


def laconic_codec(model: str, level: int, name: str) -> Codec:
    """laconic with a checkpoint, by name, path or id; "none" is laconic without a model.

    The engine is made ready on first use. Segments are worked on one at a time, as the peers do.

    Args:
        name: the heading of its column.
    """
    opened = cache(lambda: open_model(model))
    return Codec(
        name,
        f"laconic {__version__}",
        lambda data: compress(data, opened(), level=level, threads=1),
        lambda blob: decompress(blob, opened(), threads=1),
        bytes_by_method,
        lambda: compile_kernels(opened()),
        level=level,
    )


def load_checkpoints(model: str) -> list["FrozenCheckpoint"]:
    """The checkpoints that the codec uses; none for "none", several for a name that means several.

    Raises:
        LaconicError: there is no such checkpoint, or it is damaged.
    """
    from ..coder.checkpoint import FrozenCheckpoint
    from ..coder.registry import find_all

    return [] if model == "none" else [FrozenCheckpoint.load(each.path) for each in find_all([model])]


def select_levels(selection: str) -> list[int]:
    """The levels that a command line names: "all", or some with commas between them.

    Raises:
        LaconicError: one that is not a level.
    """
    if selection == "all":
        return list(LEVELS)
    words = selection.split(",")
    unknown = [word for word in words if not word.isdecimal() or int(word) not in LEVELS]
    if unknown:
        raise LaconicError(
            f"--levels {selection}: {', '.join(map(repr, unknown))} is no level; give all, or some of "
            f"{','.join(map(str, LEVELS))}"
        )
    return list(dict.fromkeys(map(int, words)))


def compile_kernels(model: Optional["Model"] = None) -> None:
    """Have numba compile each kernel, or load it from its cache: the first use may not call them all."""
    from ..coder import kernels
    from ..coder.direct import decode_direct, encode_direct
    from ..coder.mixing.coding import decode_experts, decode_mixed, encode_experts, encode_mixed

    logits, targets = np.zeros((1, 1, 2), np.int32), np.zeros((1, 1), np.int32)
    state, out = kernels.encoder_state(), np.zeros(64, np.uint8)
    kernels.encode_tokens(logits, targets, np.ones(1, np.int32), state, out)
    coded = np.frombuffer(out[: kernels.finish_encoding(state, out)].tobytes(), np.uint8)
    kernels.decode_tokens(logits[0], coded, kernels.decoder_state(coded), targets[0])
    kernels.code_lengths(logits[0], targets[0])
    segment = encode_experts(b"laconic" * 9, 2, 100)
    assert segment is not None
    decode_experts(segment, 1 << 30)
    if model is None:
        return
    text = model.checkpoint.token_bytes[0] * 9
    if not model.others:
        segment = encode_direct(text, model, 1, 100, None)
        assert segment is not None
        decode_direct(segment, model, 1 << 40)
    segment = encode_mixed(text, model, 2, 1, 100)
    assert segment is not None
    decode_mixed(segment, model, 1 << 40)


def bytes_by_method(blob: bytes) -> dict[str, int]:
    """Bytes of the original that the segments of a .lac file hold, by the method of the segment."""
    file, found = BytesIO(blob), Counter[str]()
    layout = read_layout(file)
    for entry in layout.entries:
        header, _ = read_header(file, layout, entry)
        found[METHOD_NAMES[header.method]] += entry.original_length
    return dict(found)
