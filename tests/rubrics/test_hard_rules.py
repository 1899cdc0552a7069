"""Hard rules as code: hand-made texts, the words for each rule, and their speed on many responses."""

from __future__ import annotations

import gzip
import json
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.benchmarks.rubrics.hard_rules import RULES, responses_in
from rmkit.errors import DataError
from rmkit.verifiers.language import language_of
from rmkit.verifiers.rules import NAMES, compiled
from rubrics.criteria import Criterion
from rubrics.rule_text import checked, described, understood, with_check

LIST = "Fruit:\n- apple\n- pear\n3) plum\n\nThat is all."

CASES: list[tuple[dict[str, Any], str, bool]] = [
    ({"rule": "max_words", "value": 3}, "one two three", True),
    ({"rule": "max_words", "value": 3}, "one two three four", False),
    ({"rule": "min_words", "value": 3}, "one two", False),
    ({"rule": "words", "value": 2}, " one\ntwo ", True),
    ({"rule": "sentences", "value": 3}, "Is it? It is! Good.", True),
    ({"rule": "max_sentences", "value": 2}, "One. Two. And a third without a stop", False),
    ({"rule": "max_characters", "value": 4}, "häuser", False),
    ({"rule": "min_characters", "value": 6}, "häuser", True),
    ({"rule": "paragraphs", "value": 2}, LIST, True),
    ({"rule": "min_paragraphs", "value": 3}, LIST, False),
    ({"rule": "bullets", "value": 3}, LIST, True),
    ({"rule": "max_bullets", "value": 0}, "a - b\n-c\n1.5 litres", True),
    ({"rule": "includes", "values": ["Apple", "PLUM"]}, LIST, True),
    ({"rule": "includes", "values": ["apple", "kiwi"]}, LIST, False),
    ({"rule": "includes", "values": ["apple", "kiwi"], "any": True}, LIST, True),
    ({"rule": "excludes", "values": ["app"]}, LIST, True),
    ({"rule": "excludes", "values": ["kiwi", "apple"]}, LIST, False),
    ({"rule": "excludes", "values": ["C++"]}, "I like C++.", False),
    ({"rule": "begins_with", "value": "fruit"}, LIST, True),
    ({"rule": "ends_with", "value": "all."}, LIST + "\n", True),
    ({"rule": "ends_with", "value": "plum"}, LIST, False),
    ({"rule": "times", "value": "a", "min": 2, "max": 3}, "a banana", False),
    ({"rule": "times", "value": "na", "min": 2}, "a banana", True),
    ({"rule": "json"}, '{"a": [1, 2]}', True),
    ({"rule": "json"}, '```json\n{"a": 1}\n```', True),
    ({"rule": "json"}, 'Here it is: {"a": 1}', False),
    ({"rule": "json"}, "7", False),
    ({"rule": "json", "keys": ["a", "b"]}, '{"a": 1}', False),
    ({"rule": "json", "keys": ["a"]}, '{"a": 1, "c": 2}', True),
    ({"rule": "json"}, "[" * 100_000, False),
    ({"rule": "code_block"}, "```\nx\n```", True),
    ({"rule": "table"}, "| a | b |\n|---|---|\n| 1 | 2 |", True),
    ({"rule": "table"}, "a | b", False),
    ({"rule": "heading"}, "text\n## Part\nmore", True),
    ({"rule": "heading"}, "#hashtag", False),
    ({"rule": "lower_case"}, "all small, 3 words", True),
    ({"rule": "upper_case"}, "LOUD But", False),
    ({"rule": "no_commas"}, "a, b", False),
    ({"rule": "parts", "value": 2}, "a\n***\nb\n***\n", True),
    ({"rule": "placeholders", "value": 1}, "[name] [] [a\nb]", True),
    ({"rule": "min_highlights", "value": 2}, "*a* ** b", False),
    ({"rule": "capital_words", "value": 2}, "IT IS so", True),
    ({"rule": "title"}, "<<>> <<A day>>", True),
    ({"rule": "quoted"}, '"', False),
    ({"rule": "two_responses"}, "a ****** b ****** c", False),
    ({"rule": "sections", "value": "PART", "min": 2}, "PART 1 x PART 2 y", True),
    ({"rule": "first_word", "value": "so", "paragraph": 3}, "so\n\nso", False),
    ({"rule": "postscript", "value": "P.P.S"}, "a\np.p.s. b", True),
    ({"rule": "one_of", "values": ["Yes.", "No."]}, " no.\n", True),
    ({"rule": "language", "value": "de"}, "Das ist ein Satz, der nicht auf Englisch ist.", True),
    ({"rule": "language", "value": "en"}, "Das ist ein Satz, der nicht auf Englisch ist.", False),
]


@pytest.mark.parametrize(("check", "text", "kept"), CASES)
def test_a_rule_is_kept_or_broken(check: dict[str, Any], text: str, kept: bool) -> None:
    assert compiled(check)(text) is kept


def test_every_rule_is_tried_above() -> None:
    tried = {check["rule"] for check, _, _ in CASES}
    families = {name.removeprefix("min_").removeprefix("max_") for name in tried}
    assert {name.removeprefix("min_").removeprefix("max_") for name in NAMES} == families


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"rule": "be_nice"}, "unknown rule 'be_nice'"),
        ({}, "unknown rule None"),
        ({"rule": "max_words"}, "rule max_words needs value, a whole number >= 0; it has none"),
        ({"rule": "max_words", "value": -1}, "whole number"),
        ({"rule": "max_words", "value": True}, "whole number"),
        ({"rule": "max_words", "value": 3, "unit": "k"}, "unknown unit; beside rule it takes value"),
        ({"rule": "times", "values": ["a"]}, "unknown values; beside rule it takes value, min, max"),
        ({"rule": "json", "values": ["a"]}, "unknown values; beside rule it takes keys"),
        ({"rule": "includes", "value": "a"}, "unknown value; beside rule it takes values, any"),
        ({"rule": "includes", "values": []}, "list of texts"),
        ({"rule": "includes", "values": "apple"}, "list of texts"),
        ({"rule": "begins_with", "value": " "}, "needs value, a text; got ' '"),
        ({"rule": "times", "value": "a", "min": -1}, "whole numbers"),
        ({"rule": "table", "value": 1}, "unknown value; it takes no key beside rule"),
    ],
)
def test_a_senseless_rule_is_refused(check: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        compiled(check)


def test_criteria_without_code_say_nothing() -> None:
    criteria = [
        Criterion(criterion="Is it kind?"),
        Criterion(criterion="short", check={"rule": "max_words", "value": 2}),
    ]
    assert checked(criteria, ["a b", "a b c"]) == [[None, True], [None, False]]


SENTENCES = {
    "en": "The answer to this question is not as simple as it may seem at first.",
    "fr": "La réponse à cette question n'est pas aussi simple que l'on pourrait le croire.",
    "es": "La respuesta a esta pregunta no es tan sencilla como parece a primera vista.",
    "it": "La risposta a questa domanda non è così semplice come sembra a prima vista.",
    "pt": "A resposta a esta pergunta não é tão simples como parece à primeira vista.",
    "nl": "Het antwoord op deze vraag is niet zo eenvoudig als het op het eerste gezicht lijkt.",
    "de": "Die Antwort auf diese Frage ist nicht so einfach, wie sie auf den ersten Blick scheint.",
    "ru": "Ответ на этот вопрос не так прост, как кажется.",
    "ja": "この質問への答えは思ったより簡単ではありません。",
    "zh": "这个问题的答案并不像看起来那么简单。",
    "ko": "이 질문에 대한 답은 보기보다 간단하지 않습니다.",
    "ar": "الإجابة على هذا السؤال ليست بسيطة كما تبدو.",
    "hi": "इस प्रश्न का उत्तर उतना सरल नहीं है जितना लगता है।",
}


@pytest.mark.parametrize(("language", "sentence"), SENTENCES.items())
def test_languages_are_told_apart(language: str, sentence: str) -> None:
    assert language_of(sentence) == language


@pytest.mark.parametrize("text", ["", "12345", "x", "Qwrt zxcvb plok"])
def test_a_language_that_cannot_be_told_is_not_guessed(text: str) -> None:
    assert language_of(text) is None
    assert compiled({"rule": "language", "value": "en"})(text) is None


@pytest.mark.parametrize(
    "check",
    [
        check
        for check, _, _ in CASES
        if check["rule"] != "times" and not {"any", "keys"} & set(check) and check.get("values") != ["app"]
    ],
    ids=lambda check: check["rule"],
)
def test_a_rule_survives_the_way_to_words_and_back(check: dict[str, Any]) -> None:
    assert understood(described(check)) == check


@pytest.mark.parametrize(
    ("sentence", "check"),
    [
        ("The response contains no more than 100 words", {"rule": "max_words", "value": 100}),
        ("The response must use a minimum of 3 bullet points.", {"rule": "min_bullets", "value": 3}),
        ("The response is given in valid JSON", {"rule": "json"}),
        ("The response never uses the word 'very'", {"rule": "excludes", "values": ["very"]}),
        ("The response starts with “Dear”", {"rule": "begins_with", "value": "Dear"}),
        ("The response is written in French", {"rule": "language", "value": "fr"}),
        ("The response is not given as JSON", None),
        ("The response is concise", None),
        ("The response explains 3 causes", None),
    ],
)
def test_other_wordings_are_understood_or_left_alone(sentence: str, check: dict[str, Any] | None) -> None:
    assert understood(sentence) == check


def test_only_hard_rules_get_code() -> None:
    text = "The response has at most 9 words."
    assert with_check(Criterion(criterion=text, tag="hard_rule")).check == {"rule": "max_words", "value": 9}
    assert with_check(Criterion(criterion=text, tag="principle")).check is None


@pytest.mark.slow
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=300))
def test_no_text_breaks_a_rule_in_another_sense(text: str) -> None:
    """Every rule gives a truth value (or None for a language) for any text; bounds agree with each other."""
    for check, _, _ in CASES:
        assert compiled(check)(text) in (True, False, None)
    n = len(text.split())
    exact, most, least = (compiled({"rule": f"{b}words", "value": n})(text) for b in ("", "max_", "min_"))
    assert exact
    assert most
    assert least


@pytest.mark.slow
def test_the_rules_of_a_rubric_run_on_ten_thousand_real_responses(shared_data: Path) -> None:
    """The rate is a benchmark's: here the whole of it must come out, beside a plain count of the same things."""
    with gzip.open(shared_data / "nway_alpacaeval.jsonl.gz", "rt") as lines:
        texts = [text for line in lines for text in responses_in(json.loads(line))]
    texts = list(islice(cycle(texts), 10_000))
    criteria = [Criterion(criterion="r", check=rule) for rule in RULES]
    found = checked(criteria, texts)
    assert [sum(bool(row[0]) for row in found), sum(bool(row[10]) for row in found)] == [
        sum(len(text.split()) <= 200 for text in texts),
        sum("," not in text for text in texts),
    ]
    assert sum(row[11] is True for row in found) > 0.9 * len(texts)  # AlpacaEval is English
