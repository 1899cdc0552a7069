"""Contrastive rubric generation with preference-label consistency (OpenRubrics, arXiv 2510.07743 v3, section 3).

A strong model sees a request with responses of known order and writes the rubric that explains it (hard rules from the
request, topic-free principles from the contrast). A judge then decides every pair of those responses under that rubric;
Acc is the share it decides as the label does. A rubric is kept iff Acc >= tau and its outermost pair (best against
worst; with two responses the only one) was decided rightly: rejection sampling. What was dropped may be written anew, a
bounded number of times at another temperature (our addition; 0 in the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

from rmkit.errors import ConfigError
from rmkit.generate import Engine, Request, Sample
from rmkit.ids import content_hash
from rmkit.judge import Context, Judge
from rmkit.judge.prompt_file import PromptFile, Shown
from rmkit.types import Candidates, Comparison
from rubrics.criteria import Criterion
from rubrics.validate import parse_reply, problems_of, rubric_text

CONTRASTIVE_PROMPT = Path(__file__).parent / "prompts" / "contrastive_v1.jinja"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastConfig:
    """`tau` as above; `rewrites` attempts after the first, at `rewrite_temperature`."""

    tau: float = 0.5
    rewrites: int = 0
    rewrite_temperature: float = 0.7
    max_tokens: int = 768

    def __post_init__(self) -> None:
        if not 0 <= self.tau <= 1 or self.rewrites < 0 or self.max_tokens < 1:
            raise ConfigError("tau lies in [0, 1], rewrites >= 0, max_tokens >= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A request and its responses, best first."""

    id: str
    candidates: Candidates


@dataclass(slots=True)
class Outcome:
    """What came of an instance. `dropped` says why there is no rubric, None where one is kept.

    `comparisons` are the verdicts on all pairs (best first, so p_first > 0.5 is right) under the last rubric written;
    `accuracy` is their share decided rightly, an unread one being wrong.
    """

    instance: Instance
    criteria: tuple[Criterion, ...] = ()
    comparisons: list[Comparison] = field(default_factory=list)
    accuracy: float | None = None
    attempts: int = 0
    dropped: str | None = "not written"

    @property
    def text(self) -> str:
        """The rubric as judges and writers read it."""
        return rubric_text(self.criteria)


def contrast(
    writer: Engine,
    judge: Judge,
    instances: Sequence[Instance],
    *,
    config: ContrastConfig | None = None,
) -> list[Outcome]:
    """One outcome per instance, in order. The judge must be pairwise.

    Raises ConfigError for another judge, EndpointError where writer or judge do not answer at all.
    """
    if judge.config.form != "pairwise":
        raise ConfigError(f"consistency is decided on pairs; the judge {judge.config.name} is {judge.config.form}")
    config = config or ContrastConfig()
    outcomes = [Outcome(instance) for instance in instances]
    for attempt in range(1 + config.rewrites):
        open_ones = [outcome for outcome in outcomes if outcome.dropped]
        requests = (contrast_request(outcome.instance, config=config, attempt=attempt) for outcome in open_ones)
        for outcome, sample in zip(open_ones, writer.each(writer.sample, requests), strict=True):
            outcome.attempts += 1
            _write(outcome, sample)
        _decide([outcome for outcome in open_ones if outcome.dropped == "not judged"], judge, config.tau)
    return outcomes


def contrast_request(instance: Instance, *, config: ContrastConfig, attempt: int = 0) -> Request:
    """What the writer is asked about an instance; `attempt` from 1 is a rewrite."""
    shown = Shown(responses=instance.candidates.completions)
    return Request(
        prompt=PromptFile(CONTRASTIVE_PROMPT).render(instance.candidates.prompt, shown, settings={}),
        max_tokens=config.max_tokens,
        temperature=config.rewrite_temperature if attempt else 0.0,
        seed=attempt,
    )


def _write(outcome: Outcome, sample: Sample) -> None:
    outcome.criteria, outcome.comparisons, outcome.accuracy = (), [], None
    if why := sample.no_reply:
        outcome.dropped = f"writer: {why}"
        return
    outcome.criteria, problems = parse_reply(sample.text)
    problems = problems or problems_of(outcome.criteria, outcome.instance.candidates)
    outcome.dropped = f"invalid: {problems[0]}" if problems else "not judged"


def _decide(outcomes: Sequence[Outcome], judge: Judge, tau: float) -> None:
    pairs = [_pairs(outcome) for outcome in outcomes]
    judged = judge.judged_under(
        (pair, Context(rubric=outcome.text))
        for outcome, result in zip(outcomes, pairs, strict=True)
        for pair, _ in result
    )
    for outcome, result in zip(outcomes, pairs, strict=True):
        outcome.comparisons = [_turned(judge.comparison_of(next(judged)), turn) for _, turn in result]
        right = [comparison.unscored is None and comparison.p_first > 0.5 for comparison in outcome.comparisons]
        outcome.accuracy = fmean(right)
        outermost = len(outcome.instance.candidates.completions) - 2  # (0, N - 1) among (0, 1), (0, 2), ...
        if not right[outermost]:
            outcome.dropped = "inconsistent: best against worst is decided against the label"
        elif outcome.accuracy < tau:
            outcome.dropped = "inconsistent: too few pairs are decided as the label says"
        else:
            outcome.dropped = None


def _pairs(outcome: Outcome) -> list[tuple[Candidates, bool]]:
    """All pairs of (better, worse), half of them turned round: a judge that likes one slot may not look consistent."""
    result = outcome.instance.candidates
    results = []
    for pair in combinations(result.completions, 2):
        turn = int(content_hash(f"{outcome.instance.id} {pair[0].text} {pair[1].text}"), 16) % 2 == 1
        results.append((result.of(*(pair[::-1] if turn else pair)), turn))
    return results


def _turned(comparison: Comparison, turn: bool) -> Comparison:
    """With the better response first again."""
    return replace(comparison, p_first=1 - comparison.p_first) if turn and not comparison.unscored else comparison
