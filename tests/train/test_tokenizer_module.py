import argparse
import json
import math
from collections import Counter
from pathlib import Path

import pytest
import pytorch_lightning as pl

from laconic.coder.tokenizer import ByteTokenizer
from laconic.data.corpus import Corpus
from laconic.models.tokenizer import train_tokenizer
from laconic.train.recipe import DataRecipe, Recipe, TokenizerRecipe
from laconic.train.run import Run
from laconic.train.tokenizer import DocumentDataModule, TokenizerModule, fit_tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "argparse.txt"
    path.write_bytes(Path(argparse.__file__).read_bytes() + b"\xff\x00")
    return Corpus([str(path)])


def _fit(module, data, **settings):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, datamodule=data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["bpe", "bytes"])
def test_the_module_trains_on_the_training_split_and_reports(corpus, kind):
    size = 400 if kind == "bpe" else 256
    module = TokenizerModule(kind, size)
    figures = _fit(module, DocumentDataModule(corpus, validation_share=0.1))
    training = list(corpus.documents("train", 0.1))
    validation = list(corpus.documents("validation", 0.1))
    expected = train_tokenizer(training, kind, size)
    assert module.tokenizer.to_json() == expected.to_json()

    counts = Counter(i for document in training for i in expected.encode(document).tolist())
    total = sum(counts.values()) + size
    ids = [i for document in validation for i in expected.encode(document).tolist()]
    bits = -sum(math.log2((counts[i] + 1) / total) for i in ids)
    num_bytes = sum(map(len, validation))
    assert figures["bytes_per_token"] == pytest.approx(num_bytes / len(ids), rel=1e-6)
    assert figures["order0_bits_per_byte"] == pytest.approx(bits / num_bytes, rel=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_without_validation_it_trains_all_the_same(corpus):
    module = TokenizerModule("bpe", 300)
    _fit(module, DocumentDataModule(corpus), limit_val_batches=0)
    assert module.tokenizer.vocab_size == 300


@pytest.mark.filterwarnings("ignore")
def test_no_more_than_the_limit_is_learnt_from(corpus):
    module = TokenizerModule("bpe", 300, max_bytes=5_000)
    _fit(module, DocumentDataModule(corpus))
    text = b"".join(corpus.documents("train"))[:5_000]
    assert module._num_bytes == 5_000
    assert b"".join(module.tokenizer.token_bytes[i] for i in module.tokenizer.encode(text)) == text


def _sample(corpus, num_bytes):
    return [d for batch in DocumentDataModule(corpus, num_bytes).train_dataloader() for d in batch]


def test_a_sample_is_spread_over_the_corpus(corpus):
    whole = list(corpus.documents("train"))
    sample = _sample(corpus, corpus.total_bytes // 4)
    places = [whole.index(document) for document in sample]
    assert places == sorted(places)
    assert max(places) > 0.8 * len(whole)
    assert 0.2 < sum(map(len, sample)) / corpus.total_bytes <= 0.25
    assert _sample(corpus, corpus.total_bytes) == whole
    assert len(_sample(corpus, 1)) == 1


@pytest.mark.parametrize("kind", ["json", "parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_sample_is_spread_over_files_of_rows(kind, streaming, tmp_path):
    """Their text is a small part of JSON's bytes here, and many times those of Parquet's."""
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    for name in "abcd":
        rows = [{"text": f"{name} {i} " + "x" * 90, "more": "y" * 300} for i in range(1000)]
        if kind == "json":
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name, compression="zstd")
    corpus = Corpus([f"datasets:{kind}:{tmp_path}/*:text"])
    sample = _sample(corpus.sample(200_000) if streaming else corpus, 40_000)
    assert 39_000 < sum(map(len, sample)) <= 40_000
    counts = Counter(document[:1] for document in sample)
    assert all(60 < counts[name] < 140 for name in (b"a", b"b", b"c", b"d"))


@pytest.mark.filterwarnings("ignore")
def test_a_stage_leaves_the_tokenizer_and_its_logs(corpus, tmp_path, capsys):
    recipe = Recipe(
        data=DataRecipe(validation_share=0.1), tokenizer=TokenizerRecipe(vocab_size=400, sample_bytes=60_000)
    )
    run = Run(tmp_path / "run", recipe)
    tokenizer = fit_tokenizer(run, corpus)
    assert ByteTokenizer.load(run.tokenizer_file).to_json() == tokenizer.to_json()
    metrics = "".join(path.read_text() for path in (tmp_path / "run").rglob("metrics.csv"))
    assert "bytes_per_token" in metrics
    assert "order0_bits_per_byte" in metrics
    assert "bytes per token" in capsys.readouterr().err


def test_a_vocabulary_that_the_text_does_not_have_is_as_large_as_it_has(tmp_path, capsys):
    (tmp_path / "app.log").write_bytes(b"one two three\n" * 5000)
    run = Run(tmp_path / "run", Recipe(tokenizer=TokenizerRecipe(vocab_size=60_000)))
    size = fit_tokenizer(run, Corpus([str(tmp_path / "app.log")])).vocab_size
    assert 256 < size < 300
    assert f"tokenizer: bpe, {size} tokens (not 60,000: the text has no more)" in capsys.readouterr().err
