"""TRL's dataset types: preference (explicit or implicit prompt), unpaired preference, stepwise supervision.

Each may be standard (texts) or conversational (lists of turns). An implicit prompt is what chosen and rejected share:
whole turns, or for texts the longest common beginning, cut back to a word's end (TRL's `extract_prompt` cuts at the
character, which can split a word). A pair file needs no more than these columns; others go to meta, `margin` becomes
the strength.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    UNSTATED,
    Row,
    Unit,
    UnusableRowError,
    field,
    in_steps,
    judgment,
    pair,
    response,
    rest,
    unit,
)


def is_preference(row: Row) -> bool:
    return "chosen" in row and "rejected" in row


def is_unpaired(row: Row) -> bool:
    return "prompt" in row and "completion" in row and "label" in row


def is_stepwise(row: Row) -> bool:
    return "prompt" in row and "completions" in row and "labels" in row


def preference(row: Row) -> Iterator[Unit]:
    chosen, rejected = field(row, "chosen"), field(row, "rejected")
    if row.get("images") or row.get("image"):
        raise UnusableRowError("the prompt holds images")
    if row.get("prompt") is None:
        prompt, chosen, rejected = shared_prompt(chosen, rejected)
    else:
        prompt = row["prompt"]
        chosen, rejected = without_prompt(prompt, chosen), without_prompt(prompt, rejected)
    first = response(chosen, generator=row.get("chosen_model"))
    second = response(rejected, generator=row.get("rejected_model"))
    used = ("prompt", "chosen", "rejected", "margin", "chosen_model", "rejected_model")
    yield pair(prompt, first, second, strength=row.get("margin"), **about(row, *used))


def about(row: Row, *used: str) -> dict[str, Any]:
    """What a unit takes from the columns that any row may have; columns neither used nor of those go to meta."""
    own = ("subset", "split", "license")
    return {"row_id": row.get("id"), "meta": rest(row, "id", *own, *used)} | {name: row.get(name) for name in own}


def shared_prompt(chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """(prompt, chosen, rejected) of two talks or texts that begin alike; UnusableRowError where they share nothing."""
    if isinstance(chosen, list) and isinstance(rejected, list):
        size = _common(chosen, rejected)
        if size == len(chosen) == len(rejected):
            raise UnusableRowError("identical responses")
        size = min(size, len(chosen) - 1, len(rejected) - 1)
    elif isinstance(chosen, str) and isinstance(rejected, str):
        if chosen == rejected:
            raise UnusableRowError("identical responses")
        size = _common(chosen, rejected)
        while size and not (chosen[size - 1].isspace() or chosen[size : size + 1].isspace()):
            size -= 1
        while size and chosen[size - 1].isspace():  # the space belongs to the reply
            size -= 1
    else:
        raise UnusableRowError("chosen and rejected are neither both texts nor both lists of turns")
    if size <= 0:
        raise UnusableRowError("no prompt: chosen and rejected share no beginning")
    return chosen[:size], chosen[size:], rejected[size:]


def _common(first: Any, second: Any) -> int:
    both = min(len(first), len(second))
    return next((at for at in range(both) if first[at] != second[at]), both)


def without_prompt(prompt: Any, reply: Any) -> Any:
    """A reply's own turns, where it repeats the prompt's before them (as UltraFeedback's binarized rows do)."""
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], dict):
        return reply
    lead = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if len(reply) > len(lead) and all(_same_turn(one, other) for one, other in zip(lead, reply, strict=False)):
        return reply[len(lead) :]
    return reply


def _same_turn(one: Any, other: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    return bool(one.get("role") == other.get("role") and one.get("content") == other.get("content"))


def unpaired(row: Row) -> Iterator[Unit]:
    """One response with the verdict desirable (1) or not (0)."""
    label = field(row, "label")
    if label not in (0, 1):
        raise UnusableRowError("label is not true or false")
    verdict = judgment(UNSTATED, "unknown", scores=[(0, "desirable", float(label))])
    inputs = without_prompt(row["prompt"], field(row, "completion"))
    yield unit(field(row, "prompt"), [response(inputs)], [verdict], **about(row, "prompt", "completion", "label"))


def stepwise(row: Row) -> Iterator[Unit]:
    """Steps with one true or false each."""
    labels, answer = field(row, "labels"), in_steps(field(row, "completions"))
    if not isinstance(labels, list) or len(labels) != len(answer["step_ends"]):
        raise UnusableRowError("the number of labels differs from the number of steps")
    if not all(label is None or label in (0, 1) for label in labels):
        raise UnusableRowError("a step label is not true, false or null")
    verdict = judgment(UNSTATED, "unknown", step_labels=[None if label is None else float(label) for label in labels])
    own = about(row, "prompt", "completions", "labels")
    yield unit(field(row, "prompt"), [answer], [verdict], kind="steps", **own)


TRL_STEPWISE = Source("trl-stepwise", "prompt, completions, labels", is_stepwise, stepwise)
TRL_UNPAIRED = Source("trl-unpaired", "prompt, completion, label", is_unpaired, unpaired)
TRL = Source("trl", "chosen, rejected, prompt explicit or shared", is_preference, preference)
