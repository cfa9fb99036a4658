"""Files in the container, for tests: what is in them, and how they are written and read."""

import io

from fakes import predictable

from laconic.coder.codec import encode_segment
from laconic.coder.container import Writer, read_segments, restore
from laconic.coder.segment import Source

ORIGINALS = [predictable(500), b"\x01\x80\xfe" * 2, b"laconic " * 20, predictable(300, seed=5)]
WHOLE = b"".join(ORIGINALS)
WORDS = b" ".join(b"%d bottles" % number for number in range(20))  # what a table shortens


def write(originals, model, level=None, entropy="range"):
    """A file of one segment for each of the originals."""
    streams = 2 if entropy == "range" or level else None
    target = io.BytesIO()
    writer = Writer(target, None if model is None else model.prefixes)
    for data in originals:
        writer.add(encode_segment(data, model, streams, level=level, entropy=entropy), data)
    writer.finish()
    assert writer.bytes_written == len(target.getvalue())
    return target.getvalue()


def stored_in(blob):
    """Its segments as they are stored, verified."""
    return list(read_segments(Source(io.BytesIO(blob))))


def read(blob, decode):
    """The original."""
    return b"".join(restore(stored, decode) for stored in read_segments(Source(io.BytesIO(blob))))
