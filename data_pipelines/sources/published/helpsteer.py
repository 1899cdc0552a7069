"""HelpSteer 1-3 of NVIDIA (arXiv:2311.09528, 2406.08673, 2410.01257, 2505.11475).

    ratings       prompt, response, five attributes 0-4 (in HelpSteer2's `disagreements` one list an attribute)
    preference2   prompt, response_1, response_2, preference_strength -3 (first) .. 3 (second), its statements
    preference3   domain, language, context, response1, response2, overall_preference, individual_preference
    feedback      context, response (or response1/2 in the preference file's), feedback: texts of several people
    edit          context, original_response, edited_response, change_summary, feedback
    edit_quality  context, original_response, good_edited_response, bad_edited_response, feedback
    principle     context, response, principle, fulfilment Yes/No

Individual votes are the judgments where there are any; the published overall preference then stays in meta.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Judgment,
    Row,
    Unit,
    UnusableRowError,
    field,
    finite,
    judgment,
    pair,
    records,
    response,
    rest,
    signed_ranks,
    unit,
)
from rubrics.criteria import Criterion, rubric_json

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
UNUSABLE_VOTE = -100  # HelpSteer2: neither response could be preferred
_TURN_MARK = re.compile(r"\n*<extra_id_1>(User|Assistant)\n")


def is_ratings(row: Row) -> bool:
    return "prompt" in row and "response" in row and all(name in row for name in ATTRIBUTES)


def is_preference2(row: Row) -> bool:
    return "response_1" in row and "response_2" in row and "preference_strength" in row


def is_preference3(row: Row) -> bool:
    return "context" in row and "response1" in row and "response2" in row and "overall_preference" in row


def is_feedback(row: Row) -> bool:
    return "context" in row and "response" in row and "feedback" in row


def is_edit(row: Row) -> bool:
    return "context" in row and "original_response" in row and "edited_response" in row


def is_edit_quality(row: Row) -> bool:
    return "original_response" in row and "good_edited_response" in row and "bad_edited_response" in row


def is_principle(row: Row) -> bool:
    return "context" in row and "response" in row and "principle" in row and "fulfilment" in row


def ratings(row: Row) -> Iterator[Unit]:
    columns = {name: row[name] for name in ATTRIBUTES if row.get(name) is not None}
    if not columns:
        raise UnusableRowError("no attribute is rated")
    meta = rest(row, "prompt", "response", "split", *ATTRIBUTES)
    answer = response(field(row, "response"))
    yield unit(talk(field(row, "prompt")), [answer], _rated(columns), split=row.get("split"), meta=meta)


def _rated(columns: Mapping[str, Any]) -> list[Judgment]:
    """One judgment of the mean annotator, or one for each annotator where attributes hold lists."""
    if not any(isinstance(value, list) for value in columns.values()):
        return [judgment("annotator-mean", "human", scores=[(0, name, value) for name, value in columns.items()])]
    if len({len(value) if isinstance(value, list) else -1 for value in columns.values()}) != 1:
        raise UnusableRowError("attributes have different numbers of ratings")
    lists = list(columns.items())
    return [
        judgment(f"annotator-{at + 1}", "human", scores=[(0, name, values[at]) for name, values in lists])
        for at in range(len(lists[0][1]))
    ]


def talk(prompt: Any) -> Any:
    """The turns of a talk that HelpSteer2 writes as one text with <extra_id_1> marks; other prompts as they are."""
    if not isinstance(prompt, str) or "<extra_id_1>" not in prompt:
        return prompt
    parts = _TURN_MARK.split(prompt)
    first = [{"role": "user", "content": parts[0]}] if parts[0].strip() else []
    names = {"User": "user", "Assistant": "assistant"}
    settings = [{"role": names[mark], "content": text} for mark, text in zip(parts[1::2], parts[2::2], strict=True)]
    if settings and settings[-1]["role"] == "assistant" and not settings[-1]["content"].strip():
        settings.pop()  # the mark that asks for the reply
    return first + settings


def preference2(row: Row) -> Iterator[Unit]:
    votes = records(row, "all_preferences_unprocessed") if row.get("all_preferences_unprocessed") else []
    judged = [_vote(vote, "strength", vote.get("statement"), "elaboration") for vote in votes]
    judgments = [verdict for verdict in judged if verdict]
    if not judgments:
        overall = finite(field(row, "preference_strength"), "preference_strength")
        statement = row.get("preference_statement")
        judgments = [
            judgment(
                "annotator-majority", "human", ranks=signed_ranks(overall), strength=abs(overall), rationale=statement
            )
        ]
    answers = [response(field(row, name)) for name in ("response_1", "response_2")]
    meta = rest(row, "prompt", "response_1", "response_2", "split", "all_preferences_unprocessed")
    yield unit(talk(field(row, "prompt")), answers, judgments, in_columns=True, split=row.get("split"), meta=meta)


def preference3(row: Row) -> Iterator[Unit]:
    votes = records(row, "individual_preference") if row.get("individual_preference") else []
    judged = [_vote(vote, "score", vote.get("reasoning"), "feedback1", "feedback2") for vote in votes]
    judgments = [verdict for verdict in judged if verdict]
    if not judgments:
        overall = finite(field(row, "overall_preference"), "overall_preference")
        judgments = [judgment("annotator-majority", "human", ranks=signed_ranks(overall), strength=abs(overall))]
    answers = [response(field(row, name)) for name in ("response1", "response2")]
    meta = rest(row, "context", "response1", "response2", "individual_preference", "domain")
    yield unit(field(row, "context"), answers, judgments, in_columns=True, subset=row.get("domain"), meta=meta)


def _vote(vote: Mapping[str, Any], column: str, rationale: Any, *extra: str) -> Judgment | None:
    """One person's signed strength as a judgment; None where the person found neither usable."""
    strength = finite(field(vote, column), "preference strength")
    if strength == UNUSABLE_VOTE:
        return None
    settings = {name: vote[name] for name in extra if vote.get(name)}
    return judgment(
        "annotator", "human", ranks=signed_ranks(strength), strength=abs(strength), rationale=rationale, extra=settings
    )


def feedback(row: Row) -> Iterator[Unit]:
    notes = _notes(row)
    verdicts = [judgment("annotator", "human", rationale=note) for note in notes]
    meta = rest(row, "context", "response", "feedback", "domain")
    answer = response(field(row, "response"))
    yield unit(field(row, "context"), [answer], verdicts, subset=row.get("domain"), meta=meta)


def _notes(row: Row) -> list[str]:
    notes = row.get("feedback") or []
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise UnusableRowError("feedback is not a list of texts")
    return notes


def edit(row: Row) -> Iterator[Unit]:
    extra = {"feedback": _notes(row)}
    edited = field(row, "edited_response")
    verdict = judgment("editor", "human", edit=edited, rationale=row.get("change_summary"), extra=extra)
    meta = rest(row, "context", "original_response", "edited_response", "change_summary", "feedback", "domain")
    answer = response(field(row, "original_response"))
    yield unit(field(row, "context"), [answer], [verdict], subset=row.get("domain"), meta=meta)


def edit_quality(row: Row) -> Iterator[Unit]:
    """The edit that follows the feedback won over the one that does not; the original and the feedback are in meta."""
    _notes(row)
    good, bad = response(field(row, "good_edited_response")), response(field(row, "bad_edited_response"))
    meta = rest(row, "context", "good_edited_response", "bad_edited_response", "domain")
    prompt, subset = field(row, "context"), row.get("domain")
    yield pair(prompt, good, bad, rater="constructed", rater_kind="constructed", subset=subset, meta=meta)


def principle(row: Row) -> Iterator[Unit]:
    """Whether a response fulfils one principle, which becomes the unit's rubric."""
    target, held = field(row, "principle"), str(field(row, "fulfilment")).strip().lower()
    if not isinstance(target, str) or not target.strip():
        raise UnusableRowError("empty principle")
    if held not in ("yes", "no"):
        raise UnusableRowError("fulfilment is not Yes or No")
    verdict = judgment("deepseek-v3", "llm", scores=[(0, "fulfilment", float(held == "yes"))])
    meta = rest(row, "context", "response", "principle", "fulfilment", "domain")
    rubric = rubric_json([Criterion(criterion=target)])
    answer = response(field(row, "response"))
    yield unit(field(row, "context"), [answer], [verdict], rubric=rubric, subset=row.get("domain"), meta=meta)


HELPSTEER = Source("helpsteer", "prompt, response and five attributes", is_ratings, ratings, labels="attributes 0 to 4")
HELPSTEER2_PREFERENCE = Source(
    "helpsteer2-preference",
    "prompt, response_1, response_2, preference_strength",
    is_preference2,
    preference2,
    labels="-3 the first ... 3 the second; -100 no vote",
)
HELPSTEER3_PREFERENCE = Source(
    "helpsteer3-preference",
    "context, response1, response2, overall_preference",
    is_preference3,
    preference3,
    labels="-3 the first ... 3 the second, 0 a tie",
)
HELPSTEER3_EDIT_QUALITY = Source(
    "helpsteer3-edit-quality",
    "context, original_response, good_edited_response, bad_edited_response",
    is_edit_quality,
    edit_quality,
    labels="the good edit is better",
)
HELPSTEER3_EDIT = Source(
    "helpsteer3-edit", "context, original_response, edited_response", is_edit, edit, labels="the corrected text"
)
HELPSTEER3_PRINCIPLE = Source(
    "helpsteer3-principle", "context, response, principle, fulfilment", is_principle, principle, labels="Yes or No"
)
HELPSTEER3_FEEDBACK = Source(
    "helpsteer3-feedback", "context, response, feedback", is_feedback, feedback, labels="texts of several people"
)
