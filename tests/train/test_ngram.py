"""From a corpus to an n-gram checkpoint and a file, by the commands that people use."""

import json
import shutil

import pytest

import laconic
from laconic.cli import main
from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.errors import LaconicError
from laconic.coder.graph import token_tensors
from laconic.coder.tensorfile import pack_tensors
from laconic.coder.tokenizer import ByteTokenizer
from laconic.data.ngrams import count_ngrams
from laconic.data.tokenshard import TokenShard
from laconic.train.configuration import load_recipe
from laconic.train.ngram import fit
from laconic.train.pipeline import run

SMALL = {
    "tokenizer.vocab_size": 300,
    "ngram.order": 4,
    "ngram.max_bytes": None,
    "data.validation_share": 0.05,
    "training.seq_len": 64,
}
WORDS = [f"--{key}={'null' if value is None else value}" for key, value in SMALL.items()]


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return out, run([str(corpus)], out, load_recipe("ngram", None, SMALL))


def test_the_checkpoint_predicts_and_its_card_says_what_it_is(trained):
    out, report = trained
    checkpoint = FrozenCheckpoint.load(out / "checkpoint")
    assert json.loads((out / "report.json").read_text()) == report
    assert report["id"] == checkpoint.id.hex()
    assert report["checkpoint_bytes"] == checkpoint.size_bytes
    assert report["macs_per_byte"] == 0
    assert report["validation"]["integer_bits_per_byte"] < 1.2
    assert report["validation"]["coded"]["bits_per_byte"] < 1.2
    ngrams = len(checkpoint.tensors["ngram.values"])
    assert f"{ngrams:,} n-grams of up to 4 of 300 tokens" in checkpoint.card
    assert "kind: ngram" in checkpoint.card


def test_files_come_back_at_every_kind_of_level(trained, corpus):
    out, _ = trained
    text = (corpus / "07.txt").read_bytes() + bytes(range(256))
    for level in (1, 6):
        blob = laconic.compress(text, out / "checkpoint", level=level)
        assert laconic.decompress(blob, out / "checkpoint") == text
        assert len(blob) < len(text) / 3


def test_the_same_command_again_counts_nothing(trained, corpus, monkeypatch):
    out, report = trained
    monkeypatch.setattr("laconic.data.ngrams._Counter", None)
    assert run([str(corpus)], out, load_recipe("ngram", None, SMALL))["id"] == report["id"]


def test_stages_one_by_one_make_the_same_checkpoint(trained, corpus, tmp_path, capsys):
    _, report = trained
    out = str(tmp_path / "run")
    assert main(["tokenizer", str(corpus), "-o", out, "--model", "ngram", *WORDS]) == 0
    assert f"next: laconic export -o {out}" in capsys.readouterr().out
    for command in (
        ["pretrain", "-o", out],
        ["pretrain", "--stage", "teacher", "-o", out],
        ["distill", "-o", out],
    ):
        assert main(command) == 1
        assert "counted, not trained" in capsys.readouterr().err
    assert main(["export", "-o", out]) == 0
    assert report["id"][:16] in capsys.readouterr().out


def test_export_with_another_size_or_order_goes_on_from_the_counts(trained, tmp_path, capsys, monkeypatch):
    out, report = trained
    shutil.copytree(out, tmp_path / "run")
    monkeypatch.setattr("laconic.data.ngrams._Counter", None)
    # Room is kept for a prior, which so little text does not have.
    limit = FrozenCheckpoint.load(out / "checkpoint").size_bytes + 14_000
    changes = [f"--ngram.max_bytes={limit}", "--ngram.order=3"]
    assert main(["export", "-o", str(tmp_path / "run"), *changes]) == 0
    smaller = FrozenCheckpoint.load(tmp_path / "run" / "checkpoint")
    assert smaller.config.order == 3
    assert smaller.size_bytes <= limit
    assert smaller.id.hex() != report["id"]
    assert f"max_bytes: {limit}" in (tmp_path / "run" / "recipe.yaml").read_text()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_the_size_is_used_and_kept_to(trained, share):
    out, _ = trained
    shard = TokenShard.open(out / "shards" / "train.tokens")
    orders = count_ngrams(shard, 4, 2, out / "ngram")
    fixed = token_tensors(ByteTokenizer.load(out / "tokenizer.json").token_bytes)
    _, largest = fit(orders, fixed, None)
    least, most = len(pack_tensors(fixed)) + 400, len(pack_tensors({**fixed, **largest}))
    limit = int(least + share * (most - least))
    _, found = fit(orders, fixed, limit)
    assert 0.9 * limit < len(pack_tensors({**fixed, **found})) <= limit


@pytest.mark.parametrize("kind", ["run", "checkpoint"])
def test_a_tokenizer_is_taken_and_two_models_predict_together(trained, corpus, tmp_path, kind):
    out, _ = trained
    source = out if kind == "run" else out / "checkpoint"
    changes = {"tokenizer.source": str(source), "ngram.order": 2, "tokenizer.vocab_size": 500}
    run([str(corpus)], tmp_path / "run", load_recipe("ngram", None, SMALL | changes))
    pair = [out / "checkpoint", tmp_path / "run" / "checkpoint"]
    first, second = (FrozenCheckpoint.load(path) for path in pair)
    assert first.token_bytes == second.token_bytes
    text = (corpus / "03.txt").read_bytes()
    blob = laconic.compress(text, pair)
    assert laconic.decompress(blob, pair) == text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--ngram.order=9", "--ngram.min_count=0"], ["ngram.order is 9", "ngram.min_count is 0"]),
        (["--ngram.max_bytes=many"], ["ngram.max_bytes is 'many'"]),
        (["--ngram.size=3"], ["ngram.size is unknown"]),
        (["--tokenizer.vocab_size=65536"], ["n-grams know at most 32768"]),
        (["--ngram.max_bytes=9000"], ["too small by"]),
        (["--tokenizer.source=nowhere"], ["nowhere"]),
        (["--tier=nano"], ["--tier nano: n-grams have none"]),
    ],
)
def test_mistakes_are_one_line_and_status_1(changes, words, corpus, tmp_path, capsys):
    command = ["train", str(corpus), "-o", str(tmp_path / "run"), "--model", "ngram", *WORDS, *changes]
    assert main(command) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("laconic: error:")
    assert all(word in error for word in words), error
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_tokenizer_of_too_many_tokens_is_refused(trained, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(laconic.coder.ngram.NgramConfig.LIMITS, "vocab_size", (2, 299))
    changes = {"tokenizer.source": str(trained[0]), "tokenizer.vocab_size": 256}
    with pytest.raises(LaconicError, match="tokenizer does not fit: vocab_size is 300"):
        run([str(corpus)], tmp_path / "run", load_recipe("ngram", None, SMALL | changes))


def test_eval_models_and_info_know_it(trained, corpus, tmp_path, capsys, monkeypatch):
    out, report = trained
    monkeypatch.setenv("LACONIC_CHECKPOINTS", str(out))
    text = tmp_path / "text.txt"
    shutil.copy(corpus / "05.txt", text)
    assert main(["eval", "-m", "checkpoint", str(text)]) == 0
    assert "engine numba: look-ups in a trie" in capsys.readouterr().out
    assert main(["models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("checkpoint "))
    assert report["id"][:16] in line
    assert "sound" in line
    assert main(["compress", "-m", "checkpoint", str(text)]) == 0
    assert main(["info", f"{text}.lac"]) == 0
    assert "(checkpoint)" in capsys.readouterr().out


def test_bench_speed_knows_it(trained, corpus, tmp_path, capsys):
    out, _ = trained
    assert (
        main(["bench", "--speed", "--levels", "6", "-m", str(out / "checkpoint"), str(corpus / "05.txt")])
        == 0
    )
    shown = capsys.readouterr().out
    assert "kernel       look-ups in a trie" in shown
    assert "GOPS" not in shown
