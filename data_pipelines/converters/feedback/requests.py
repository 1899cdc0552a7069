"""Requests to a language model about what happened: the recipe step `generate` has them answered.

    preference    what does a user prefer who corrected a reply so (CIPHER); one request for each correction
    lesson        what do right and wrong answers to one prompt teach (training-free GRPO); mixed outcomes only
    task          a new task like one that failed (WebRL's curriculum); no answer came out right

`rmkit memory add` keeps the answers, each with the prompt that it holds for (`context` in meta).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from data_pipelines.converters import Derived, Example, NotConvertibleError, ratings
from rmkit.ids import messages_json, parse_messages
from rmkit.memory.edit_distance import edit_distance
from rmkit.memory.experience import mixed
from rmkit.types import Completion, Message

WORDS = {
    "preference": "In one short sentence: what does this user prefer that the draft lacks? Name the habit.",
    "lesson": (
        "Compare the right answers with the wrong ones and reply with a JSON array of operations on the lessons, each "
        '{"option": "add", "experience": "..."}, {"option": "modify", "experience": "...", "modified_from": "E1"} or '
        '{"option": "delete", "delete_id": "E1"}. A lesson is general and at most 32 words long.'
    ),
    "task": (
        "Every attempt at this task failed. Write one new task of the same kind that is a little easier or differs in "
        "one respect, and nothing else."
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    ask: Annotated[Literal["preference", "lesson", "task"], "what is asked"] = "preference"
    words: Annotated[str, "the request in your own words"] = ""
    aspect: Annotated[str, "the rating that is the outcome, for lesson and task"] = "correct"
    right: Annotated[float, "an outcome of at least this is right"] = 0.5
    least: Annotated[int, "words that a correction changes at least, for preference"] = 1


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """Units without a response, `context` in meta."""
    context = _talk(example["prompt"])
    words = config.words or WORDS[config.ask]
    for shown in _preferences(example, config) if config.ask == "preference" else _attempts(example, config):
        text = f"{context}\n\n{shown}\n\n{words}" if shown else f"{context}\n\n{words}"
        yield Derived(
            responses=[],
            origins=[],
            prompt=messages_json((Message("user", text),)),
            n_votes=0,
            meta={"ask": config.ask, "context": context},
        )


def _preferences(example: Example, config: Config) -> Iterator[str]:
    if len(example["responses"]) != 1:
        raise NotConvertibleError("a correction of one of several responses")
    draft = Completion(parse_messages(example["responses"][0])).text
    edits = dict.fromkeys(vote["edit"] for vote in example["votes"] if vote["edit"])
    texts = [Completion(parse_messages(edit)).text for edit in edits]
    changed = [text for text in texts if edit_distance(draft, text) >= config.least]
    if not changed:
        raise NotConvertibleError("no correction of so many words")
    for text in changed:
        yield f"Draft:\n{draft}\n\nWhat the user made of it:\n{text}"


def _attempts(example: Example, config: Config) -> Iterator[str]:
    outcomes = ratings(example, config.aspect)
    if config.ask == "lesson" and not mixed(outcomes, right=config.right):
        raise NotConvertibleError("its answers came out alike")
    if config.ask == "task":
        if any(outcome >= config.right for outcome in outcomes):
            raise NotConvertibleError("an answer came out right")
        yield ""
        return
    shown = [
        f"{'Right' if outcome >= config.right else 'Wrong'} answer:\n{Completion(parse_messages(text)).text}"
        for text, outcome in zip(example["responses"], outcomes, strict=True)
        if not math.isnan(outcome)
    ]
    yield "\n\n".join(shown)


def _talk(prompt: str) -> str:
    return "\n\n".join(message.content for message in parse_messages(prompt))
