"""What the native routes read and write, as JSON. A failure is `value: null` with its reason in `unscored`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from rmkit.serve.rewards.groups import Transform
from rmkit.types import Candidates, Comparison, Completion, Conversation, Message, ModelInfo, Score

_STRICT = ConfigDict(extra="forbid")


class MessageIn(BaseModel):
    """One turn of a conversation."""

    model_config = _STRICT

    role: Annotated[str, Field(pattern="^(system|user|assistant|tool)$", examples=["user"])]
    content: str
    name: str | None = None
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    tool_call_id: str | None = None
    reasoning: str | None = None

    def read(self) -> Message:
        return Message(
            self.role, self.content, self.name, tuple(self.tool_calls), self.tool_call_id, self.reasoning or None
        )


class CompletionIn(BaseModel):
    """A completion with its policy's name, or split into steps (character offsets, exclusive, ascending)."""

    model_config = _STRICT

    messages: Annotated[list[MessageIn], Field(min_length=1)]
    source: str | None = None
    step_ends: list[Annotated[int, Field(gt=0)]] = Field(default_factory=list)


AnyPrompt = str | list[MessageIn]
AnyCompletion = str | list[MessageIn] | CompletionIn


class ItemIn(BaseModel):
    """A prompt (a user's text, or a conversation) and its completions (texts, messages, or with steps)."""

    model_config = _STRICT

    prompt: AnyPrompt
    completions: Annotated[list[AnyCompletion], Field(min_length=1)]
    source: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Where the prompt comes from; drift is told per source."
    )
    tools: list[dict[str, Any]] = Field(default_factory=list, description="Schemas of the tools that could be called.")
    reference: str | None = Field(default=None, description="The right answer; the component exact_match compares it.")
    rubric: str | list[dict[str, Any]] = Field(
        default_factory=list, description="Criteria for this item, as objects with `criterion`, or one as text."
    )

    def read(self) -> Candidates:
        rubric = [{"criterion": self.rubric}] if isinstance(self.rubric, str) else self.rubric
        return Candidates(
            _conversation(self.prompt, "user"),
            tuple(_completion(one) for one in self.completions),
            tools=tuple(self.tools),
            reference=self.reference,
            rubric=tuple(rubric),
        )


def _in_range(value: Any) -> Any:
    """An integer beyond the largest float as the infinity that JSON's 1e400 is read as: it spoils its own item only."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
    return value


class ScoreItemIn(ItemIn):
    """An item that may belong to a group and bring the findings of the caller's own verifiers."""

    group_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Completions under one id are one group; without it an item is its own group."
    )
    group_size: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None,
        description="How many completions the group has, where it comes in several requests; they wait for each other.",
    )
    components: dict[str, list[Annotated[float | None, BeforeValidator(_in_range)]]] = Field(
        default_factory=dict,
        description="Named numbers per completion, found elsewhere (unit tests, say). Where one with a weight is null "
        "or not finite, that completion is unscored.",
    )

    @model_validator(mode="after")
    def _one_number_per_completion(self) -> Self:
        for name, values in self.components.items():
            if len(values) != len(self.completions):
                raise ValueError(
                    f"component {name!r} has {len(values)} numbers for {len(self.completions)} completions"
                )
        return self


class PairIn(ItemIn):
    """A prompt and the two completions to compare."""

    completions: Annotated[list[AnyCompletion], Field(min_length=2, max_length=2)]


class BaseRequest(BaseModel):
    """What all requests may say."""

    model_config = _STRICT

    model: str | None = Field(default=None, description="One of /rmkit/v1/models; the first one when left out.")
    priority: Annotated[int, Field(ge=-2, le=2)] = Field(default=0, description="Higher goes first.")
    timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = Field(
        default=None, description="Answered within this time or refused (504, or 429 when it is plain at once)."
    )


class ScoreRequest(BaseRequest):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"items": [{"prompt": "Is the sky blue?", "completions": ["Yes, by day.", "No."]}]},
                {
                    "model": "helpful",
                    "items": [
                        {
                            "prompt": [
                                {"role": "system", "content": "Answer briefly."},
                                {"role": "user", "content": "What is 2 + 2?"},
                            ],
                            "completions": [[{"role": "assistant", "content": "4"}]],
                            "source": "arithmetic",
                        }
                    ],
                    "priority": 1,
                    "timeout_s": 30,
                },
                {
                    "items": [
                        {
                            "prompt": "What is 2 + 2?",
                            "completions": ["The answer is 4", "The answer is 5"],
                            "reference": "4",
                            "components": {"brevity": [0.9, 0.9]},
                            "group_id": "step-12/prompt-7",
                        }
                    ],
                    "mix": {"reward": 0.2, "exact_match": 1, "brevity": 0.1},
                    "transform": "z_score",
                },
            ]
        },
    )

    items: list[ScoreItemIn]
    mix: dict[str, FiniteFloat] = Field(
        default_factory=dict,
        description="Weights of the components: reward (the model), exact_match, and those that the items bring.",
    )
    transform: Transform | None = Field(default=None, description="Applied to the rewards of each whole group.")


class CompareRequest(BaseRequest):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"items": [{"prompt": "Hello", "completions": ["Hi there!", "What?"]}]}]},
    )

    items: list[PairIn]


class ScoreOut(BaseModel):
    """`value` is the model's raw number; `reward` is what to train on: the mix, transformed over the group."""

    value: float | None = Field(description="null where unscored says why")
    reward: float | None = Field(description="value, mixed and transformed as asked; null where something is missing")
    normalized: float | None = Field(default=None, description="value on the scale stored beside the model")
    components: dict[str, float] = {}
    truncated: bool = Field(default=False, description="the text was shortened to the model's limit")
    std: float | None = None
    steps: list[float | None] = []
    aspects: dict[str, float | None] = {}
    rationale: str | None = None
    unscored: str | None = None


class ComparisonOut(BaseModel):
    p_first: float | None = Field(description="probability that the first is better; null where unscored says why")
    swap_gap: float | None = None
    rationale: str | None = None
    unscored: str | None = None


class ModelOut(BaseModel):
    name: str = Field(description="the name under which it is served")
    kind: str
    scale: str
    pointwise: bool
    fingerprint: str


class Answered(BaseModel):
    request_id: str
    model: ModelOut
    queued_ms: float
    total_ms: float


class ScoreResponse(Answered):
    scores: list[list[ScoreOut]] = Field(description="[items][completions], in the order asked")


class CompareResponse(Answered):
    comparisons: list[ComparisonOut]


class Models(BaseModel):
    default: str
    models: list[ModelOut]


class Problem(BaseModel):
    """Every answer that is not a 200."""

    error: str
    request_id: str | None = None


def _conversation(value: str | Sequence[MessageIn], role: str) -> Conversation:
    return (Message(role, value),) if isinstance(value, str) else tuple(message.read() for message in value)


def _completion(value: AnyCompletion) -> Completion:
    if isinstance(value, CompletionIn):
        return Completion(tuple(message.read() for message in value.messages), value.source, tuple(value.step_ends))
    return Completion(_conversation(value, "assistant"))


def number(value: float | None) -> float | None:
    """NaN and infinities never leave as numbers."""
    return value if value is not None and math.isfinite(value) else None


def score_out(score: Score) -> ScoreOut:
    value = number(score.value)
    return ScoreOut(
        value=value,
        reward=value,
        normalized=number(score.normalized),
        truncated=score.truncated,
        std=number(score.std),
        steps=[number(step) for step in score.steps],
        aspects={name: number(value) for name, value in score.aspects.items()},
        rationale=score.rationale,
        unscored=score.unscored,
    )


def comparison_out(comparison: Comparison) -> ComparisonOut:
    return ComparisonOut(
        p_first=number(comparison.p_first),
        swap_gap=number(comparison.swap_gap),
        rationale=comparison.rationale,
        unscored=comparison.unscored,
    )


def model_out(name: str, info: ModelInfo) -> ModelOut:
    return ModelOut(name=name, kind=info.kind, scale=info.scale, pointwise=info.pointwise, fingerprint=info.fingerprint)
