"""Chatbot Arena rows that need code: the Kaggle table of 55k votes, and MT-Bench's human judgments.

The table holds the user's turns and both models' replies as three lists. MT-Bench gives both talks whole and says which
turn was judged: turn 1 is the first exchange alone. Where the two talks differ before the last reply there is no shared
prompt, and the row is refused: no vote on a single turn can be told from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data_pipelines.sources.form import Form
from data_pipelines.sources.source import Source
from data_pipelines.sources.table_reader import TableReader
from data_pipelines.sources.talks import is_talk
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError, field
from data_pipelines.sources.verdicts import as_text

_TALKS = Form(
    name="lmarena-55k",
    roles={
        "response_a": "talk_a",
        "response_b": "talk_b",
        "preference": "winner",
        "model_a": "model_a",
        "model_b": "model_b",
        "rater": "judge?",
        "id": "id?",
    },
    kind="human",
    rater="arena-voter",
)
_READ = TableReader(_TALKS)
DIFFER = "the two talks differ before the last reply: the vote is on whole talks, not on one reply"
_HOT = ("winner_model_a", "winner_model_b", "winner_tie")


def is_55k(row: Row) -> bool:
    return all(name in row for name in ("prompt", "response_a", "response_b", *_HOT))


def votes_55k(row: Row) -> Iterator[Unit]:
    users, sides = field(row, "prompt"), [field(row, "response_a"), field(row, "response_b")]
    lists = [[side] if isinstance(side, str) else side for side in (users, *sides)]
    if not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
        raise UnusableRowError("prompt and replies are not lists of one length")
    chosen = [name for name in _HOT if as_text(row[name]).lower() in ("1", "true")]
    if len(chosen) != 1:
        raise UnusableRowError("of winner_model_a, winner_model_b and winner_tie not exactly one is set")
    talks = [_talk(lists[0], one) for one in lists[1:]]
    if talks[0][:-1] != talks[1][:-1]:
        raise UnusableRowError(DIFFER)
    others = {name: value for name, value in row.items() if name not in (*_HOT, "prompt", "response_a", "response_b")}
    yield from _READ({**others, "talk_a": talks[0], "talk_b": talks[1], "winner": chosen[0].removeprefix("winner_")})


def _talk(users: list[Any], replies: list[Any]) -> list[dict[str, Any]]:
    return [
        turn
        for user, reply in zip(users, replies, strict=True)
        for turn in (
            {"role": "user", "content": user},
            {"role": "assistant", "content": "" if reply is None else reply},
        )
    ]


def is_mtbench(row: Row) -> bool:
    return all(name in row for name in ("conversation_a", "conversation_b", "winner", "judge", "turn", "question_id"))


def mtbench(row: Row) -> Iterator[Unit]:
    turn = as_text(field(row, "turn"))
    if turn not in ("1", "2"):
        raise UnusableRowError("turn is not 1 or 2")
    whole = [field(row, name) for name in ("conversation_a", "conversation_b")]
    if not all(is_talk(talk) for talk in whole):
        raise UnusableRowError("a conversation is no list of turns")
    talks = [talk[: 2 * int(turn)] for talk in whole]
    if not all(len(talk) == 2 * int(turn) for talk in talks):
        raise UnusableRowError("a talk is shorter than the turn that was judged")
    judge = row["judge"][0] if isinstance(row["judge"], list) and row["judge"] else row["judge"]
    if talks[0][:-1] != talks[1][:-1]:
        raise UnusableRowError(DIFFER)
    kind = "human" if str(judge).startswith(("expert", "author")) else "llm"
    others = {n: v for n, v in row.items() if n not in ("conversation_a", "conversation_b", "judge")}
    for unit in _READ({**others, "talk_a": talks[0], "talk_b": talks[1], "judge": judge}):
        for judgment in unit["judgments"]:
            judgment["rater_kind"] = kind
        yield unit


LMARENA_55K = Source(
    "lmarena-55k",
    "prompt, response_a, response_b as lists, winner_model_a, winner_model_b, winner_tie",
    is_55k,
    votes_55k,
    labels="one of three columns is 1",
)
MTBENCH_HUMAN = Source(
    "mtbench-human",
    "conversation_a, conversation_b, turn, winner, judge",
    is_mtbench,
    mtbench,
    labels="model_a, model_b, tie, tie (inconsistent); turn says which turn",
    is_benchmark=True,
)
