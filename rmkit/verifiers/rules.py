"""Instruction rules as code: what a request asks for in so many words is counted, not judged by a model.

A rule is a JSON object with its name and its values:

    {"rule": "max_words", "value": 100}      min_words, max_words, min_sentences, max_sentences, min_characters,
                                             max_characters, min_paragraphs, max_paragraphs, min_bullets, max_bullets
    {"rule": "bullets", "value": 3}          exactly so many bullet points; also with min_ and max_: words, sentences,
                                             paragraphs, parts (between ***), placeholders ([name]), highlights (*so*),
                                             capital_words, characters
    {"rule": "includes", "values": [...]}    every one of the texts, whatever its case ("any": true: at least one)
    {"rule": "excludes", "values": [...]}    none of them, as whole words
    {"rule": "begins_with", "value": "..."}, {"rule": "ends_with", "value": "..."}
    {"rule": "times", "value": "...", "min": 2, "max": 4}      how often a text occurs; one letter: anywhere in words
    {"rule": "sections", "value": "SECTION", "min": 3}         so many headings "SECTION 1", "SECTION 2", ...
    {"rule": "first_word", "value": "however", "paragraph": 2} how a paragraph begins, from 1
    {"rule": "postscript", "value": "P.S."}                    a line that begins so
    {"rule": "one_of", "values": [...]}                        the reply is one of these texts, nothing else
    {"rule": "json", "keys": [...]}          valid JSON (in a code block or bare), an object with these keys
    {"rule": "code_block"}, {"rule": "table"}, {"rule": "heading"}, {"rule": "lower_case"}, {"rule": "upper_case"}
    {"rule": "no_commas"}, {"rule": "title"} (in << >>), {"rule": "quoted"} (all of it in double quotes),
    {"rule": "two_responses"} (parted by ******), {"rule": "language", "value": "fr"}

`from_ifeval` reads an instruction of IFEval (Zhou et al. 2023) as such a rule.

Patterns are not among them: a rubric may come from a model, and a hostile one must not be able to stall a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rmkit.errors import DataError, unknown
from rmkit.verifiers.language import language_of

Check = Callable[[str], bool | None]

_BULLET = re.compile(r"(?m)^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S")
_SENTENCE = re.compile(r"[^.!?。！？\s][^.!?。！？]*(?:[.!?。！？]+|$)")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_FENCE = re.compile(r"(?s)\A\s*```(?:json)?\s*\n(.*?)\n```\s*\Z")

_DIVIDER = re.compile(r"(?m)^[ \t]*\*\*\*[ \t]*$")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_HIGHLIGHT = re.compile(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*")

COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "characters": len,
    "sentences": lambda text: len(_SENTENCE.findall(text)),
    "paragraphs": lambda text: sum(not part.isspace() for part in _BLANK_LINE.split(text) if part),
    "bullets": lambda text: len(_BULLET.findall(text)),
    "parts": lambda text: sum(bool(part.strip()) for part in _DIVIDER.split(text)),
    "placeholders": lambda text: len(_PLACEHOLDER.findall(text)),
    "highlights": lambda text: len(_HIGHLIGHT.findall(text)),
    "capital_words": lambda text: sum(word.isupper() for word in text.split()),
}
FORMS: dict[str, Check] = {
    "code_block": lambda text: text.count("```") >= 2,
    "table": lambda text: bool(re.search(r"(?m)^\s*\|.+\|\s*\n\s*\|[ :|-]+\|\s*$", text)),
    "heading": lambda text: bool(re.search(r"(?m)^#{1,6} \S", text)),
    "lower_case": lambda text: text == text.lower(),
    "upper_case": lambda text: text == text.upper(),
    "no_commas": lambda text: "," not in text,
    "title": lambda text: bool(re.search(r"<<[^\n<>]*[^\s<>][^\n<>]*>>", text)),
    "quoted": lambda text: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "two_responses": lambda text: _two_responses(text),
}
NAMES = tuple(
    [f"{bound}{name}" for bound in ("min_", "max_", "") for name in COUNTS]
    + [*FORMS, "includes", "excludes", "begins_with", "ends_with", "times", "sections", "first_word", "postscript"]
    + ["one_of", "json", "language"]
)


def compiled(check: Mapping[str, Any]) -> Check:
    """The rule as a function of a response: whether it is kept, None where that cannot be told (an unclear language).

    Raises DataError for an unknown rule, and for missing, surplus or senseless values.
    """
    name = check.get("rule")
    rest = {key: value for key, value in check.items() if key != "rule"}
    bound, counted = _count_of(str(name))
    if counted:
        return _counting(bound, COUNTS[counted], _number(rest, name))
    if name in FORMS:
        _only(rest, name)
        return FORMS[str(name)]
    match name:
        case "includes":
            return _includes(_texts(rest, name, "any"), bool(rest.get("any")))
        case "excludes":
            return _excludes(_texts(rest, name))
        case "begins_with" | "ends_with":
            return _edge(str(name), _text(rest, name))
        case "times":
            return _times(_text(rest, name, "min", "max"), rest.get("min", 1), rest.get("max"))
        case "sections":
            return _sections(_text(rest, name, "min"), _whole(rest.get("min", 1), name, "min"))
        case "first_word":
            return _first_word(_text(rest, name, "paragraph"), _whole(rest.get("paragraph", 1), name, "paragraph"))
        case "postscript":
            return _postscript(_text(rest, name))
        case "one_of":
            return _one_of(_texts(rest, name))
        case "json":
            return _json(_texts(rest, name, field="keys") if rest else [])
        case "language":
            target = _text(rest, name)
            return lambda text: None if (result := language_of(text)) is None else result == target
    raise DataError(unknown("rule", name, NAMES))


def from_ifeval(instruction: str, values: Mapping[str, Any]) -> dict[str, object]:
    """The rule of an IFEval instruction ("keywords:existence") and its keyword arguments.

    "less than n" is at most n - 1. Raises DataError for an instruction that IFEval does not have. Sentences are told
    apart by punctuation, words by blanks: IFEval's own counts differ where NLTK's do.
    """
    values = {key: value for key, value in values.items() if value is not None}
    _, _, kind = instruction.partition(":")
    if (counted := _IFEVAL_COUNTS.get(instruction)) is not None:
        name, field = counted
        return _bounded(
            name, values.get("relation", values.get("capital_relation", "at least")), values.get(field), instruction
        )
    match kind:
        case "existence":
            return {"rule": "includes", "values": list(values.get("keywords", []))}
        case "forbidden_words":
            return {"rule": "excludes", "values": list(values.get("forbidden_words", []))}
        case "frequency" | "letter_frequency":
            target = values.get("keyword", values.get("letter"))
            bound = values.get("frequency", values.get("let_frequency"))
            limit = _bounded("n", values.get("relation", values.get("let_relation", "at least")), bound, instruction)
            key = "max" if limit["rule"] == "max_n" else "min"
            return {"rule": "times", "value": target} | ({"min": 0} if key == "max" else {}) | {key: limit["value"]}
        case "response_language":
            return {"rule": "language", "value": values.get("language")}
        case "number_paragraphs":
            return {"rule": "parts", "value": values.get("num_paragraphs")}
        case "nth_paragraph_first_word":
            return {
                "rule": "first_word",
                "value": values.get("first_word"),
                "paragraph": values.get("nth_paragraph", 1),
            }
        case "number_bullet_lists":
            return {"rule": "bullets", "value": values.get("num_bullets")}
        case "multiple_sections":
            return {"rule": "sections", "value": values.get("section_spliter"), "min": values.get("num_sections", 1)}
        case "postscript":
            return {"rule": "postscript", "value": values.get("postscript_marker", "P.S.")}
        case "repeat_prompt":
            return {"rule": "begins_with", "value": values.get("prompt_to_repeat")}
        case "end_checker":
            return {"rule": "ends_with", "value": values.get("end_phrase")}
        case "constrained_response":
            return {"rule": "one_of", "values": ["My answer is yes.", "My answer is no.", "My answer is maybe."]}
    if instruction in _IFEVAL_FORMS:
        return {"rule": _IFEVAL_FORMS[instruction]}
    raise DataError(f"IFEval has no instruction {instruction[:60]!r}")


_IFEVAL_COUNTS = {  # instruction: what is counted, where the bound stands
    "length_constraints:number_words": ("words", "num_words"),
    "length_constraints:number_sentences": ("sentences", "num_sentences"),
    "detectable_content:number_placeholders": ("placeholders", "num_placeholders"),
    "detectable_format:number_highlighted_sections": ("highlights", "num_highlights"),
    "change_case:capital_word_frequency": ("capital_words", "capital_frequency"),
}
_IFEVAL_FORMS = {
    "detectable_format:json_format": "json",
    "detectable_format:title": "title",
    "combination:two_responses": "two_responses",
    "startend:quotation": "quoted",
    "change_case:english_capital": "upper_case",
    "change_case:english_lowercase": "lower_case",
    "punctuation:no_comma": "no_commas",
}


def _bounded(name: str, relation: str, bound: Any, instruction: str) -> dict[str, object]:
    if isinstance(bound, bool) or not isinstance(bound, int):
        raise DataError(f"{instruction} has no whole number to count to")
    if relation == "less than":
        return {"rule": f"max_{name}", "value": bound - 1}
    return {"rule": f"min_{name}", "value": bound}


def _count_of(name: str) -> tuple[str, str | None]:
    bound = name[:4] if name[:4] in ("min_", "max_") else ""
    counted = name.removeprefix(bound)
    return bound, counted if counted in COUNTS else None


def _counting(bound: str, count: Callable[[str], int], limit: int) -> Check:
    match bound:
        case "min_":
            return lambda text: count(text) >= limit
        case "max_":
            return lambda text: count(text) <= limit
        case _:
            return lambda text: count(text) == limit


def _includes(texts: Sequence[str], any_of: bool) -> Check:
    target = [text.casefold() for text in texts]
    quantifier = any if any_of else all
    return lambda text: quantifier(one in folded for folded in [text.casefold()] for one in target)


def _excludes(texts: Sequence[str]) -> Check:
    target = [text.casefold() for text in texts]
    whole = [re.compile(rf"(?<!\w){re.escape(text)}(?!\w)") for text in target]

    def check(text: str) -> bool:
        folded = text.casefold()  # a plain search first: the pattern, ten times slower, mostly need not run
        return not any(word in folded and pattern.search(folded) for word, pattern in zip(target, whole, strict=True))

    return check


def _edge(name: str, target: str) -> Check:
    folded = target.casefold()
    if name == "begins_with":
        return lambda text: text.lstrip().casefold().startswith(folded)
    return lambda text: text.rstrip().casefold().endswith(folded)


def _times(target: str, least: Any, most: Any) -> Check:
    for bound in (least, most):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int) or bound < 0):
            raise DataError(f"rule times: min and max are whole numbers, got {bound!r}")
    folded = target.casefold()
    return lambda text: least <= text.casefold().count(folded) <= (len(text) if most is None else most)


def _sections(splitter: str, least: int) -> Check:
    heading = re.compile(rf"\s?{re.escape(splitter.strip())}\s?\d+\s?")
    return lambda text: len(heading.findall(text)) >= least


def _first_word(word: str, paragraph: int) -> Check:
    target = word.casefold()

    def check(text: str) -> bool:
        parts = [part for part in _BLANK_LINE.split(text) if part.strip()]
        if not 1 <= paragraph <= len(parts):
            return False
        return parts[paragraph - 1].split()[0].strip("\"'.,:;!?*#").casefold() == target

    return check


def _postscript(marker: str) -> Check:
    target = marker.replace(" ", "").casefold()
    return lambda text: any(line.strip().replace(" ", "").casefold().startswith(target) for line in text.splitlines())


def _one_of(texts: Sequence[str]) -> Check:
    target = {text.strip().casefold() for text in texts}
    return lambda text: text.strip().casefold() in target


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def _json(keys: Sequence[str]) -> Check:
    def check(text: str) -> bool:
        fenced = _FENCE.match(text)
        try:
            value = json.loads(fenced[1] if fenced else text)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and set(keys) <= set(value) if keys else isinstance(value, dict | list)

    return check


def _only(rest: Mapping[str, Any], name: Any, *allowed: str) -> None:
    if surplus := sorted(set(rest) - set(allowed)):
        known = f"beside rule it takes {', '.join(allowed)}" if allowed else "it takes no key beside rule"
        raise DataError(f"rule {name}: unknown {', '.join(surplus)}; {known}")


def _number(rest: Mapping[str, Any], name: Any) -> int:
    _only(rest, name, "value")
    value = rest.get("value")
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"rule {name} needs value, a whole number >= 0; {_got(rest, 'value')}")
    return value


def _whole(value: Any, name: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DataError(f"rule {name}: {field} is a whole number above 0, got {value!r}")
    return value


def _text(rest: Mapping[str, Any], name: Any, *also: str) -> str:
    _only(rest, name, "value", *also)
    value = rest.get("value")
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"rule {name} needs value, a text; {_got(rest, 'value')}")
    return value


def _texts(rest: Mapping[str, Any], name: Any, *also: str, field: str = "values") -> list[str]:
    _only(rest, name, field, *also)
    values = rest.get(field)
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise DataError(f"rule {name} needs {field}, a list of texts; {_got(rest, field)}")
    return values


def _got(rest: Mapping[str, Any], field: str) -> str:
    return f"got {rest[field]!r}" if field in rest else "it has none"
