"""docs/mixing.md tells the truth: its tables, constants and check values are those of the code."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from twins import check_twins, encode

from laconic.coder.mixing import layout as k
from laconic.coder.mixing import reference
from laconic.coder.mixing.coding import encode_experts
from laconic.coder.mixing.experts import EXPERTS, TOKEN_EXPERTS
from laconic.coder.mixing.histories import BOUNDS, KEPT, histories
from laconic.coder.mixing.past import hashed
from laconic.coder.mixing.prior import LEARNED_COUNT, Prior
from laconic.coder.mixing.state import default_prior, fresh, shape_for
from laconic.coder.mixing.tables import log2_table, rate_table, squash_table, stretch_table
from laconic.coder.mixing.tree import build_tree, byte_tree

TEXT = (Path(__file__).parents[3] / "docs" / "mixing.md").read_text(encoding="utf-8").replace("−", "-")
PRIOR, STATES = default_prior(), histories()
TOKENS = [b"a", b"ab", b"abc", b"ad", b"b", b"b", b"b"]  # of the document's example


def numbers(text):
    return [int(number) for number in re.findall(r"-?\d+", text)]


def rows(heading):
    """The rows of the tables of a section, as cells."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line[2:-2].split(" | ") for line in section.split("\n") if line.startswith("| ")]


VALUES = {cells[0]: cells[1] for cells in rows("Check values")}
PAYLOADS = [cells for cells in rows("Check values") if len(cells) == 3][1:]
ARRAYS = {  # elements, their type in the digest, and the index of 0
    "squash": (squash_table(), "<i4", 4096),
    "stretch": (stretch_table(), "<i2", 0),
    "X of log2": (log2_table(), "<i2", 0),
    "rate": (rate_table(), "<i4", 0),
    "next": (STATES.following, "u1", 0),
    "a row of the default maps": (PRIOR.maps[0], "<u2", 0),
    "default matches": (PRIOR.matches, "<i4", 0),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_tables(name):
    array, dtype, origin = ARRAYS[name]
    assert hashlib.sha256(array.astype(dtype).tobytes()).hexdigest() in VALUES[name]
    for at, value in re.findall(r"(-?\d+): (-?\d+)[;.]", VALUES[name]):
        assert array[origin + int(at)] == int(value)


def test_hash():
    found = re.findall(r"\((\w+), (\d+)\): (\w{16})", VALUES["hash"])
    assert [hashed(int(a, 16), int(b)) for a, b, _ in found] == [int(value, 16) for *_, value in found] != []


def test_histories():
    found = re.findall(r"\b([01]+): \((.*?)\)", VALUES["histories, as (number, zeros, ones)"])
    assert len(found) == 8
    for bits, expected in found:
        state = 0
        for bit in bits:
            state = STATES.following[2 * state + int(bit)]
        assert [state, STATES.zeros[state], STATES.ones[state]] == numbers(expected)
    assert [tuple(numbers(cells[1])) for cells in rows("Bit histories")[1:]] == [BOUNDS, KEPT]


def test_first_values():
    curve = fresh(shape_for(1000, 2, 1, 0)).apm
    found = re.findall(r"(\d+) at j = (\d+)", VALUES["a refinement at first"])
    assert [curve[int(at)] for _, at in found] == [int(value) for value, _ in found] != []
    default = {cells[0]: numbers(cells[1]) for cells in rows("First values")}
    assert PRIOR.rates.tolist() == default["rates"]
    weight, *places, model, at, _ = default["weights, in all six rows"]
    assert places == [1, 2, 3, 5, 7, 9, 39]
    expected = dict.fromkeys([1, 2, 3, *range(5, 40, 2)], weight) | {at: model}
    assert PRIOR.weights.tolist() == [[expected.get(j, 0) for j in range(43)]] * k.SETS


def test_constants():
    expected = {
        "bytes of a slot": [k.SLOT],
        "bits of the check": [k.CHECK_SHIFT, k.CHECK_SHIFT + 7],
        "elements of order1, of ends": [k.ENDS],
        "limits of a map's count": [k.MAP_LIMIT, 1, k.ORDER_1_LIMIT],
        "bytes compared, at most": [k.VERIFIED],
        "largest length": [k.MAX_LENGTH],
        "limit of weights": [2, k.WEIGHT_LIMIT.bit_length() - 1, k.WEIGHT_LIMIT >> 16],
        "bytes after which rates[1] has halved": [2, k.RATE_BYTES.bit_length() - 1],
        "count of a learned map": [LEARNED_COUNT],
        "least length of a match": [*k.LEAST_MATCH],
        "record lengths": [3, k.RECORD_MAX - 1],
        "steps and width of refinements": [k.APM_STEPS, k.APM_WIDTH],
    }
    assert {what: numbers(value) for what, value, _ in rows("Constants") if what in expected} == expected
    assert [k.WEIGHT_LIMIT, k.RATE_BYTES] == [1 << 22, 1 << 15]
    assert [int(cells[1]) for cells in rows("Sets of weights")[1:]] == [*k.SET_STARTS]
    named = [(cells[1], int(cells[-1])) for cells in rows("Contexts")[1 : 1 + len(EXPERTS)]]
    assert named == [(name, max(2, 1 + i // 2)) for i, name in enumerate(EXPERTS)]
    tokens = {cells[2]: int(cells[0]) for cells in rows("Contexts")[2 + len(EXPERTS) :]}
    assert tokens == dict(zip(("c1", "c2", "c3"), TOKEN_EXPERTS, strict=True))


def test_example_of_a_tree():
    nodes = []
    for _, *cells, zero, one in (row for row in rows("The token tree") if row[0].isdigit()):
        low, high, middle, depth, partial = numbers(" ".join(cells))[:5]
        after = [numbers(cell)[0] if "node" in cell else -1 - numbers(cell)[0] for cell in (zero, one)]
        nodes.append([low, middle, high, depth, partial, *after])
    assert nodes == build_tree(TOKENS).nodes.tolist()


@pytest.mark.parametrize(("original", "profile", "payload"), PAYLOADS)
def test_payloads_of_experts(original, profile, payload):
    squares = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(200))
    data = squares if original == "squares" else original.encode()
    coded = encode_experts(data, int(profile[0]), len(data))
    assert f"{coded.profile:02x}" == profile
    assert payload.split("`")[1] in (coded.payload.hex(), hashlib.sha256(coded.payload).hexdigest())


IDS = [0, 1, 2, 3, 4, 5, 6, 2, 1, 2]  # of the document's payloads in method 3
FALLING = np.arange(0, -700, -100, dtype=np.int32)  # what its models say, the second from behind


def payloads(sentence):
    """With one stream, and with three."""
    values = r" payload is\s+`(\w+)` with one stream\s+and `(\w+)` with three"
    return re.search(sentence + values, TEXT).groups()


def test_payloads_of_a_model():
    for streams, payload in zip((1, 3), payloads(r"\(19 bytes\): the"), strict=True):
        logits = np.tile(FALLING, (1, streams, 10, 1))
        assert check_twins(IDS, build_tree(TOKENS), shape_for(19, 6, streams, 1), logits).hex() == payload


def test_payloads_of_two_models_with_a_prior():
    i, j, r, a = (np.arange(size, dtype=np.int32) for size in (6, 43, 22, 256))
    prior = Prior(
        weights=3000 - 1000 * i[:, None] + 7 * j,
        maps=(5000 + 1000 * r[:, None] + 64 * a).astype(np.uint16),
        matches=32768 * np.arange(128, dtype=np.int32),
        rates=np.array([20, 200, 5], dtype=np.int32),
        count=LEARNED_COUNT,
    )
    for streams, payload in zip((1, 3), payloads(r"rates 20, 200, 5\. The"), strict=True):
        logits = np.stack([np.tile(says, (streams, 10, 1)) for says in (FALLING, FALLING[::-1])])
        tree, shape = build_tree(TOKENS), shape_for(19, 6, streams, 2)
        assert encode(IDS, tree, shape, logits, state=fresh(shape, 7, prior)).hex() == payload
        assert reference.encode(IDS, tree, shape, logits, fresh(shape, 7, prior)).hex() == payload


def decided(monkeypatch, ids, tree, shape, logits=None):
    """The decisions of the plain twin: (partial, m, P, Q, C, bit) of each."""
    decisions = []

    class Traced(reference.Mixer):
        def _refined(self, here, partial, mixed):
            refined = super()._refined(here, partial, mixed)
            decisions.append([partial, mixed, self.chance, refined])
            return refined

        def predict(self, here, number, models):
            chance = super().predict(here, number, models)
            decisions[-1].append(chance)
            return chance

        def learn(self, bit):
            decisions[-1].append(bit)
            super().learn(bit)

    monkeypatch.setattr(reference, "Mixer", Traced)
    reference.encode(ids, tree, shape, logits)
    return decisions


def printed(beginning, end):
    text = TEXT.split(beginning)[1].split(end)[0]
    return [numbers(decision) for decision in re.findall(r"\(((?:-?\d+,?\s*){6})\)", text)]


def test_decisions_of_experts(monkeypatch):
    expected = printed('of "ab"', "five more")
    decisions = decided(monkeypatch, list(b"ab"), byte_tree(), shape_for(2, 2, 1, 0))
    assert len(expected) == len(decisions) - 5 == 11
    assert decisions[:11] == expected


def test_decisions_with_a_model(monkeypatch):
    logits, expected = np.tile(FALLING, (1, 1, 10, 1)), printed("decisions of the former", "The same tokens")
    decisions = decided(monkeypatch, IDS, build_tree(TOKENS), shape_for(19, 6, 1, 1), logits)
    assert len(expected) == 5
    assert decisions[:5] == expected
