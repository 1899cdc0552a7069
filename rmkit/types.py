"""The few types that every part of rmkit agrees on.

Two axes are used throughout: P, the prompts of a batch, and N, the completions of one prompt (N may differ from
prompt to prompt). A model takes `[P] Candidates` and gives `[P][N] Score`.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

ModelKind = Literal["explicit", "implicit", "generative", "process", "ensemble"]
Scale = Literal["logit", "log_ratio", "probability", "rating", "win_logit"]
LOGIT_SCALES: tuple[Scale, ...] = ("logit", "log_ratio", "win_logit")  # differences are Bradley-Terry logits

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `tool_calls` holds JSON-ready mappings exactly as the chat template expects them; `reasoning` is what a
    model thought before it spoke, where its author keeps that apart from `content`."""

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy answered: one assistant message in the plain case, several with tool turns between.

    `step_ends` are character offsets into `text` (exclusive, ascending), empty unless the text is split into steps.
    """

    messages: Conversation
    source: str | None = None
    step_ends: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """Contents of the assistant turns, joined by blank lines."""
        return "\n\n".join(message.content for message in self.messages if message.role == "assistant")


@dataclass(frozen=True, slots=True)
class Candidates:
    """A prompt and its N >= 1 completions: the only input of a reward model.

    What else a row says of its prompt is empty where it says nothing: `tools` are the schemas of the tools that the
    policy could call, `reference` is the right answer, `rubric` lists criteria; mappings are JSON-ready.
    """

    prompt: Conversation
    completions: tuple[Completion, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    reference: str | None = None
    rubric: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.completions:
            raise ValueError("Candidates needs at least one completion, got none")

    def of(self, *completions: Completion) -> Candidates:
        """The same prompt, with all that belongs to it, and these completions."""
        return replace(self, completions=completions)


@dataclass(frozen=True, slots=True)
class Score:
    """One reward. A failure is `unscored="why"` with value NaN: missing is never zero.

    `value` is the model's raw number, the one that its fingerprint stands for. `normalized` is the same number on the
    scale that `rmkit normalize` stored beside the model, None where nothing is stored. `truncated` says that the text
    was shortened to the model's limit before it was scored.
    """

    value: float
    std: float | None = None
    steps: tuple[float, ...] = ()
    aspects: Mapping[str, float] = field(default_factory=dict)
    rationale: str | None = None
    unscored: str | None = None
    normalized: float | None = None
    truncated: bool = False

    def __post_init__(self) -> None:
        if math.isnan(self.value) != (self.unscored is not None):
            raise ValueError(f"a Score is NaN exactly when it says why; got {self.value}, unscored={self.unscored!r}")

    @classmethod
    def failed(cls, reason: str) -> Score:
        """The score of an item that could not be scored."""
        return cls(value=math.nan, unscored=reason)


class Span(NamedTuple):
    """A reward of a part of a completion: `value` of the characters start ... end - 1; None where it is missing."""

    value: float | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Probability in [0, 1] that the first completion is better; a tie is 0.5.

    `swap_gap` = |p(A,B) + p(B,A) - 1| where both orders were asked, else None.
    """

    p_first: float
    swap_gap: float | None = None
    rationale: str | None = None
    unscored: str | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.p_first) != (self.unscored is not None):
            raise ValueError(f"a Comparison is NaN exactly when it says why; got {self.p_first}, {self.unscored!r}")

    @classmethod
    def failed(cls, reason: str) -> Comparison:
        """The comparison of a pair that could not be compared."""
        return cls(p_first=math.nan, unscored=reason)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a number from this model means. `fingerprint` covers weights, template, tokenizer and truncation policy.

    `pointwise` is False when a score depends on the other completions of the group: it may then not be cached.
    """

    name: str
    kind: ModelKind
    scale: Scale
    pointwise: bool
    fingerprint: str


@runtime_checkable
class RewardModel(Protocol):
    """Explicit, implicit, generative, process and ensemble reward models all fit this."""

    @property
    def info(self) -> ModelInfo: ...

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P] Candidates -> [P][N] Score: same order, same lengths; one bad item does not lose the batch."""
        ...

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """[P] Candidates of two -> [P] Comparison."""
        ...


def bradley_terry(first: float, second: float) -> float:
    """P(first is better) of two rewards on the logit, log_ratio or win_logit scale."""
    return sigmoid(first - second)


def compare_by_score(
    score: Callable[[Sequence[Candidates]], list[list[Score]]],
    batch: Sequence[Candidates],
    *,
    p_first: Callable[[float, float], float] = bradley_terry,
) -> list[Comparison]:
    """Comparisons of a model that can only score; `p_first` makes a probability of the two values."""
    return [_compared(pair, p_first) for pair in score(batch)]


def _compared(pair: Sequence[Score], p_first: Callable[[float, float], float]) -> Comparison:
    if len(pair) != 2:
        raise ValueError(f"a comparison takes two completions, got {len(pair)}")
    first, second = pair
    if reason := first.unscored or second.unscored:
        return Comparison.failed(reason)
    return Comparison(p_first(first.value, second.value))


def score_by_comparison(
    compare: Callable[[Sequence[Candidates]], list[Comparison]], batch: Sequence[Candidates]
) -> list[list[Score]]:
    """Scores of a model that can only compare: the mean win probability against the other completions, as a logit.

    All ordered pairs are asked (N(N-1)/2 unordered ones, once each). Probabilities are clipped to [1e-6, 1 - 1e-6].
    A completion none of whose comparisons succeeded is unscored, as is a sole completion. Group-relative.
    """
    pairs = [
        item.of(item.completions[i], item.completions[j])
        for item in batch
        for i in range(len(item.completions))
        for j in range(i + 1, len(item.completions))
    ]
    answers = iter(compare(pairs) if pairs else [])
    return [_win_logits(len(item.completions), answers) for item in batch]


def _win_logits(n: int, answers: Any) -> list[Score]:
    wins: list[list[float]] = [[] for _ in range(n)]
    for i in range(n):
        for j in range(i + 1, n):
            answer = next(answers)
            if answer.unscored is None:
                wins[i].append(answer.p_first)
                wins[j].append(1 - answer.p_first)
    return [_win_logit(won) for won in wins]


def _win_logit(won: Sequence[float]) -> Score:
    if not won:
        return Score.failed("no comparison of this completion succeeded")
    p = min(max(math.fsum(won) / len(won), 1e-6), 1 - 1e-6)
    return Score(value=math.log(p) - math.log1p(-p))


def sigmoid(x: float) -> float:
    """Logistic function without overflow for large |x|."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The raw fact in the ledger: append-only; pairs, rankings and labels are derived from events.

    `kind` is judgment | reaction | edit | reward | erase | ...; `actor` is who or what caused it; `payload` is
    JSON-ready; `supersedes` names the event this one replaces (an undo or a correction), which stays in the ledger.
    """

    kind: str
    actor: str
    payload: Mapping[str, Any]
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    supersedes: uuid.UUID | None = None

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise ValueError(f"an Event's time must carry a zone (UTC), got the naive {self.time.isoformat()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One immutable version of a dataset.

    `digest` (hex SHA-256 over the sorted row hashes with split and weight, no clock inside) is its identity;
    `number` counts versions within the dataset from 1; `parents` are digests; `recipe` is the JSON that made it.
    """

    name: str
    number: int
    digest: str
    n_rows: int
    parents: tuple[str, ...] = ()
    recipe: str | None = None
    message: str = ""

    @property
    def ref(self) -> str:
        """NAME@vN, the form that commands take."""
        return f"{self.name}@v{self.number}"
