"""A labeling task as its TOML says it: what people see, what they are asked, who may answer and how often.

A definition is immutable once a project uses it: its id covers every word of it, so an edited guideline is another
task and old judgments still say what their raters had read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rmkit import config
from rmkit.errors import ConfigError, unknown
from rmkit.ids import canonical_json, content_hash

Kind = Literal[
    "pairwise",
    "ranking",
    "ratings",
    "rubric",
    "turns",
    "steps",
    "edit",
    "reaction",
    "spans",
    "rubric_review",
    "adjudication",
    "live",
]
SuggestionMode = Literal["off", "after", "prefilled"]
SUGGESTED: dict[SuggestionMode, tuple[Kind, ...]] = {
    "after": ("pairwise", "ranking", "ratings", "rubric", "turns", "steps", "reaction"),
    "prefilled": ("edit",),
}
QuizFeedback = Literal["count", "wrong", "answers"]
Strategy = Literal["random", "uncertainty", "model_change", "disagreement", "mislabel", "coverage"]

SHIPPED = Path(__file__).parent / "tasks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """One thing to rate: `anchors` say what the lowest and the highest value mean."""

    name: str
    question: str
    low: int = 1
    high: int = 5
    anchors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.low < self.high <= self.low + 9:
            raise ConfigError(f"aspect {self.name}: expected low < high <= low + 9, got {self.low} and {self.high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A quiz question on the guidelines; `answer` is the position of the right choice."""

    text: str
    choices: tuple[str, ...]
    answer: int

    def __post_init__(self) -> None:
        if not 0 <= self.answer < len(self.choices):
            raise ConfigError(f"quiz: answer {self.answer} is none of the {len(self.choices)} choices of {self.text!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefinition:
    """`strengths` are the steps from slightly to much better, one for a plain choice; `top_k` 0 ranks all.

    A live chat is with two `models`, `max_tokens` a reply at `temperature`. They are names: where each is served and
    which key it takes is said when the studio starts (`rmkit label serve --models`), never by a task.
    `grades` of a turn go from the worst to the best.

    `suggestions` (of a model, or former answers) are off, shown after the person's own first choice, or prefilled in
    the field of an edit; on `suggestion_share` of the items that have one, and the rest measures what they do.

    `overlap` people judge each item. `gold_share` and `repeat_share` of what a person sees are items with a known
    answer, and the person's own earlier items in another order. `lease_s` is how long an opened item is held.
    `max_items` per person, 0 for no limit. `quiz_pass` is the share of right answers to be admitted,
    `quiz_tries` how often one may try (0: without end), and `quiz_feedback` what is said after a try: how many were
    right, which ones were wrong, or the right answers too.
    """

    name: str
    kind: Kind
    title: str
    question: str
    guidelines: str = ""
    warning: str = ""
    strengths: tuple[str, ...] = ("slightly better", "better", "much better")
    allow_tie: bool = True
    top_k: int = 0
    aspects: tuple[Aspect, ...] = ()
    reactions: tuple[str, ...] = ("down", "up")
    models: tuple[str, ...] = ()
    max_tokens: int = 1024
    temperature: float = 0.7
    grades: tuple[str, ...] = ("bad", "fair", "good")
    span_labels: tuple[str, ...] = ("wrong", "unsupported", "good")
    bad_item_reasons: tuple[str, ...] = ("broken text", "wrong language", "cannot be judged", "personal data")
    ask_rationale: bool = False
    suggestions: SuggestionMode = "off"
    suggestion_share: float = 0.8

    overlap: int = 2
    gold_share: float = 0.05
    repeat_share: float = 0.03
    lease_s: int = 900
    max_items: int = 0
    strategy: Strategy = "random"
    quiz: tuple[Question, ...] = ()
    quiz_pass: float = 0.8
    quiz_tries: int = 0
    quiz_feedback: QuizFeedback = "count"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind == "ratings" and not self.aspects:
            raise ConfigError(f"task {self.name}: ratings need at least one [[aspects]] with name and question")
        if self.kind == "pairwise" and not 1 <= len(self.strengths) <= 4:
            raise ConfigError(f"task {self.name}: one to four strengths, got {len(self.strengths)}")
        if self.kind == "live" and len(self.models) != 2:
            raise ConfigError(f'task {self.name}: a live chat needs two models by name, models = ["one", "other"]')
        if self.max_tokens < 1 or not 0 <= self.temperature <= 2:
            raise ConfigError(f"task {self.name}: max_tokens is at least 1, temperature from 0 to 2")
        if self.suggestions != "off" and self.kind not in SUGGESTED[self.suggestions]:
            modes = [mode for mode, kinds in SUGGESTED.items() if self.kind in kinds]
            raise ConfigError(
                f"task {self.name}: suggestions {self.suggestions} are not for a {self.kind} task; off"
                f"{''.join(f' or {mode}' for mode in modes)}"
            )
        if not 0 <= self.suggestion_share <= 1:
            raise ConfigError(f"task {self.name}: suggestion_share lies in [0, 1], got {self.suggestion_share:g}")
        if not 2 <= len(self.grades) <= 9:
            raise ConfigError(f"task {self.name}: two to nine grades, got {len(self.grades)}")
        if self.overlap < 1 or self.lease_s < 1 or self.max_items < 0 or min(self.top_k, self.quiz_tries) < 0:
            raise ConfigError(
                f"task {self.name}: overlap and lease_s are at least 1, max_items, top_k and quiz_tries at least 0"
            )
        shares = self.gold_share + self.repeat_share
        if min(self.gold_share, self.repeat_share) < 0 or shares > 0.5:
            raise ConfigError(f"task {self.name}: gold_share + repeat_share lie in [0, 0.5], got {shares:g}")

    @property
    def id(self) -> str:
        """32 hex digits over every word of the definition."""
        return content_hash(canonical_json(asdict(self)))


def read_definition(name_or_path: str) -> TaskDefinition:
    """A shipped task by name, or one from a TOML file. Raises ConfigError naming what is wrong with it."""
    path = shipped().get(name_or_path) or Path(name_or_path)
    if not path.is_file():
        raise ConfigError(f"{unknown('task', name_or_path, shipped())}; or name a TOML file")
    return parse_definition(config.read_toml(path), where=str(path.name))


def shipped_definition(name: str) -> TaskDefinition:
    """A shipped task for whoever is not at this machine: a path would be a file of the server. Raises ConfigError."""
    if name not in shipped():
        raise ConfigError(unknown("task", name, shipped()))
    return read_definition(name)


def parse_definition(table: Mapping[str, Any], *, where: str) -> TaskDefinition:
    """The definition in a table, as read from TOML or from a stored project."""
    values = dict(table)
    for key, cls in (("aspects", Aspect), ("quiz", Question)):
        if key in values:
            values[key] = tuple(config.build(cls, one, where=f"{where}: {key}") for one in values[key])
    return config.build(TaskDefinition, values, where=where)


def shipped() -> dict[str, Path]:
    """The task definitions that come with rmkit, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}
