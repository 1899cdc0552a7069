"""The two training sets of Rubric-RM as conversations, ready for supervised fine-tuning.

    writer  request -> rubric                        from the request alone, as the writer will be asked
    judge   request, two responses, rubric -> rationale and verdict    the teacher's own words, only where it was right

Pairs judged in both orders give about as many verdicts A as B; `balanced` drops the surplus so that exactly half are A,
because a judge learns the base rate of the letters first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rmkit.ids import canonical_json, content_hash, message_mapping
from rmkit.judge import Judge, Judged
from rmkit.judge.prompt_file import PromptFile, Shown
from rmkit.types import Message
from rubrics.contrastive import Outcome

Row = dict[str, Any]


def writer_rows(outcomes: Iterable[Outcome], prompt: PromptFile) -> Iterator[Row]:
    """One row per kept rubric: {"id", "prompt", "completion"}."""
    for outcome in outcomes:
        if outcome.dropped is None:
            requests = prompt.render(outcome.instance.candidates.prompt, Shown(responses=()), settings={})
            yield _row(outcome.instance.id, requests, outcome.text)


def judge_rows(judge: Judge, judged: Iterable[tuple[str, Judged, str]]) -> Iterator[Row]:
    """One row per vote that names the better response: the same and "verdict".

    Takes (id, judged pair with the better response first, rubric).
    """
    settings = {"lowest": 1, "highest": 10, "ties": False}
    for name, result, rubric in judged:
        for vote in result.votes:
            first = vote.shown[0] == 0
            if vote.reading.unread or (vote.reading.values[0] > 0.5) != first or vote.reading.values[0] == 0.5:
                continue
            shown = Shown(responses=tuple(result.candidates.completions[i] for i in vote.shown), rubric=rubric)
            requests = judge.prompt.render(result.candidates.prompt, shown, settings=settings)
            yield _row(name, requests, vote.sample.text) | {"verdict": "A" if first else "B"}


def balanced(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """As many rows of each verdict, those of the smaller hash, in the given order; and what was too many.

    Where all rows have one verdict, all are too many: there is nothing to balance against.
    """
    inputs = list(rows)
    by_verdict: dict[str, list[Row]] = {}
    for row in inputs:
        by_verdict.setdefault(row["verdict"], []).append(row)
    n = min(map(len, by_verdict.values())) if len(by_verdict) > 1 else 0
    chosen = {id(row) for names in by_verdict.values() for row in sorted(names, key=_hash)[:n]}
    return [row for row in inputs if id(row) in chosen], [row for row in inputs if id(row) not in chosen]


def _hash(row: Row) -> str:
    return content_hash(canonical_json(row))


def _row(name: str, prompt: Sequence[Message], reply: str) -> Row:
    requests = [message_mapping(message) for message in prompt]
    return {"id": name, "prompt": requests, "completion": [{"role": "assistant", "content": reply}]}
