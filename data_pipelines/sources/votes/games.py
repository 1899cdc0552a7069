"""Judges' games without texts: MT-Bench's GPT-4 pairs and Arena-Hard's judgments. The answers lie in model_answer
files, one line a question and a model: `--items FOLDER --on question_id`.

Both ask each pair twice. MT-Bench names winners by model in both games. In Arena-Hard's game 0 A is the baseline, in
game 1 A is the model; `>>` is strength 2. A null score was not parsed and is no vote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipelines.sources.role_values import UNKNOWN_VERDICT
from data_pipelines.sources.source import Source
from data_pipelines.sources.table_reader import NO_TEXTS
from data_pipelines.sources.unit_builder import (
    Judgment,
    Row,
    Unit,
    UnusableRowError,
    field,
    judgment,
    records,
    response,
    rest,
    unit,
)
from data_pipelines.sources.verdicts import RANKS, verdict, word

BASELINES = ("gpt-4-0314", "baseline")


def is_mtbench(row: Row) -> bool:
    return all(name in row for name in ("model_1", "model_2", "g1_winner", "g2_winner", "judge"))


def mtbench(row: Row) -> Iterator[Unit]:
    models = [str(field(row, "model_1")), str(field(row, "model_2"))]
    judge = row["judge"][0] if isinstance(row["judge"], list) and row["judge"] else row["judge"]
    votes = []
    for game, order in (("g1", [0, 1]), ("g2", [1, 0])):
        value = row.get(f"{game}_winner")
        if value in (None, "", "error"):
            continue
        decision = verdict(value, names=(("model_1", models[0]), ("model_2", models[1])))
        if decision is None or decision.side == "none":
            raise UnusableRowError(UNKNOWN_VERDICT)
        votes.append(
            judgment(judge, "llm", ranks=RANKS[decision.side], rationale=row.get(f"{game}_judgment"))
            | {"shown_order": order}
        )
    turn = 2 if str(row.get("turn")) == "2" else 1
    yield _unit(row, models, votes, turn, rest(row, "items", "judge"))


def is_arena_hard(row: Row) -> bool:
    games = row.get("games")
    return (
        "model" in row
        and "judge" in row
        and isinstance(games, list)
        and all(isinstance(g, Mapping) and "score" in g for g in games)
    )


def arena_hard(row: Row) -> Iterator[Unit]:
    votes = []
    for at, game in enumerate(records(row, "games")):
        if game.get("score") in (None, ""):
            continue
        decision = word(str(game["score"]))
        if decision is None:
            raise UnusableRowError("the score of a game is not A>>B ... B>>A")
        side = decision.side if at % 2 else {"a": "b", "b": "a"}.get(decision.side, "tie")  # game 0: A is the baseline
        order = [0, 1] if at % 2 else [1, 0]
        vote = judgment(
            field(row, "judge"), "llm", ranks=RANKS[side], strength=decision.strength, rationale=game.get("judgment")
        )
        votes.append(vote | {"shown_order": order})
    baseline = row.get("baseline") or next((m for m in BASELINES if m in _answers(row)), None)
    yield _unit(
        row, [str(field(row, "model")), baseline and str(baseline)], votes, 1, rest(row, "items", "games", "judge")
    )


def _unit(row: Row, models: Sequence[Any], votes: list[Judgment], turn: int, meta: dict[str, Any]) -> Unit:
    answers = _answers(row)
    if not answers:
        raise UnusableRowError(NO_TEXTS)
    if missing := [model for model in models if model not in answers]:
        raise UnusableRowError(
            "--items has no answer of a model to this question" if missing[0] else "no baseline is named"
        )
    items = row.get("items")
    prompts = [
        item for item in (items if isinstance(items, list) else [row]) if _texts(item, ("turns", "prompt", "question"))
    ]
    if not prompts:
        raise UnusableRowError("--items has no text of this question")
    questions = _texts(prompts[0], ("turns", "prompt", "question"))[:turn]
    replies = [answers[model][:turn] for model in models]
    if turn > 1 and replies[0][:-1] != replies[1][:-1]:
        raise UnusableRowError(
            "the two talks differ before the last reply: the vote is on whole talks, not on one reply"
        )
    talk: list[dict[str, str]] = []
    for at, question in enumerate(questions):
        talk.append({"role": "user", "content": question})
        if at < len(questions) - 1:
            talk.append({"role": "assistant", "content": replies[0][at]})
    both = [response(reply[-1], generator=model) for reply, model in zip(replies, models, strict=True)]
    return unit(talk, both, votes, in_columns=True, row_id=row.get("question_id"), meta=meta)


def _texts(item: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    for name in names if isinstance(item, Mapping) else ():
        value = item.get(name)
        if isinstance(value, str) and value.strip():
            return [value]
        if isinstance(value, list) and value:
            return [str(one.get("content")) if isinstance(one, Mapping) else str(one) for one in value]
    return []


def _answers(row: Row) -> dict[Any, list[str]]:
    """Turns of the replies by model, from items of one model each, or from one item with a column a model."""
    items = row.get("items")
    if items is None and not any(name in row for name in ("prompt", "question", "turns")):
        return {}
    if not isinstance(items, list):
        return {
            name: [value]
            for name, value in row.items()
            if isinstance(value, str) and name not in ("prompt", "question")
        }
    result: dict[Any, list[str]] = {}
    for item in items:
        if not isinstance(item, Mapping):
            raise UnusableRowError("items are not objects")
        model = item.get("model_id") or item.get("model")
        choices = item.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
            item = {**item, **choices[0]}
        texts = _texts(item, ("answer", "response", "output", "turns"))
        if model and texts:
            result[str(model)] = texts
    return result


MTBENCH_JUDGMENT = Source(
    "mtbench-judgment",
    "model_1, model_2, g1_winner, g2_winner, judge",
    is_mtbench,
    mtbench,
    labels="model_1, model_2, tie, error",
    is_benchmark=True,
)
ARENA_HARD = Source(
    "arena-hard",
    "model, judge, games with score",
    is_arena_hard,
    arena_hard,
    labels="A>>B ... B>>A, null",
    is_benchmark=True,
)
