import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from laconic.coder.mixing.tree import (
    DEPTH,
    HIGH,
    LOW,
    MIDDLE,
    ONE,
    PARTIAL,
    WIDTH,
    ZERO,
    build_tree,
    byte_tree,
)

FEW = st.lists(st.sampled_from([0x00, 0x01, 0x61, 0x62, 0x80, 0xFF]), min_size=1, max_size=4).map(bytes)
TOKENS = st.one_of(FEW, st.binary(min_size=1, max_size=3), st.sampled_from([b"a", b"aaaaaaaaaaaaaaaa"]))
VOCABULARIES = st.lists(TOKENS, min_size=2, max_size=60).map(sorted)


def bit_of(token, depth, number):
    return token[depth] >> (7 - number) & 1


def check_node(node, tokens):
    """What the columns say is true of the tokens of the node."""
    low, middle, high, depth, partial = node[:5]
    assert low < middle < high
    within = tokens[low:high]
    assert {token[:depth] for token in within} == {within[0][:depth]}
    if not partial and len({*within}) == 1:
        assert depth == len(within[0])
    elif not partial:
        assert {len(token) for token in tokens[low:middle]} == {depth}
        assert all(len(token) > depth for token in tokens[middle:high])
    else:
        number = partial.bit_length() - 1
        assert 0 <= number < 8
        assert {(256 | token[depth]) >> (8 - number) for token in within} == {partial}
        assert {bit_of(token, depth, number) for token in tokens[low:middle]} == {0}
        assert {bit_of(token, depth, number) for token in tokens[middle:high]} == {1}


def check_tree(tokens):
    tree = build_tree(tokens)
    nodes = tree.nodes.tolist()
    assert tree.nodes.dtype == np.int32
    assert tree.nodes.shape == (len(tokens) - 1, WIDTH)
    assert tree.token_bytes.tobytes() == b"".join(tokens)
    assert np.diff(tree.token_ends).tolist() == [len(token) for token in tokens]
    reached, visited = [], []
    waiting = [(0, 0, len(tokens), 0)]
    while waiting:
        number, low, high, depth = waiting.pop()
        if number < 0:
            assert (low, high) == (-1 - number, -number)
            reached.append(-1 - number)
            continue
        node = nodes[number]
        visited.append(number)
        assert (node[LOW], node[HIGH]) == (low, high)
        assert node[DEPTH] >= depth
        check_node(node, tokens)
        waiting.append((node[ZERO], low, node[MIDDLE], node[DEPTH]))
        waiting.append((node[ONE], node[MIDDLE], high, node[DEPTH]))
    assert sorted(reached) == list(range(len(tokens)))
    assert sorted(visited) == list(range(len(nodes)))
    for number, node in enumerate(nodes):  # parents come first
        assert all(after < 0 or after > number for after in (node[ZERO], node[ONE]))
    return tree


@given(VOCABULARIES)
def test_every_token_has_one_path_of_its_bits(tokens):
    check_tree(tokens)


@given(st.integers(2, 70), st.binary(min_size=1, max_size=3))
def test_equal_tokens_are_halved(copies, token):
    tree = check_tree([token] * copies)
    assert not tree.nodes[:, PARTIAL].any()
    assert (tree.nodes[:, DEPTH] == len(token)).all()


def test_tokens_that_begin_each_other():
    tokens = [b"a" * n for n in range(1, 40)]
    tree = check_tree(tokens)
    assert not tree.nodes[:, PARTIAL].any()
    assert tree.nodes[:, DEPTH].tolist() == list(range(1, 39))


def test_what_all_tokens_share_is_known_at_the_root():
    tree = check_tree([b"prefix-a", b"prefix-b"])
    assert tree.nodes.tolist() == [[0, 1, 2, 7, 0b1011000, -1, -2]]


def test_the_byte_tree_is_the_eight_bits_of_each():
    tree = check_tree([bytes([byte]) for byte in range(256)])
    assert (tree.nodes == byte_tree().nodes).all()
    assert len(tree.nodes) == 255
    assert sorted(tree.nodes[:, PARTIAL].tolist()) == list(range(1, 256))
    assert not tree.nodes[:, DEPTH].any()
    for byte in range(256):
        number, bits = 0, ""
        while number >= 0:
            bit = int(byte >= tree.nodes[number, MIDDLE])
            bits += str(bit)
            number = int(tree.nodes[number, ONE if bit else ZERO])
        assert (-1 - number, bits) == (byte, f"{byte:08b}")
