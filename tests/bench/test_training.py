import pytest

from laconic.bench import training
from laconic.bench.training import HEAD, LINEARS, MUON, SCORES, main, profile_step
from laconic.train.configuration import load_recipe

TINY = {
    "tokenizer.vocab_size": 300,
    "model.d_model": 32,
    "model.num_heads": 2,
    "model.head_dim": 16,
    "model.ffn_dim": 64,
    "training.seq_len": 64,
    "training.batch_size": 2,
    "training.precision": "32-true",
}


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    monkeypatch.setattr(training, "_compiled_seconds", lambda step: None)


@pytest.mark.parametrize("changes", [{}, {"model.tied": False, "model.ffn": "reglu"}])
def test_every_product_of_a_step_is_counted_once(changes):
    recipe = load_recipe("nano", None, {**TINY, **changes})
    found = profile_step(recipe)
    gated = 3 if changes else 2
    weights = 2 * (32 * (2 + 2) * 16 + 32 * 32 + gated * 32 * 64)  # of two layers
    assert found.parts[LINEARS].operations == pytest.approx(6 * weights * 128)
    assert found.parts[HEAD].operations == pytest.approx(6 * 32 * 300 * 128)
    # Blocks of 64 queries meet 64 + 64 keys, of which half at most count as work of the model
    assert found.parts[SCORES].operations == pytest.approx(2 * 2 * 6 * 2 * 16 * 128 * 128)
    assert found.operations < sum(found.parts[name].operations for name in (LINEARS, HEAD, SCORES))
    assert found.parts[MUON].operations > 0
    assert all(part.seconds > 0 for part in found.parts.values())
    assert found.seconds > 0
    assert found.peak > 0
    text = found.as_text()
    assert "MFU" in text
    assert all(name in text for name in found.parts)


def test_a_faulty_recipe_is_refused(capsys):
    assert main(["--tier", "nano", "--model.d_model", "0"]) == 1
    assert "model.d_model is 0" in capsys.readouterr().err
    assert main(["--model", "ngram"]) == 1
    assert "n-grams are counted" in capsys.readouterr().err
