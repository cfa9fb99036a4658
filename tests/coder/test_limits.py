"""What a decoder refuses before it takes memory or time."""

import pytest
from fakes import VOCAB, fake_model

from laconic.coder.codec import decode_segment
from laconic.coder.errors import LaconicError
from laconic.coder.files import decompress
from laconic.coder.graph import PRIOR_SHAPES
from laconic.coder.limits import MEMORY_LIMIT, check_memory_limit
from laconic.coder.mixing import layout, prior
from laconic.coder.segment import EXPERTS, MAX_SEGMENT, MIXED, MODEL, DamageError, Segment


@pytest.mark.parametrize(
    "segment",
    [
        Segment(MIXED, MAX_SEGMENT, bytes(20), MAX_SEGMENT, 4096, 0x9B),
        Segment(MIXED, MAX_SEGMENT, bytes(20), MAX_SEGMENT, 1, 0x2C),
        Segment(MIXED, 1 << 24, bytes(20), (8 * 20 + 56) * 45427 + 1, 1, 0x20),
        Segment(EXPERTS, MAX_SEGMENT, bytes(20), profile=0x7B),
        Segment(EXPERTS, 1 << 22, bytes(20), profile=0x20),
    ],
)
def test_what_a_short_payload_cannot_hold_is_refused_at_once(segment):
    with pytest.raises(DamageError, match="cannot hold"):
        decode_segment(segment, fake_model(), memory=1 << 40)


def test_predictions_count_as_memory():
    for method, profile in ((MODEL, 0), (MIXED, 0x20)):
        segment = Segment(method, 1 << 20, bytes(1000), 4096, 4096, profile)
        with pytest.raises(LaconicError, match="raise --memory"):
            decode_segment(segment, fake_model(), memory=4096 * VOCAB * 28)


def test_a_limit_is_a_number_above_zero():
    assert check_memory_limit(None) == MEMORY_LIMIT
    for wrong in (0, -1, "1G", 1.5, True):
        with pytest.raises(LaconicError, match="above 0"):
            check_memory_limit(wrong)
    with pytest.raises(LaconicError, match="above 0"):
        decompress(b"", memory=0)


def test_damage_is_told_from_too_much_memory():
    with pytest.raises(DamageError, match="cannot hold"):
        decode_segment(Segment(EXPERTS, 1 << 24, bytes(1), profile=0x20), None)


def test_the_graph_knows_the_shapes_of_a_prior():
    shapes = [shape for _, shape, _, _ in PRIOR_SHAPES.values()]
    maps = 4 * layout.MATCH_LENGTHS
    assert shapes == [(layout.SETS, prior.INPUTS), (prior.MAPS, 256), (maps,), (3,)]
