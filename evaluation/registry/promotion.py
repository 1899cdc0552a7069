"""The gate in front of an alias: a model may take another's place only if stored results do not show it to be worse.

Compared are the two models' finished suite results on the same suite and data, on the headline measure, prompt by
prompt (`evaluation.scoring.paired`: randomization test, interval over prompts), over all items: what a model could not
score it did not get right. The difference on what both scored is said beside it. The model is refused where

    it is worse with p < 0.05 on any suite                        the default: not shown to be worse
    the interval of the difference reaches below -MARGIN points   with a margin: shown not to be worse by more
    both scored fewer than MIN_PROMPTS prompts of a suite         so little shows nothing
    it has no result on a suite on which the current one has      no choosing of suites afterwards
    the current one has no result at all                          nothing is known, so nothing is shown

p is not corrected for several suites: a correction would let worse models through. Overruling takes a reason, which
stays in the ledger beside what the gate found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.registry.leaderboard import present_only
from evaluation.scoring.paired import Difference, differences
from evaluation.suites.items import unscored_not_right
from evaluation.suites.journal import RESULT, read_credits, read_result
from evaluation.suites.suite import Suite, load_suite, names
from rmkit import paths
from rmkit.cli.display import interval

LEVEL_P = 0.05
MIN_PROMPTS = 30


@dataclass(frozen=True, slots=True)
class Stored:
    """One finished result of a model: suite and its hash (rules and data), headline measure, whole result."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return str(self.result["suite"]), str(self.result["suite_hash"])

    @property
    def headline(self) -> str:
        return str(self.result["headline"])


@dataclass(frozen=True, slots=True)
class SuiteComparison:
    """Both models on one suite: over all items (what a model could not score it did not get right), and on what both
    scored."""

    suite: str
    suite_hash: str
    data: str
    whole: Difference
    scored: Difference

    def as_json(self) -> dict[str, object]:
        """The numbers over all items, and under `scored` those on what both scored."""
        facts = {"suite": self.suite, "suite_hash": self.suite_hash, "data": self.data}
        return {**facts, **self.whole.as_json(), "scored": self.scored.as_json()}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gate decided, `why` in a sentence. `against` is the current model's fingerprint, None where there was
    none; `forced` the reason for overruling."""

    passed: bool
    why: str
    comparisons: tuple[SuiteComparison, ...] = ()
    against: str | None = None
    margin: float | None = None
    forced: str | None = None

    def as_json(self) -> dict[str, object]:
        """As it is kept in the ledger."""
        compared = {} if self.against is None else {"against": self.against, "margin": self.margin}
        forced = {} if self.forced is None else {"forced": self.forced}
        comparisons = [one.as_json() for one in self.comparisons]
        return {"passed": self.passed, "why": self.why, "comparisons": comparisons, **compared, **forced}


def stored_results(fingerprint: str) -> dict[tuple[str, str], Stored]:
    """A model's finished results by suite name and hash."""
    by_key = {}
    for path in sorted((paths.home() / "runs" / "eval").glob(f"*/{RESULT}")):
        result = read_result(path)
        if result["models"][0]["fingerprint"] == fingerprint:
            one = Stored(path.parent, result)
            by_key[one.key] = one
    return by_key


def judge(
    candidate: str,
    current: str,
    *,
    suites: Sequence[str] = (),
    margin: float | None = None,
    min_prompts: int = MIN_PROMPTS,
) -> Evidence:
    """What the gate decides about two fingerprints, with one comparison per suite."""

    def refused(why: str, compared: Sequence[SuiteComparison] = ()) -> Evidence:
        return Evidence(False, why, tuple(compared), against=current, margin=margin)

    ours, theirs = stored_results(candidate), stored_results(current)
    targets = {load_suite(name).name: load_suite(name) for name in suites}
    keys = [key for key in theirs if not targets or key[0] in targets]
    if absent := sorted(set(targets) - {name for name, _ in keys}):
        return refused(f"the current model has no stored result on {', '.join(absent)}")
    if not keys:
        return refused("the current model has no stored result, so nothing shows that the new one is not worse")
    if lacking := [_named(theirs[key]) for key in keys if key not in ours]:
        return refused(f"no stored result on {', '.join(lacking)}, where the current model has one")
    compared: list[SuiteComparison] = []
    for key in keys:
        suite = targets.get(key[0]) or _shipped(key[0])
        if suite is None:
            return refused(f"the rules of suite {key[0]} are needed: name its file with --suite", compared)
        compared.append(_compare(suite, ours[key], theirs[key]))
    faults = [fault for one in compared if (fault := _fault(one, margin, min_prompts))]
    if faults:
        return refused("; ".join(faults), compared)
    shown = "not shown to be worse" if margin is None else f"shown to lose less than {margin:g} points"
    text = "; ".join(f"{one.suite} {_numbers(one)}, {one.whole.clusters} prompts" for one in compared)
    return Evidence(True, f"{shown}: {text}", tuple(compared), against=current, margin=margin)


def _named(stored: Stored) -> str:
    return f"{stored.result['suite']} (data {stored.result['data']}, hash {stored.key[1][:8]})"


def _shipped(name: str) -> Suite | None:
    return load_suite(name) if name in names() else None  # a path in a stored result is not trusted


def _compare(suite: Suite, ours: Stored, theirs: Stored) -> SuiteComparison:
    relaxed = present_only(suite, ours.result["missing"])
    mine, other = read_credits(ours.folder), read_credits(theirs.folder)
    every = [unscored_not_right(credits) for credits in (mine, other)]
    whole = differences(relaxed, *every, measures=[ours.headline])[0]
    scored = differences(relaxed, mine, other, measures=[ours.headline])[0]
    return SuiteComparison(*ours.key, ours.result["data"], whole, scored)


def _fault(one: SuiteComparison, margin: float | None, min_prompts: int) -> str | None:
    """Why this comparison refuses the model; None where it does not. A difference that is not known refuses."""
    whole = one.whole
    if math.isnan(whole.difference):
        return f"{one.suite}: {whole.measure} cannot be compared, parts of it are missing"
    if one.scored.clusters < min_prompts:
        return (
            f"{one.suite}: both models scored {one.scored.clusters} of its {whole.clusters} prompts, which shows too "
            f"little; at least {min_prompts} are needed (--min-prompts)"
        )
    text = f"{one.suite}: {whole.measure} {_numbers(one)}, p = {whole.p:.4f}"
    if whole.difference < 0 and whole.p < LEVEL_P:
        return f"worse on {text}"
    if margin is not None and not whole.low > -margin:  # an interval that is not known shows nothing
        return f"not shown to be within {margin:g} points on {text}"
    return None


def _numbers(one: SuiteComparison) -> str:
    """The difference over all items and, where something is unscored, the one on what both models scored."""
    scored, mine, other = one.scored, one.scored.unscored_first, one.scored.unscored_second
    text = f"{one.whole.difference:+.2f} points {interval(one.whole, '+.2f')}"
    if not mine + other:
        return text
    return (
        f"{text} with what is unscored ({mine} of its answers, {other} of the current one's) counted as not right; "
        f"{scored.difference:+.2f} {interval(scored, '+.2f')} on the {scored.clusters} prompts that both scored"
    )
