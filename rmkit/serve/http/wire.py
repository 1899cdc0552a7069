"""What the native routes read and write, as JSON. A failure is `value: null` with its reason in `unscored`."""

from __future__ import annotations

import math
import sys
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from rmkit.chat.reader import COMPLETION_FIELDS, TURN_FIELDS, read_candidates
from rmkit.chat.responses_items import ITEM_FIELDS
from rmkit.errors import DataError
from rmkit.serve.rewards.request import Reward
from rmkit.signal.mix import Combine
from rmkit.types import Candidates, Comparison, ModelInfo

_STRICT = ConfigDict(extra="forbid")


def _known_keys(value: Any) -> object:
    """Turns or a completion as they came. Raises ValueError for a key that nothing reads: a misspelled one."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict) and (strange := sorted(key for key in one if one[key] and key not in _KEYS)):
            raise ValueError(f"unknown key {strange[0]!r} of a message or completion")
    return value


_KEYS = frozenset(
    (*TURN_FIELDS, *COMPLETION_FIELDS, *ITEM_FIELDS, "type", "id", "status", "annotations", "index", "weight")
)
_TEXT_OR_PARTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}, {"type": "null"}]}
_TURN_SCHEMA = {
    "type": "object",
    "title": "Message",
    "description": "One turn, in the spelling of OpenAI (others are read too: from and value, parts of other makers).",
    "properties": {
        "role": {"type": "string", "examples": ["user"]},
        "content": _TEXT_OR_PARTS,
        "name": {"type": "string"},
        "tool_calls": {"type": "array", "items": {"type": "object"}},
        "tool_call_id": {"type": "string"},
        "reasoning": {"type": "string", "description": "What was thought before it; also reasoning_content, thinking."},
    },
}
_COMPLETION_SCHEMA = {
    "type": "object",
    "title": "Completion",
    "description": "A completion with its policy's name, or in steps (character offsets, exclusive, ascending).",
    "properties": {
        "messages": {"type": "array", "items": _TURN_SCHEMA},
        "text": {"type": "string"},
        "steps": {"type": "array", "items": {"type": "string"}},
        "source": {"type": "string"},
        "step_ends": {"type": "array", "items": {"type": "integer"}},
    },
}
_TURNS = {"type": "array", "items": _TURN_SCHEMA}

AnyPrompt = Annotated[
    str | dict[str, Any] | list[dict[str, Any]],
    BeforeValidator(_known_keys),
    WithJsonSchema({"anyOf": [{"type": "string"}, _TURNS]}),
]
AnyCompletion = Annotated[
    str | dict[str, Any] | list[dict[str, Any]],
    BeforeValidator(_known_keys),
    WithJsonSchema({"anyOf": [{"type": "string"}, _TURNS, _COMPLETION_SCHEMA]}),
]


class ItemIn(BaseModel):
    """A prompt (a user's text, or a conversation) and its completions (texts, messages, or with steps)."""

    model_config = _STRICT

    prompt: AnyPrompt
    completions: Annotated[list[AnyCompletion], Field(min_length=1)]
    source: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Where the prompt comes from; drift is told per source."
    )
    tools: list[dict[str, Any]] = Field(default_factory=list, description="Schemas of the tools that could be called.")
    reference: str | None = Field(
        default=None, description="The right answer: verifiers compare with it, judges see it."
    )
    rubric: str | list[dict[str, Any]] = Field(
        default_factory=list, description="Criteria for this item, as objects with `criterion`, or one as text."
    )
    _candidates: Candidates = PrivateAttr()

    @model_validator(mode="after")
    def _readable(self) -> Self:
        rubric = [{"criterion": self.rubric}] if isinstance(self.rubric, str) else self.rubric
        facts: dict[str, Any] = {"tools": self.tools, "reference": self.reference, "rubric": rubric}
        try:
            self._candidates = read_candidates(self.prompt, self.completions, **facts)
        except DataError as error:
            raise ValueError(str(error)) from error
        return self

    def read(self) -> Candidates:
        return self._candidates


def _in_range(value: Any) -> object:
    """An integer beyond the largest float as the infinity that JSON's 1e400 is read as: it spoils its own item only."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
    return value


Number = Annotated[float | None, BeforeValidator(_in_range)]


class ScoreItemIn(ItemIn):
    """An item that may belong to a group and bring the findings of the caller's own verifiers."""

    group_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Completions under one id are one group; without it an item is its own group."
    )
    group_size: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None,
        description="How many completions the group has, where it comes in several requests; they wait for each other.",
    )
    components: dict[str, list[Number | list[Number]]] = Field(
        default_factory=dict,
        description="Named numbers per completion, found elsewhere (unit tests, say), or lists (one number a step) "
        "whose sum is mixed. Where one with a weight is null or not finite, that completion is unscored.",
    )
    columns: dict[str, list[Number | list[Number] | str]] = Field(
        default_factory=dict,
        description="What the chain reads beside the components, per completion: numbers, lists, labels.",
    )
    row: dict[str, Any] = Field(
        default_factory=dict,
        description="The prompt's row of the trainer's dataset; the signal's `columns` say where answers, rubric and "
        "group stand in it.",
    )

    @model_validator(mode="after")
    def _one_number_per_completion(self) -> Self:
        for what, table in (("component", self.components), ("column", self.columns)):
            for name, values in table.items():
                if len(values) != len(self.completions):
                    raise ValueError(
                        f"{what} {name!r} has {len(values)} values for {len(self.completions)} completions"
                    )
        if both := sorted(set(self.components) & set(self.columns)):
            raise ValueError(f"{both[0]!r} is both a component and a column")
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
                    "chain": ["z_score"],
                },
            ]
        },
    )

    items: list[ScoreItemIn]
    mix: dict[str, FiniteFloat] = Field(
        default_factory=dict,
        description="Weights of the components: reward (the model), exact_match, served models and verifiers by name, "
        "and those that the items bring.",
    )
    combine: Combine = Field(default="sum", description="How components are joined.")
    gates: dict[str, FiniteFloat] = Field(
        default_factory=dict, description="Components that must reach a value, or the reward is `gated`."
    )
    gated: FiniteFloat = 0.0
    chain: str | list[str | dict[str, Any]] = Field(
        default_factory=list, description="Transforms of each group's rewards, in order: names, or tables with `use`."
    )
    columns: dict[str, Any] = Field(
        default_factory=dict, description="Where rows hold reference, rubric, group and components (paths)."
    )
    signal: str | None = Field(
        default=None,
        description="A signal that the service was started with; without it and without fields of its own a request "
        "gets the first one there is.",
    )
    step: int | None = Field(default=None, description="The trainer's step; groups of different steps never meet.")
    policy_version: Annotated[str, Field(max_length=200)] | None = None
    spans: bool = Field(default=False, description="Also where in each completion its values lie.")


class CompareRequest(BaseRequest):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"items": [{"prompt": "Hello", "completions": ["Hi there!", "What?"]}]}]},
    )

    items: list[PairIn]


class ScoreOut(BaseModel):
    """`value` is the model's raw number, `raw` the mix, `reward` what to train on: the mix, shaped over the group."""

    value: float | None = Field(description="null where unscored says why")
    raw: float | None = Field(default=None, description="value, mixed as asked")
    reward: float | None = Field(description="raw, shaped by the chain; null where something is missing")
    normalized: float | None = Field(default=None, description="value on the scale stored beside the model")
    components: dict[str, float] = {}
    rewards: list[float | None] = Field(default=[], description="parts of reward, where the chain gives a list")
    spans: list[tuple[float | None, int, int]] = Field(
        default=[], description="value, start, end in characters of the completion's text"
    )
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


def number(value: float | None) -> float | None:
    """NaN and infinities never leave as numbers."""
    return value if value is not None and math.isfinite(value) else None


def score_out(reward: Reward) -> ScoreOut:
    score = reward.score
    return ScoreOut(
        value=number(score.value),
        raw=number(reward.raw),
        reward=number(reward.reward),
        components=dict(reward.components),
        rewards=[number(one) for one in reward.places],
        spans=[(number(one.value), one.start, one.end) for one in reward.spans],
        normalized=number(score.normalized),
        truncated=score.truncated,
        std=number(score.std),
        steps=[number(step) for step in score.steps],
        aspects={name: number(value) for name, value in score.aspects.items()},
        rationale=score.rationale,
        unscored=reward.unscored,
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
