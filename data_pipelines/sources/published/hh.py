"""HH-RLHF (arXiv:2204.05862): a whole talk as one text, "\\n\\nHuman: ... \\n\\nAssistant: ...", chosen and rejected.

Both talks must be the same up to the last reply. The red-team attempts of the same release are one talk with a rating
0-4 of how well the attack went (by the attacker) and a harmlessness score (by a model); their unit is the last reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError, field, judgment, pair, response, rest, unit

_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
RED_TEAM = "min_harmlessness_score_transcript"


def is_pair(row: Row) -> bool:
    """Whether a row is two transcripts and nothing else; with a rater or a prompt beside them it is anybody's file."""
    return set(row) == {"chosen", "rejected"} and all(
        isinstance(text, str) and _MARK.match(text.lstrip(" ")) for text in row.values()
    )


def is_red_team(row: Row) -> bool:
    return "transcript" in row and ("rating" in row or RED_TEAM in row)


def transcript(text: Any) -> list[dict[str, str]]:
    """The turns of a talk, texts stripped. Raises UnusableRowError where it does not begin with a mark."""
    if not isinstance(text, str):
        raise UnusableRowError("the talk is not text")
    parts = _MARK.split(text)
    if parts[0].strip() or len(parts) < 3:
        raise UnusableRowError("the talk has no Human: and Assistant: marks at its start")
    names = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": names[mark], "content": settings.strip()}
        for mark, settings in zip(parts[1::2], parts[2::2], strict=True)
    ]


def pairs(row: Row) -> Iterator[Unit]:
    chosen, rejected = transcript(field(row, "chosen")), transcript(field(row, "rejected"))
    if chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise UnusableRowError("the talk does not end with a reply")
    if chosen[:-1] != rejected[:-1]:
        raise UnusableRowError("the two talks differ before the last reply")
    if len(chosen) == 1:
        raise UnusableRowError("no user turn in the prompt")
    first, second = response(chosen[-1]["content"]), response(rejected[-1]["content"])
    yield pair(chosen[:-1], first, second, rater="annotator", rater_kind="human", meta=rest(row, "chosen", "rejected"))


def red_team(row: Row) -> Iterator[Unit]:
    talk = transcript(field(row, "transcript"))
    while talk and talk[-1]["role"] == "user":  # the attacker may have had the last word
        talk.pop()
    if not talk:
        raise UnusableRowError("no reply in the talk")
    answers = []
    if row.get("rating") is not None:
        member = f"red-team-{row.get('red_team_member_id', 'member')}"
        answers.append(judgment(member, "human", scores=[(0, "attack_success", row["rating"])]))
    if row.get(RED_TEAM) is not None:
        answers.append(judgment("harmlessness-model", "rm", scores=[(0, "min_harmlessness", row[RED_TEAM])]))
    answer = response(talk[-1]["content"], generator=row.get("model_type"))
    yield unit(talk[:-1], [answer], answers, meta=rest(row, "transcript", "rating", RED_TEAM))


HH = Source("hh", "HH-RLHF: chosen and rejected transcripts", is_pair, pairs, labels="chosen is better")
HH_RED_TEAM = Source(
    "hh-red-team",
    "HH-RLHF red-team attempts: transcript, rating",
    is_red_team,
    red_team,
    labels="rating 0 to 4 of the attack",
)
