"""Text out of a checkpoint: the same bytes by every engine, as long as asked for, after any prompt."""

import io
import subprocess
import sys
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import IDS, TOKENS, VOCAB, FakeCheckpoint, fake_model
from graphs import random_checkpoint, random_config

import laconic
from laconic.cli import main
from laconic.coder import registry
from laconic.coder.beam import search
from laconic.coder.engine import ENGINES, load_engine
from laconic.coder.errors import LaconicError
from laconic.coder.generate import generate, read_request
from laconic.coder.kernels import code_lengths
from laconic.coder.model import Model, ensemble
from laconic.coder.tokenizer import MODEL_OPTIONS, bytes_to_text, tokenizer_json

MERGES = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the")]
PROMPT = b"\xffthe t"

# The continuations of PROMPT, 12 tokens long: a change makes laconic say something else by the same seed.
GOLDEN = {
    "drawn": "a53799bbd75f1703cdaf52b6",
    "cold": "6865e1e0605858aee6e1e118ffef",
    "top-k": "68606058e9e918188718e9e658",
    "top-p": "686590c232e1e6746865e6e4082be4ff",
    "greedy": "6865606060878787870808080808",
    "beam": "686560585858585858585858cbcb",
}
CHOICES = {
    "drawn": {"seed": 5},
    "cold": {"temperature": "0.2"},
    "top-k": {"top_k": 4, "seed": 2**64 - 1},
    "top-p": {"top_p": "0.25", "temperature": 0.5},
    "greedy": {"greedy": True},
    "beam": {"beam": 6},
}


def tiny_checkpoint():
    """Random weights, and tokens of several bytes that the tokenizer joins."""
    tokens = sorted([bytes([b]) for b in range(256)] + [a + b for a, b in MERGES])
    checkpoint = random_checkpoint(random_config(vocab_size=len(tokens)))
    checkpoint.tensors["token_bytes"] = np.frombuffer(b"".join(tokens), dtype=np.uint8).copy()
    checkpoint.tensors["token_ends"] = np.cumsum([len(token) for token in tokens]).astype(np.int32)
    checkpoint.tokenizer_json = tokenizer_json(
        {
            "type": "BPE",
            **MODEL_OPTIONS["BPE"],
            "vocab": {bytes_to_text(token): number for number, token in enumerate(tokens)},
            "merges": [[bytes_to_text(part) for part in pair] for pair in MERGES],
        }
    )
    return checkpoint


class Bigrams:
    """Logits by the last token alone: row V is the first."""

    name, kernel = "bigrams", "none"

    def __init__(self, table):
        self.table = np.array(table, dtype=np.int32)
        self.vocab_size = len(table) - 1

    def start(self, num_streams):
        return None

    def advance(self, state, ids):
        return self.table[ids]

    def select(self, state, streams):
        return None


def bigrams(table, tokens=None):
    return Model(FakeCheckpoint(token_bytes=tokens or TOKENS), Bigrams(table))


def joined(prompt, model, **options):
    return b"".join(generate(prompt, model, **options))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_says_the_same(name, choice):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    checkpoint = tiny_checkpoint()
    for threads in (1, 2) if name == "torch" else (None,):
        model = Model(checkpoint, load_engine(checkpoint, name, threads))
        said = joined(PROMPT, model, tokens=12, **CHOICES[choice])
        assert said.hex() == GOLDEN[choice]
        assert joined(PROMPT, model, tokens=12, **CHOICES[choice]) == said


def test_seeds_differ(model):
    said = {joined(b"", model, seed=seed, temperature=9) for seed in range(20)}
    assert len(said) == 20
    assert joined(b"", model) == joined(b"", model, seed=0, temperature=1, tokens=128)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("prompt", [b"", b"abc", b"\x00\xfe"])
def test_so_many_bytes_or_tokens(choice, prompt, model):
    options = CHOICES[choice]
    pieces = list(generate(prompt, model, tokens=9, **options))
    assert all(pieces)
    if choice != "beam":
        whole = joined(prompt, model, tokens=40, **options)
        assert whole.startswith(b"".join(pieces))
        for count in range(1, 30):
            assert joined(prompt, model, num_bytes=count, **options) == whole[:count]
    for count in (1, 2, 17):
        assert len(joined(prompt, model, num_bytes=count, **options)) == count


@pytest.mark.parametrize("options", [{"greedy": True}, {"top_k": 1}, {"top_p": 1e-6}, {"beam": 1}])
def test_the_likeliest_each_time(options, model):
    state, fed, expected = model.engine.start(1), VOCAB, b""
    for _ in range(50):
        fed = int(model.engine.advance(state, np.array([[fed]], dtype=np.int32)).argmax())
        expected += TOKENS[fed]
    assert joined(b"", model, tokens=50, **options) == expected


def test_of_equals_the_first():
    flat = bigrams(np.zeros((VOCAB + 1, VOCAB)))
    for options in ({"greedy": True}, {"top_k": 1}, {"beam": 3}, {"beam": 256}):
        assert joined(b"", flat, tokens=3, **options) == b"\x00\x00\x00"


@pytest.mark.parametrize("options", [{"greedy": True}, {"temperature": 0.1}, {"beam": 2}])
def test_a_prompt_ends_anywhere(options):
    """After `a` comes `abc`, which the prompt's tokens would rule out; and what follows, follows that."""
    table = np.zeros((VOCAB + 1, VOCAB))
    table[IDS[b"x"], IDS[b"abc"]] = 30000
    table[VOCAB, IDS[b"\x00\xff"]] = 30000
    table[IDS[b"abc"], IDS[b"end "]] = table[IDS[b"\x00\xff"], IDS[b"q"]] = table[IDS[b"z"], IDS[b"y"]] = (
        30000
    )
    model = bigrams(table)
    assert joined(b"xa", model, tokens=1, **options) == b"bcend "
    assert joined(b"xab", model, num_bytes=3, **options) == b"cen"
    assert joined(b"xabc", model, tokens=1, **options) == b"end "
    assert joined(b"\x00", model, tokens=1, **options) == b"\xffq"
    assert joined(b"z", model, tokens=1, **options) == b"y"


def test_a_long_prompt_is_fed_whole(model):
    prompt = bytes(range(256)) * 9
    ids = np.concatenate([[VOCAB], model.tokenize(prompt)]).astype(np.int32)
    logits = model.engine.advance(model.engine.start(1), ids[None])
    assert joined(prompt, model, tokens=1, greedy=True) == TOKENS[int(logits[0, -1].argmax())]


LETTERS = [b"a", b"b", b"cc"]


def code_length(table, ids):
    """Bits of tokens from the start on, as the coder counts them."""
    rows = np.array([table[before] for before in (len(LETTERS), *ids[:-1])], dtype=np.int32)
    return code_lengths(rows, np.array(ids, dtype=np.int32)).sum()


def test_a_beam_finds_what_greed_does_not():
    """`a` is the likelier at first, but after it nothing is certain; after `b` all is."""
    table = [[0, 0, 0], [0, 9000, 0], [0, 0, 0], [1024, 900, -9000]]
    model = bigrams(table, LETTERS)
    greedy, found = (joined(b"", model, tokens=6, **options) for options in ({"greedy": True}, {"beam": 2}))
    assert (greedy, found) == (b"a" * 6, b"b" * 6)
    assert code_length(table, [1] * 6) < code_length(table, [0] * 6) - 6


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_best_of_all(seed):
    table = np.random.default_rng(seed).integers(-3000, 3000, (4, 3))
    model, length = bigrams(table, LETTERS), 5
    best = sorted(product(range(3), repeat=length), key=lambda ids: code_length(table, ids))
    found = search(b"", model, read_request(tokens=length, beam=243), 243)
    assert len(found) == 3**length
    assert [one.code_length for one in found] == sorted(one.code_length for one in found)
    for one, ids in zip(found, best, strict=True):
        # Of each token two logarithms are cut, to within 2.5 units.
        assert abs(one.code_length / 1024 - code_length(table, ids)) < 5 * length / 1024
    assert found[0].text == b"".join(LETTERS[i] for i in best[0])
    assert {one.text for one in found} == {b"".join(LETTERS[i] for i in ids) for ids in best}
    narrow = search(b"", model, read_request(tokens=length, beam=2), 2)
    assert narrow[0].code_length >= found[0].code_length
    assert len(narrow) == 2


def test_a_beam_counts_bytes():
    """`cc` is long enough after one token, and costs nothing more; it is cut."""
    table = [[0, 0, 500], [0, 0, 500], [0, 0, 500], [0, 0, -1]]
    found = search(b"", bigrams(table, LETTERS), read_request(num_bytes=2, beam=9), 9)
    assert [(one.text, one.tokens) for one in found[:3]] == [(b"cc", 1), (b"ac", 2), (b"bc", 2)]
    assert all(len(one.text) == 2 for one in found)
    assert len(found) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "a temperature of 0: choose a number above 0, or greedy"),
        ({"temperature": -0.5}, "a temperature of -0.5: choose"),
        ({"top_k": 0}, "top-k of 0: choose a whole number above 0"),
        ({"top_k": 2.0}, "top-k of 2.0: choose a whole number above 0"),
        ({"top_p": 0}, "top-p of 0: choose a number above 0, up to 1,"),
        ({"top_p": 1.5}, "top-p of 1.5: choose"),
        ({"tokens": 0}, "a number of tokens of 0: choose a whole number above 0"),
        ({"num_bytes": -1}, "a number of bytes of -1: choose"),
        ({"tokens": 1, "num_bytes": 1}, "a number of tokens and one of bytes: give one of them"),
        ({"seed": -1}, "a seed of -1: choose a whole number from 0 to 18446744073709551615"),
        ({"seed": 1 << 64}, "a seed of 18446744073709551616: choose"),
        ({"beam": 0}, "a beam of 0: choose a whole number from 1 to 256"),
        ({"beam": 257}, "a beam of 257: choose"),
        ({"beam": 2, "temperature": 1}, "a beam draws nothing at random: leave it out, or the temperature"),
        ({"beam": 2, "seed": 0, "top_p": 1}, "leave it out, or the top-p and the seed"),
        ({"greedy": True, "top_k": 5}, "greedy draws nothing at random: leave it out, or the top-k"),
        ({"greedy": True, "beam": 2}, "greedy is a beam of 1: leave one of them out"),
        ({"model": None}, "without a checkpoint there is nothing to say: name one by -m"),
        ({"model": "none"}, "without a checkpoint there is nothing to say"),
        ({"prompt": "text"}, "data of type str: give bytes"),
    ],
)
def test_what_is_refused_is_refused_at_once(options, message, model):
    with pytest.raises(LaconicError) as refused:
        generate(**{"model": model, **options})
    assert message in str(refused.value)


def test_several_checkpoints_are_refused(pair):
    assert ensemble([fake_model(), fake_model("other")]).others
    with pytest.raises(LaconicError, match="several checkpoints predict together only when they compress"):
        generate(b"", pair)


def test_the_command(known, capsysbinary, monkeypatch, model):
    assert main(["generate"]) == 0
    assert capsysbinary.readouterr().out == joined(b"", model)
    assert main(["generate", "--prompt", "a\udcff", "--bytes", "40", "--top-k", "3", "--seed", "7"]) == 0
    assert capsysbinary.readouterr().out == joined(b"a\xff", model, num_bytes=40, top_k=3, seed=7)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\x00\xff"), isatty=lambda: False))
    assert main(["generate", "--prompt", "-", "--tokens", "4", "--temperature", "2", "--top-p", "0.5"]) == 0
    expected = joined(b"\x00\xff", model, tokens=4, temperature=2, top_p=0.5)
    assert capsysbinary.readouterr().out == expected
    assert b"".join(laconic.generate(b"ab", greedy=True, tokens=2)) == joined(
        b"ab", model, tokens=2, greedy=True
    )


def test_a_beam_shown_whole(known, capsys, model):
    assert main(["generate", "--beam", "3", "--tokens", "2", "--all"]) == 0
    found = search(b"", model, read_request(tokens=2, beam=3), 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{one.code_length / 1024:.3f} bits  {one.text!r}" for one in found]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--temperature", "0"], 2, "a temperature of 0: choose a number above 0"),
        (["--beam", "2", "--greedy"], 2, "greedy is a beam of 1"),
        (["--all"], 2, "--all shows what a beam kept: give --beam, or leave --all out"),
        (["-m", "none"], 1, "name one by -m"),
        (["-m", "nowhere"], 1, "there is no checkpoint 'nowhere'"),
    ],
)
def test_what_is_wrong_is_one_line(known, arguments, status, message, capsys):
    assert main(["generate", *arguments]) == status
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize("arguments", [["--top-k", "0"], ["--seed", "x"], ["--tokens", "1", "--bytes", "1"]])
def test_wrong_usage(known, arguments):
    with pytest.raises(SystemExit, match="2"):
        main(["generate", *arguments])


def test_a_checkpoint_that_is_damaged(tmp_path, monkeypatch, capsysbinary):
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    tiny_checkpoint().save(tmp_path / "tiny")
    assert main(["generate", "-m", "tiny", "--tokens", "2", "--engine", "numpy"]) == 0
    capsysbinary.readouterr()
    path = tmp_path / "tiny" / "model.lacw"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["generate", "-m", "tiny"]) == 1
    out, err = capsysbinary.readouterr()
    assert (out, err.count(b"\n")) == (b"", 1)
    assert b"is damaged" in err


def test_nobody_reads_on():
    arguments = [sys.executable, "-m", "laconic", "generate", "--tokens", "1000000"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert len(running.stdout.read(10)) == 10  # it comes before the end
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 1
