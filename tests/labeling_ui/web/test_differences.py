"""Which words are marked, and that the texts can do nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_ui.web.differences import FOLD, differences

_MARK = re.compile(r":(?:orange|blue)-background\[\*\*((?:\\.|[^\]\\])*)\*\*\]")


def _read(markdown: str) -> str:
    """What stands on the screen: marks and escapes taken away."""
    text = _MARK.sub(r"\1", markdown)
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text.replace("\\\n", "\n")).replace("\u00a0", " ")


def _marked(markdown: str) -> list[str]:
    return _MARK.findall(markdown)


def test_only_the_words_that_differ_are_marked_each_in_its_color() -> None:
    found = differences("The cat sat on the old mat today", "The cat sat on the red mat today")
    assert found.first == "The cat sat on the :orange-background[**old**] mat today"
    assert found.second == "The cat sat on the :blue-background[**red**] mat today"
    assert found.same == pytest.approx(2 * 7 / 16)


def test_what_is_missing_on_one_side_is_marked_on_the_other_and_lines_stay() -> None:
    found = differences("one two three\nfour five six", "one two three\nand more\n\nfour five six")
    assert _marked(found.first) == []
    assert _marked(found.second) == ["and more"]
    assert _read(found.second) == "one two three\nand more\n\nfour five six"


def test_a_stray_matching_word_does_not_chop_a_passage_up() -> None:
    found = differences("alpha beta the gamma delta", "one two the three four")
    assert _marked(found.first) == ["alpha beta the gamma delta"]
    assert found.same == 0.0


def test_equal_and_empty_texts_have_no_marks() -> None:
    for text in ("yes", "yes, it is.\n", ""):
        found = differences(text, text)
        assert (_read(found.first), _marked(found.first), found.same) == (text.strip(), [], 1.0)


def test_a_long_stretch_that_is_the_same_is_folded_and_counted() -> None:
    same = " ".join(f"w{number}" for number in range(FOLD + 40))
    found = differences(f"start {same} end", f"begin {same} finish")
    assert "*… 76 words the same …*" in found.first  # 100 words, twelve shown at either end
    assert _marked(found.first) == ["start", "end"]
    assert _marked(found.second) == ["begin", "finish"]
    at_the_start = differences(f"{same} end", f"{same} finish")
    assert at_the_start.first.startswith("*… 88 words the same …*")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just("\n"), max_size=60), st.text())
def test_nothing_of_a_text_is_markup_or_lost(first: str, second: str) -> None:
    found = differences(first, second)
    bare = found.first.replace("\\\n", "\n")
    bare = _MARK.sub(r"\1", bare)
    assert not re.search(r"(?<!\\)(?:\\\\)*[<>\[\]:*_`$!|#&~]", bare)
    assert re.sub(r"\s", "", _read(found.first)) == re.sub(r"\s", "", first)
