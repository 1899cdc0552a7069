"""What a file should read as, beside what it does read as: units by content, judgments by what they say.

An expectation is a line of an `expected.jsonl`. Per unit it states `prompt` (list of [role, text]), `responses` (texts;
turns after the first of a response as "(role) text" on lines of their own) or `steps`, `judgments`, and where there is
one `rubric` (texts, or [text, weight] with weights on any common scale) and `reference`. A judgment states any of

    winner     position in `responses`, or "tie"
    ranks      [N] 0 best, null unranked
    scores     aspect -> [N] values, null where not scored; the aspect `steps` stands for the labels of the steps, "*"
               for whatever the importer calls it
    strength   without its sign
    rater, rater_kind, rationale, edit

and nothing is compared that it does not state. `optional` says that a unit or judgment may as well be absent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rmkit.errors import DataError
from tests.data_pipelines.sources import readings

Expectation = Mapping[str, Any]
Unit = dict[str, Any]
KINDS = {"verified": "verifier"}


def read(path: Path) -> list[Unit]:
    """The units of a file as `rmkit ingest` reads it without options; none where nothing is usable."""
    try:
        return readings.read(path).units
    except DataError:
        return []


def differences(expectation: Expectation, units: Sequence[Unit]) -> list[str]:
    """What is read otherwise than expected, a line each; units of the same content count as one."""
    merged: dict[str, Unit] = {}
    for unit in units:
        one = merged.setdefault(_key(unit), unit | {"judgments": []})
        one["judgments"] = [*one["judgments"], *_placed(unit, one)]
    problems = []
    for item in expectation["expected"]:
        unit = merged.pop(_expected_key(item), None)
        if unit is not None:
            problems += _of_unit(item, unit)
        elif not item.get("optional"):
            problems.append(f"no unit {_expected_key(item)}")
    return problems + [f"a unit that should not be: {key}" for key in merged]


def _key(unit: Unit) -> str:
    prompt = [[message["role"], message["content"].strip()] for message in json.loads(unit["prompt"])]
    return json.dumps([prompt, sorted(_texts(unit))], ensure_ascii=False)


def _expected_key(item: Expectation) -> str:
    replies = ["\n\n".join(item["steps"])] if item.get("steps") else item["responses"]
    return json.dumps([item["prompt"], sorted(replies)], ensure_ascii=False)


def _texts(unit: Unit) -> list[str]:
    if unit["kind"] == "steps":
        return ["\n\n".join(_steps(unit))]
    return [_text(json.loads(answer["messages"])) for answer in unit["responses"]]


def _text(messages: Sequence[Mapping[str, Any]]) -> str:
    first, *others = messages
    return "\n".join([first["content"].strip(), *(f"({m['role']}) {m['content'].strip()}" for m in others)])


def _steps(unit: Unit) -> list[str]:
    (answer,) = unit["responses"]
    text = "\n\n".join(message["content"] for message in json.loads(answer["messages"]))
    ends = list(answer["step_ends"] or [])
    return [text[start:end].strip() for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _placed(unit: Unit, first: Unit) -> list[dict[str, Any]]:
    """The judgments of a unit with positions as in the first unit of the same content."""
    here, there = _texts(unit), _texts(first)
    place = [there.index(text) for text in here]
    moved = []
    for judgment in unit["judgments"]:
        ranks = judgment["ranks"]
        if ranks is not None:
            ranks = [ranks[place.index(spot)] for spot in range(len(there))]
        scores = [score | {"response": place[score["response"] or 0]} for score in judgment["scores"] or ()]
        moved.append(judgment | {"ranks": ranks, "scores": scores})
    return moved


def _of_unit(item: Expectation, unit: Unit) -> list[str]:
    name = item["prompt"][-1][1][:30] if item["prompt"] else "unit"
    problems = []
    if item.get("rubric") and not _same_rubric(item["rubric"], json.loads(unit["rubric"] or "[]")):
        problems.append(f"{name}: rubric is {unit['rubric']}, expected {item['rubric']}")
    if item.get("reference") and item["reference"] != unit["reference"]:
        problems.append(f"{name}: reference is {unit['reference']!r}, expected {item['reference']!r}")
    texts = _texts(unit)
    order = [texts.index(text) for text in item["responses"]]
    left = [_stated(judgment, order) for judgment in unit["judgments"]]
    for judgment in sorted(item["judgments"], key=lambda one: (bool(one.get("optional")), -len(one))):
        fit = next((at for at, actual in enumerate(left) if _fits(judgment, actual)), None)
        if fit is not None:
            left.pop(fit)
        elif not judgment.get("optional"):
            problems.append(f"{name}: nobody says {json.dumps(judgment, ensure_ascii=False)}; left are {left}")
    return problems + [f"{name}: a judgment that should not be: {actual}" for actual in left]


def _same_rubric(rubric: Sequence[Any], criteria: Sequence[Mapping[str, Any]]) -> bool:
    texts = [one if isinstance(one, str) else one[0] for one in rubric]
    if [criterion["criterion"] for criterion in criteria] != texts:
        return False
    if isinstance(rubric[0], str):
        return True
    weights = [criterion.get("weight", 1.0) for criterion in criteria]
    ratio = rubric[0][1] / weights[0]
    return ratio > 0 and all(
        math.isclose(weight * ratio, one[1], rel_tol=1e-6) for weight, one in zip(weights, rubric, strict=True)
    )


def _stated(judgment: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """A judgment with the responses in the expectation's order, in the expectation's words."""
    n, ranks = len(order), judgment["ranks"]
    actual: dict[str, Any] = {name: judgment[name] for name in ("rater", "rater_kind", "rationale")}
    actual["ranks"] = None if ranks is None else [ranks[spot] for spot in order]
    actual["strength"] = None if judgment["strength"] is None else abs(judgment["strength"])
    actual["edit"] = _text(json.loads(judgment["edit"])) if judgment["edit"] else None
    scores: dict[str, list[float | None]] = {}
    for score in judgment["scores"]:
        values = scores.setdefault(score["aspect"], [None] * n)
        values[order.index(score["response"])] = score["value"]
    if judgment["step_labels"] is not None:
        scores["steps"] = judgment["step_labels"]
    return actual | {"scores": scores}


def _fits(judgment: Expectation, actual: Mapping[str, Any]) -> bool:
    ranks, scores = actual["ranks"], actual["scores"]
    if "winner" in judgment:
        if ranks is None or None in ranks:
            return False
        best = [at for at, rank in enumerate(ranks) if rank == min(ranks)]
        if best != ([judgment["winner"]] if judgment["winner"] != "tie" else list(range(len(ranks)))):
            return False
    if "ranks" in judgment and judgment["ranks"] != ranks:
        return False
    for aspect, values in judgment.get("scores", {}).items():
        if not any(_close(values, scores[name]) for name in scores if aspect in (name, "*")):
            return False
    if "strength" in judgment and not _close([judgment["strength"]], [actual["strength"]]):
        return False
    kind = judgment.get("rater_kind", actual["rater_kind"])
    if KINDS.get(kind, kind) != actual["rater_kind"]:
        return False
    return all(judgment[name] == actual[name] for name in ("rater", "rationale", "edit") if name in judgment)


def _close(one_side: Sequence[float | None], values: Sequence[float | None]) -> bool:
    return len(one_side) == len(values) and all(
        (one is None) == (other is None) and (one is None or other is None or math.isclose(one, other, abs_tol=1e-6))
        for one, other in zip(one_side, values, strict=True)
    )
