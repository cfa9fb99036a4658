"""docs/theory.md: the examples give what it prints, and the text no other numbers; sources are listed."""

import doctest
import re
from functools import cache
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "theory.md").read_text()
BODY, _, SOURCES = PAGE.partition("\n## Sources\n")
BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
YEAR = re.compile(r"\b(?:19|20)\d\d\b")


@cache
def parsed() -> doctest.DocTest:
    """All blocks as one session; what is not code is blank lines, so that failures name lines of the page."""
    session, at = "", 0
    for block in BLOCK.finditer(PAGE):
        session += "\n" * PAGE[at : block.start(1)].count("\n") + block[1]
        at = block.end(1)
    return doctest.DocTestParser().get_doctest(session, {}, "theory", "docs/theory.md", 0)


def numbers(text: str) -> set[str]:
    """As they are written, without the commas of thousands."""
    return {found.rstrip(",").replace(",", "") for found in NUMBER.findall(text)}


def computed(text: str) -> set[str]:
    """Numbers in the blocks of a text and in what they print, in which commas part one from the next."""
    blocks = "".join(BLOCK.findall(text))
    return numbers(re.sub(r",(?=\s)", " ", blocks)) | numbers(blocks.replace("_", ""))


def prose(text: str) -> str:
    """A text without code, years, units like 2^-10, and what is written in backticks."""
    text = BLOCK.sub("", text)
    return YEAR.sub("", re.sub(r"`[^`]*`|2\^-(?:8|16|10|length)\b|\]\([^)]*\)", "", text))


def unknown(page: str) -> set[str]:
    """Numbers of the text that its section does not compute; one with a decimal point may be another's."""
    given = {str(number) for number in range(10)} | {"56", "18", "99"}  # of the coder's bits, of experts, 99%
    decimals = {number for number in computed(page) if "." in number}
    found: set[str] = set()
    for section in page.split("\n## "):
        found |= numbers(prose(section)) - computed(section) - decimals - given
    return found


def test_the_examples_give_what_the_page_prints():
    report: list[str] = []
    result = doctest.DocTestRunner().run(parsed(), out=report.append)
    assert result.attempted > 80
    assert result.failed == 0, "".join(report)


def test_every_number_of_the_text_is_computed():
    assert not unknown(BODY)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("22.44 bits in all", "22.45 bits in all"),
        ("23 bits against", "24 bits against"),
        ("number 5173729", "number 5173728"),
        ("that is 20,000,000", "that is 20,000,001"),
    ],
)
def test_a_wrong_number_would_be_found(right, wrong):
    assert BODY.count(right) == 1
    assert unknown(BODY.replace(right, wrong)) == numbers(wrong)


def test_what_the_text_says_of_laconic():
    from laconic.coder.mixing.experts import EXPERTS
    from laconic.coder.rangecoder import CODE_BITS

    assert f"keeps {CODE_BITS} bits" in PAGE
    assert f"Up to {len(EXPERTS)} experts" in PAGE


def test_sources_are_cited_and_listed():
    lines = SOURCES.split("\n- ")[1:]
    listed = {(re.split(r",| et al", line)[0].split()[-1], YEAR.search(line)[0]) for line in lines}
    assert len(listed) == len(lines)
    text = " ".join(BLOCK.sub("", BODY).split()).replace("et al.", "et al")
    for name, year in listed:
        assert re.search(rf"{name}\b[^.;]{{0,30}}?\b{year}", text), f"{name} {year} is listed and not cited"
    for name, year in re.findall(r"(\w+)(?:'s code)? \(?((?:19|20)\d\d)\b", text.replace(" et al", "")):
        assert any(name in line and year in line for line in lines), f"{name} {year} is cited and not listed"
