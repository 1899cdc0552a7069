"""What an event must say to become a judgment.

A payload is checked strictly (an unknown key is refused, so that a misspelled one cannot silently lose a person's
work). All positions are in the unit's stored order of responses. Keys of kinds `judgment` and `edit` (which must have
`edit`):

    unit             32 hex digits: the unit's content hash (required)
    rater            who judged; default: the event's actor
    rater_kind       human (default) | llm | verifier | rm | constructed | unknown
    ranks            [N] 0 best, equal ranks tie, null unranked
    shown_order      [N] positions in the order in which the rater saw them
    strength         on the task's own scale
    scores           [{response, aspect, value}]
    step_labels      [S] 0 wrong to 1 right, null where labels end
    spans            [object], marked passages
    edit             [{role, content, ...}] the rater's corrected response
    rationale        text
    confidence       0 to 1
    verdict          ok (default; says at least one of ranks, scores, step_labels, spans, edit) | skip | bad_item
    active_ms, wall_ms, suggestion_seen, is_gold, propensity (0 exclusive to 1), extra (object)

Keys of kind `reaction` (a thumb, a star): unit, value (required), response (position, default 0), aspect (default
`reaction`), rater, rater_kind, rationale, extra. It becomes one entry of `scores`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from rmkit.errors import DataError
from rmkit.ids import canonical_json, messages_json
from rmkit.types import Event, Message

KINDS = ("edit", "judgment", "reaction")

Position = Annotated[int, Field(ge=0, lt=2**31)]
Milliseconds = Annotated[int, Field(ge=0, lt=2**63)]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Turn(_Strict):
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    name: str | None = None
    tool_calls: list[dict[str, Any]] = []
    tool_call_id: str | None = None
    reasoning: str | None = None


class Rating(_Strict):
    response: Position
    aspect: Annotated[str, Field(min_length=1)]
    value: FiniteFloat


class _Judged(_Strict):
    unit: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    rater: Annotated[str, Field(min_length=1)] | None = None
    rater_kind: Literal["human", "llm", "verifier", "rm", "constructed", "unknown"] = "human"
    rationale: str | None = None
    extra: dict[str, Any] | None = None


class JudgmentPayload(_Judged):
    """The payload of a judgment or an edit; see the module."""

    ranks: list[Position | None] | None = None
    shown_order: list[Position] | None = None
    strength: FiniteFloat | None = None
    scores: list[Rating] | None = None
    step_labels: list[Probability | None] | None = None
    spans: list[dict[str, Any]] | None = None
    edit: Annotated[list[Turn], Field(min_length=1)] | None = None
    confidence: Probability | None = None
    verdict: Literal["ok", "skip", "bad_item"] = "ok"
    active_ms: Milliseconds | None = None
    wall_ms: Milliseconds | None = None
    suggestion_seen: bool | None = None
    is_gold: bool | None = None
    propensity: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        ranked = [rank for rank in self.ranks or [] if rank is not None]
        if ranked and min(ranked) != 0:
            raise ValueError(f"the best rank must be 0, got {min(ranked)}")
        labeled = any(label is not None for label in self.step_labels or [])
        if self.verdict == "ok" and not (ranked or self.scores or labeled or self.spans or self.edit):
            raise ValueError("verdict ok needs one of ranks, scores, step_labels, spans, edit")
        return self

    def misfit(self, n_responses: int, n_steps: int | None) -> str | None:
        """Why the positions do not fit a unit of so many responses and steps, None where they do."""
        if self.ranks is not None and len(self.ranks) != n_responses:
            return f"ranks has {len(self.ranks)} entries, the unit has {n_responses} responses"
        if self.shown_order is not None and sorted(self.shown_order) != list(range(n_responses)):
            return f"shown_order {self.shown_order} is no order of the unit's {n_responses} responses"
        for rating in self.scores or []:
            if rating.response >= n_responses:
                return f"scores rates response {rating.response}, the unit has {n_responses} responses"
        if self.step_labels is not None and n_steps is not None and len(self.step_labels) != n_steps:
            return f"step_labels has {len(self.step_labels)} entries, the unit has {n_steps} steps"
        return None

    def columns(self) -> dict[str, object]:
        """The values of the table's columns, but for ids and time."""
        values = self.model_dump(exclude={"unit", "rater", "rater_kind", "spans", "edit", "extra"})
        return values | {
            "spans": None if self.spans is None else canonical_json(self.spans),
            "edit": None if self.edit is None else messages_json(Message(**turn.model_dump()) for turn in self.edit),
            "extra": None if self.extra is None else canonical_json(self.extra),
        }


class ReactionPayload(_Judged):
    """The payload of a reaction; see the module."""

    value: FiniteFloat
    response: Position = 0
    aspect: Annotated[str, Field(min_length=1)] = "reaction"

    def as_judgment(self) -> JudgmentPayload:
        rating = Rating(response=self.response, aspect=self.aspect, value=self.value)
        return JudgmentPayload(**self.model_dump(include=set(_Judged.model_fields)), scores=[rating])


def read_payload(event: Event) -> JudgmentPayload:
    """The event's payload, checked. Raises DataError with the first fault."""
    try:
        if event.kind == "reaction":
            return ReactionPayload.model_validate(event.payload).as_judgment()
        payload = JudgmentPayload.model_validate(event.payload)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "payload"
        raise DataError(f"{where}: {fault['msg'].removeprefix('Value error, ')}") from error
    if event.kind == "edit" and payload.edit is None:
        raise DataError("edit: required in an event of this kind")
    return payload
