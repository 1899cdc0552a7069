"""Hard rules between words and code: "The response has at most 50 words." is {"rule": "max_words", "value": 50}.

`described` writes the sentence of a check; `understood` reads such a sentence back, also in the wordings that models
use for the same thing. What it does not understand stays a question for a judge: it never guesses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rmkit.verifiers.rules import compiled
from rubrics.criteria import HARD_RULE, Criterion

_UNITS = {  # what is counted, as a sentence says it: what it is called in many and in how models write it
    "words": r"words?",
    "sentences": r"sentences?",
    "characters": r"characters?",
    "paragraphs": r"paragraphs?",
    "bullets": r"bullets?(?: points?)?|list items?",
    "parts": r"parts?",
    "placeholders": r"placeholders?",
    "highlights": r"highlights?|highlighted (?:sections?|parts?)",
    "capital_words": r"capital_words|words in (?:all )?capital(?:s| letters)",
}
_BOUNDS = {
    "max_": r"at most|no more than|a maximum of|not more than|up to|within",
    "min_": r"at least|no fewer than|no less than|a minimum of",
    "": r"exactly|precisely",
}
_UNIT_WORDS = "|".join(rf"(?P<{unit}>{words})" for unit, words in reversed(_UNITS.items()))
_QUOTED = re.compile(r"[\"“'‘`]([^\"”'’`]+)[\"”'’`]")
_LANGUAGES = {
    "english": "en",
    "german": "de",
    "french": "fr",
    "spanish": "es",
    "italian": "it",
    "portuguese": "pt",
    "dutch": "nl",
    "russian": "ru",
    "chinese": "zh",
    "japanese": "ja",
    "korean": "ko",
    "arabic": "ar",
    "hindi": "hi",
}
_FORMS = {
    "json": r"\b(?:valid )?json\b",
    "code_block": r"\bcode block\b",
    "table": r"\b(?:markdown )?table\b",
    "heading": r"\bheading\b",
    "lower_case": r"\b(?:all |entirely )?(?:in )?lower ?-?case\b",
    "upper_case": r"\b(?:all |entirely )?(?:in )?upper ?-?case\b|\ball capital letters\b",
    "no_commas": r"\bno commas\b|\bwithout (?:any )?commas\b",
    "title": r"\btitle in double angular brackets\b",
    "quoted": r"\bwrapped in double quot(?:es|ation marks)\b",
    "two_responses": r"\btwo different responses parted by six asterisks\b",
}
_DESCRIBED = {
    "json": "is valid JSON",
    "code_block": "contains a code block",
    "table": "contains a table",
    "heading": "has a heading",
    "lower_case": "is in lower case",
    "upper_case": "is in upper case",
    "no_commas": "contains no commas",
    "title": "has a title in double angular brackets",
    "quoted": "is wrapped in double quotation marks",
    "two_responses": "gives two different responses parted by six asterisks",
}


def described(check: Mapping[str, Any]) -> str:
    """A sentence about the response that says what the check asks. Raises KeyError for a rule it has no words for."""
    name = str(check["rule"])
    bound = name[:4] if name[:4] in ("max_", "min_") else ""
    if name.removeprefix(bound) in _UNITS:
        how = {"max_": "at most", "min_": "at least", "": "exactly"}[bound]
        return f"The response has {how} {check['value']} {name.removeprefix(bound)}."
    quoted = " and ".join(f'"{text}"' for text in check.get("values", [check.get("value")]))
    match name:
        case "includes":
            return f"The response includes {quoted}."
        case "excludes":
            return f"The response does not contain {quoted}."
        case "begins_with" | "ends_with":
            return f"The response {name.replace('_', ' ')} {quoted}."
        case "sections":
            return f"The response has at least {check.get('min', 1)} sections headed {quoted} and a number."
        case "first_word":
            return f"Paragraph {check.get('paragraph', 1)} of the response has the first word {quoted}."
        case "postscript":
            return f"The response has a postscript marked {quoted}."
        case "one_of":
            return f"The response is one of {quoted} and nothing else."
        case "language":
            language = next(word for word, code in _LANGUAGES.items() if code == check["value"])
            return f"The response is written in {language.capitalize()}."
        case _:
            return f"The response {_DESCRIBED[name]}."


def understood(sentence: str) -> Mapping[str, object] | None:
    """The check that a sentence asks for, None where it is not one that code can run for certain."""
    text = " ".join(sentence.lower().split())
    for bound, words in _BOUNDS.items():
        if match := re.search(rf"\b(?:{words}) (?P<n>\d{{1,6}}) (?:{_UNIT_WORDS})\b", text):
            unit = next(unit for unit in _UNITS if match[unit])
            return {"rule": f"{bound}{unit}", "value": int(match["n"])}
    if quoted := _QUOTED.findall(sentence):
        return _about_quoted(text, quoted)
    if match := re.search(rf"\b(?:in|into) ({'|'.join(_LANGUAGES)})\b", text):
        return {"rule": "language", "value": _LANGUAGES[match[1]]}
    if re.search(r"\bnot\b|\bnever\b|\bavoid", text):
        return None
    return next(({"rule": name} for name, pattern in _FORMS.items() if re.search(pattern, text)), None)


def checked(criteria: Sequence[Criterion], responses: Iterable[str]) -> list[list[bool | None]]:
    """[response][criterion]: kept, broken, or None where the criterion carries no check or it cannot be told."""
    checks = [compiled(criterion.check) if criterion.check else None for criterion in criteria]
    return [[check(text) if check else None for check in checks] for text in responses]


def with_check(criterion: Criterion) -> Criterion:
    """The criterion, with the code for it where it is a hard rule that is understood."""
    if criterion.tag != HARD_RULE or criterion.check:
        return criterion
    result = understood(criterion.criterion)
    return Criterion(criterion=criterion.criterion, tag=HARD_RULE, weight=criterion.weight, check=result)


def _about_quoted(text: str, quoted: list[str]) -> Mapping[str, object] | None:
    if match := re.search(r"\bat least (\d{1,4}) sections headed\b", text):
        return {"rule": "sections", "value": quoted[0], "min": int(match[1])}
    if match := re.search(r"\bparagraph (\d{1,4}) .*\bfirst word\b", text):
        return {"rule": "first_word", "value": quoted[0], "paragraph": int(match[1])}
    if re.search(r"\ba postscript marked\b", text):
        return {"rule": "postscript", "value": quoted[0]}
    if re.search(r"\bis one of\b.*\bnothing else\b", text):
        return {"rule": "one_of", "values": quoted}
    if re.search(r"\b(?:begins?|starts?|opens?) with\b", text) and len(quoted) == 1:
        return {"rule": "begins_with", "value": quoted[0]}
    if re.search(r"\b(?:ends?|closes?|finish(?:es)?) with\b", text) and len(quoted) == 1:
        return {"rule": "ends_with", "value": quoted[0]}
    if re.search(r"\b(?:not|never|avoids?|without|excludes?)\b", text):
        return {"rule": "excludes", "values": quoted}
    if re.search(r"\b(?:includes?|contains?|mentions?|uses?)\b", text):
        return {"rule": "includes", "values": quoted}
    return None
