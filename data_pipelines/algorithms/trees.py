"""The tree of a row: its responses merged by equal prefixes (`rmkit.trees`).

A step is what `step_ends` or a separator cuts a text into; a completion of several assistant turns has a turn with the
tools' replies to it as a step, and two turns are the same where the assistant said and called the same. A response may
have been sampled several times, and from a prefix: its scores `from_step_N` count the samples of which N steps were
given (see the step `rollouts`); without any it counts as one sample from the prompt. Where the rating `outage` is 1 the
tools failed: nothing is known of what the policy chose. What a search says of its nodes comes from meta (see the source
`search-tree`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Annotated, Any

from data_pipelines.converters import NotConvertibleError
from rmkit.chat.steps import in_steps, step_texts
from rmkit.errors import DataError
from rmkit.ids import messages_json, parse_messages
from rmkit.shaping.spans import TURN_JOINT
from rmkit.trees.dump import read_dump
from rmkit.trees.tree import Builder, Path, Tree
from rmkit.types import Completion, Message

OUTCOME = "correct"
OUTAGE = "outage"
SAMPLED = "from_step_"  # the aspect that counts the samples of a response to which so many steps were given


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a row becomes a tree."""

    separator: Annotated[str, "cuts texts that come without step ends"] = "\n"
    outcome: Annotated[str, "the rating that says what a response is worth; the only one where it is not there"] = (
        OUTCOME
    )
    groups: Annotated[str, "a rating that numbers equivalence classes"] = "group"


@dataclass(frozen=True, slots=True)
class Grown:
    """`at` [N] the nodes of each response's steps, `whole` [N] whether it is no continuation, `turns`
    whether steps are turns; `ends` [N] where steps end in its text, and `placed` [N] which of its nodes those are: all,
    but for turns that only call tools."""

    tree: Tree
    at: tuple[tuple[int, ...], ...]
    whole: tuple[bool, ...]
    outcome: tuple[float, ...]
    ends: tuple[tuple[int, ...], ...]
    placed: tuple[tuple[int, ...], ...]
    turns: bool


def tree_to_convert(example: Mapping[str, Any], reading: Reading, *, no_turns: str = "") -> Grown:
    """`grown` for a converter: what stands against a tree is why no unit follows from the row.

    `no_turns` is the reason of converters that need texts, where the row holds trajectories.
    """
    try:
        result = grown(example, reading)
    except DataError as error:
        raise NotConvertibleError(str(error)) from None
    if no_turns and result.turns:
        raise NotConvertibleError(no_turns)
    return result


def grown(example: Mapping[str, Any], reading: Reading) -> Grown:
    """The tree of a row. Raises DataError for a row without responses or of which nothing is known."""
    if not example["responses"]:
        raise DataError("no response")
    ends = example["step_ends"] or [None] * len(example["responses"])
    completions = [
        Completion(parse_messages(text), step_ends=tuple(own or ()))
        for text, own in zip(example["responses"], ends, strict=True)
    ]
    meta = json.loads(example["meta"] or "{}") if example.get("meta") else {}
    searched = read_dump({"nodes": meta["tree"]}) if isinstance(meta.get("tree"), list) else []
    turns = not any(one.step_ends for one in completions) and (
        any(_is_trajectory(one) for one in completions) or any(node.turns for node in searched)
    )
    marked = completions if turns else [in_steps(one, separator=reading.separator) for one in completions]
    steps = [_turns(one) if turns else step_texts(one) for one in marked]
    scores = _scores(example)
    outcome = _outcomes(scores, reading, len(steps))
    builder = Builder(key=_action if turns else str.strip)
    whole = []
    for at, own in enumerate(steps):
        sampled = {int(name.removeprefix(SAMPLED)): round(n) for name, n in scores[at].items() if _counts(name)}
        whole.append(not sampled or any(start == 0 or start >= len(own) for start in sampled))
        group = "" if math.isnan(number := scores[at].get(reading.groups, math.nan)) else f"{number:g}"
        for start, n in (sampled or {0: 1}).items():
            for _ in range(n):
                builder.add(Path(steps=own, outcome=outcome[at], start=min(start, len(own)), group=group))
    for node in searched:
        if node.turns == turns:
            builder.mark(node.steps, node.facts)
    tree = builder.tree()
    places = [_spoken(own) if turns else dict(enumerate(one.step_ends)) for own, one in zip(steps, marked, strict=True)]
    return Grown(
        tree,
        tuple(tree.walk(own) for own in steps),
        tuple(whole),
        tuple(outcome),
        tuple(tuple(own.values()) for own in places),
        tuple(map(tuple, places)),
        turns,
    )


def completion_of(tree: Tree, node: int, *, turns: bool) -> tuple[str, list[int]]:
    """(canonical messages, step ends) of the completion that ends behind a node; of turns there are no step ends.

    Nothing stands behind what the policy chose, no blank and no tool's reply: it would tell the end of a solution from
    the middle of one.
    """
    *before, last = tree.steps(node)
    if not turns:
        steps = [*before, last.rstrip()]
        return messages_json((Message("assistant", "".join(steps)),)), list(accumulate(map(len, steps)))
    steps = [*before, last]
    messages = [message for step in steps[:-1] for message in parse_messages(step)]
    return messages_json((*messages, parse_messages(steps[-1])[0])), []


def _counts(name: str) -> bool:
    return name.startswith(SAMPLED) and name.removeprefix(SAMPLED).isdigit()


def _scores(example: Mapping[str, Any]) -> list[dict[str, float]]:
    """[N] ratings of each response by aspect."""
    result: list[dict[str, float]] = [{} for _ in example["responses"]]
    for one in example["scores"] or ():
        result[one["response"]][one["aspect"] or ""] = float(one["value"])
    return result


def _outcomes(scores: Sequence[Mapping[str, float]], reading: Reading, n: int) -> list[float]:
    """[N] what each response is worth, NaN where nothing says it."""
    names = {name for own in scores for name in own if not _counts(name) and name not in (reading.groups, OUTAGE)}
    name = reading.outcome if reading.outcome in names else next(iter(names)) if len(names) == 1 else None
    if name is None:
        seen = f"; its ratings are {', '.join(sorted(map(repr, names)))}" if names else ""
        raise DataError(f"no rating {reading.outcome!r} says what the responses are worth{seen}")
    return [math.nan if own.get(OUTAGE, 0) >= 0.5 else own.get(name, math.nan) for own in scores]


def _is_trajectory(completion: Completion) -> bool:
    return sum(message.role == "assistant" for message in completion.messages) > 1


def _turns(completion: Completion) -> tuple[str, ...]:
    """Each assistant turn with what the tools replied, as canonical messages."""
    turns: list[list[Message]] = []
    for message in completion.messages:
        if message.role == "assistant" or not turns:
            turns.append([])
        turns[-1].append(message)
    return tuple(map(messages_json, turns))


def _spoken(turns: Sequence[str]) -> dict[int, int]:
    """Of the turns that say something, by number: where they end in the completion's text."""
    result: dict[int, int] = {}
    end = -len(TURN_JOINT)  # none stands before the first
    for at, turn in enumerate(turns):
        first = parse_messages(turn)[0]
        if first.role != "assistant":  # a tool may speak first
            continue
        end += len(TURN_JOINT) + len(first.content)
        if first.content.strip():
            result[at] = end
    return result


def _action(turn: str) -> str:
    """What the policy chose: the turn without the tools' replies, and without the ids of its calls."""
    first = parse_messages(turn)[0]
    calls = tuple({key: value for key, value in call.items() if key != "id"} for call in first.tool_calls)
    return messages_json((replace(first, tool_calls=calls),))
