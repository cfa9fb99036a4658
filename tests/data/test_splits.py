import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from laconic.data.splits import SPLITS, is_used, split_of

DOCUMENTS = [b"document %d" % i for i in range(20_000)]


@given(st.binary())
def test_a_document_always_falls_to_the_same_split(document):
    assert split_of(document) == split_of(bytes(document)) in SPLITS


def test_shares_are_kept():
    counts = Counter(split_of(d, 0.05, 0.1) for d in DOCUMENTS)
    assert abs(counts["validation"] / len(DOCUMENTS) - 0.05) < 0.01
    assert abs(counts["test"] / len(DOCUMENTS) - 0.1) < 0.01


def test_splits_never_change():
    # A change here would move text that old models have learnt into their test sets.
    splits = ",".join(split_of(d) for d in DOCUMENTS)
    assert (
        hashlib.sha256(splits.encode()).hexdigest()
        == "3926747fac4d25085116df2cfccd1a1e91ab325ac3990b8123ccaf64e6e8f4d7"
    )


def test_no_share_no_documents():
    assert {split_of(d, 0.0, 0.0) for d in DOCUMENTS} == {"train"}
    assert {split_of(d, 0.1, 0.0) for d in DOCUMENTS} == {"train", "validation"}


def test_a_smaller_share_of_the_training_text_is_part_of_a_larger():
    shares = [{d for d in DOCUMENTS if is_used(d, share)} for share in (0.1, 0.4, 1.0)]
    assert shares[0] < shares[1] < shares[2] == set(DOCUMENTS)
    assert abs(len(shares[0]) / len(DOCUMENTS) - 0.1) < 0.01
