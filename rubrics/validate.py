"""From a rubric writer's reply to criteria, and what is wrong with them.

A rubric must be usable for responses it has not seen, so these are refused: lines without a tag, the same criterion
twice, mention of which response is which, and principles that carry names, numbers or phrases of the responses they
were drawn from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rmkit.types import Candidates
from rubrics.criteria import HARD_RULE, PRINCIPLE, Criterion
from rubrics.rule_text import with_check

_LINE = re.compile(r"^\s*(?:\d{1,3}[.)]|[-*])\s+(?P<text>.*?)\s*$")
_TAGGED = re.compile(r"^(?P<text>.*?)[\s*_]*[\[(](?P<tag>hard[ _-]?rule|principle)[\])][\s.*_]*$", re.IGNORECASE)
_WHICH = re.compile(
    r"\bresponses? (?:[A-D]|\d|one|two)\b|"
    r"\b(?:first|second|third|last|other|better|worse|best|worst|chosen|rejected|preferred) (?:response|answer)\b|"
    r"\bthan the (?:other|rejected|first|second)\b|\bboth responses\b",
    re.IGNORECASE,
)
_PHRASE = 5  # words in a row that a principle may not share with a response
_LONGEST = 60  # words of one criterion


def parse_reply(reply: str) -> tuple[tuple[Criterion, ...], list[str]]:
    """The criteria of a numbered list, hard rules with their code where it is understood, and the problems found."""
    criteria: list[Criterion] = []
    problems: list[str] = []
    for line in filter(str.strip, reply.splitlines()):
        listed = _LINE.match(line)
        if listed is None:
            problems.append("text beside the list")
            continue
        tagged = _TAGGED.match(listed["text"])
        if tagged is None or not tagged["text"].strip():
            problems.append("a criterion without a tag")
            continue
        tag = PRINCIPLE if tagged["tag"].lower() == "principle" else HARD_RULE
        criteria.append(with_check(Criterion(criterion=tagged["text"].strip(), tag=tag)))
    return tuple(criteria), problems or ([] if criteria else ["no criterion"])


def problems_of(criteria: Sequence[Criterion], candidates: Candidates) -> list[str]:
    """What makes a rubric unusable for other responses than those it was drawn from; empty where nothing does."""
    results = []
    texts = [" ".join(criterion.criterion.lower().split()).rstrip(".") for criterion in criteria]
    if len(set(texts)) < len(texts):
        results.append("the same criterion twice")
    if any(_WHICH.search(criterion.criterion) for criterion in criteria):
        results.append("mention of which response is which")
    if any("response" not in text for text in texts):
        results.append("a criterion that is no statement about the response")
    if any(len(text.split()) > _LONGEST for text in texts):
        results.append(f"a criterion of more than {_LONGEST} words")
    material = " ".join(completion.text for completion in candidates.completions)
    principles = [criterion.criterion for criterion in criteria if criterion.tag == PRINCIPLE]
    if any(_leaks(text, material) for text in principles):
        results.append("a principle with a name, number or phrase of the responses")
    return results


def _leaks(principle: str, material: str) -> bool:
    """Whether it holds a number, a capitalized word inside the sentence, or a run of words of the material."""
    specific = re.findall(r"\d+(?:\.\d+)?|(?<=[a-z,;:] )[A-Z][\w-]{2,}", principle)
    words = set(re.findall(r"[\w.-]*\w", material))
    if any(word in words for word in specific):
        return True
    answers, source = _words(principle), " ".join(_words(material))
    runs = (" ".join(answers[i : i + _PHRASE]) for i in range(len(answers) - _PHRASE + 1))
    return any(f" {run} " in f" {source} " for run in runs)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def rubric_text(criteria: Sequence[Criterion]) -> str:
    """The rubric as a judge reads it: numbered, with levels and tags."""
    return "\n".join(_numbered(i, criterion) for i, criterion in enumerate(criteria, start=1))


def _numbered(number: int, criterion: Criterion) -> str:
    tag = {HARD_RULE: " [hard rule]", PRINCIPLE: " [principle]"}.get(criterion.tag or "", "")
    levels = "".join(f"\n   {score}: {text}" for score, text in criterion.levels.items())
    return f"{number}. {criterion.criterion}{tag}{levels}"
