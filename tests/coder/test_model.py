"""Several checkpoints as one model."""

import pytest
from fakes import TOKENS, FakeCheckpoint, FakeEngine, fake_model, predictable

from laconic.coder.codec import decode_segment, encode_segment
from laconic.coder.container import MAX_CHECKPOINTS
from laconic.coder.errors import LaconicError
from laconic.coder.model import Model, ensemble
from laconic.coder.segment import MIXED, DamageError


def test_the_order_is_that_of_the_command():
    first, second = fake_model("first"), fake_model("second")
    both, reverse = ensemble([first, second]), ensemble([second, first])
    assert both.prefixes == first.checkpoint.id[:8] + second.checkpoint.id[:8]
    assert reverse.prefixes == second.checkpoint.id[:8] + first.checkpoint.id[:8]
    assert [member.checkpoint for member in both.members] == [first.checkpoint, second.checkpoint]
    assert ensemble([first]) == first
    assert first.members == (first,)


def test_every_checkpoint_predicts():
    models = [fake_model(f"checkpoint {number}", 5 + number) for number in range(MAX_CHECKPOINTS)]
    together, data = ensemble(models), predictable(1500)
    segment = encode_segment(data, together, 3)
    assert segment.method == MIXED
    assert all(model.engine.tokens_seen == models[0].engine.tokens_seen > 0 for model in models)
    assert decode_segment(segment, together) == data


def test_another_order_or_another_model_decodes_to_something_else(pair):
    data = predictable(1000)
    segment = encode_segment(data, pair)
    first, second = pair.members[0], pair.members[1]
    for wrong in (ensemble([second, Model(first.checkpoint, first.engine)]), Model(*list(fields(first)))):
        try:
            assert decode_segment(segment, wrong) != data
        except DamageError:
            continue


def fields(model):
    return model.checkpoint, model.engine


def test_a_good_and_a_useless_model_are_nearly_as_good_as_the_good_one(model):
    useless, data = fake_model("useless", -40), predictable(6000)
    alone = len(encode_segment(data, model).payload)
    for models in ([model, useless], [useless, model]):
        assert len(encode_segment(data, ensemble(models)).payload) < 1.1 * alone


def test_more_than_a_file_can_name_are_refused():
    models = [fake_model(str(number)) for number in range(MAX_CHECKPOINTS + 1)]
    with pytest.raises(LaconicError, match="9 checkpoints: a file can name up to 8"):
        ensemble(models)


def test_one_that_is_named_twice_is_refused():
    with pytest.raises(LaconicError, match="named twice"):
        ensemble([fake_model("a"), fake_model("b"), fake_model("a")])


def test_different_vocabularies_are_refused():
    other = Model(FakeCheckpoint("other", [*TOKENS[:-1], b"\xff\xff"]), FakeEngine())
    first = fake_model("first")
    with pytest.raises(
        LaconicError, match="have different vocabularies and cannot predict together"
    ) as error:
        ensemble([first, other])
    assert all(model.checkpoint.id.hex()[:16] in str(error.value) for model in (first, other))
