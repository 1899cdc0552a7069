"""Step labels from critiques: a judge lists the wrong steps of each solution several times, and a vote decides.

CAPO (B19; secondary description): K = 4 critiques, a step is wrong where all of them say so. Where a quarter of the
steps are wrong and critics err in a fifth of them independently, that has a precision of .99 and misses three wrong
steps in five; the majority has .91 and misses one in five. `share` makes fractions: 1 less the share that calls the
step wrong.

A critique that cannot be read abstains; numbers of steps that do not exist are ignored. Calls are kept in the ledger: a
run that was killed, or repeated, pays for nothing twice.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import polars as pl

from data_pipelines.algorithms.responses import UNLABELED, result_of
from data_pipelines.steps import Context, StepResult
from rmkit.chat.steps import step_texts
from rmkit.data.example import Example
from rmkit.errors import ConfigError, DataError
from rmkit.generate.budget import BUDGET_OF
from rmkit.generate.config import GeneratorConfig
from rmkit.shaping.spans import wrong_shares
from rmkit.types import Message

ASK = """\
Check this solution step by step. A step is wrong if it does not follow from the problem and the steps before it.

Problem:
{problem}

Solution:
{steps}

Say in a few words what you found. End with one line that lists the numbers of all wrong steps, like
Wrong steps: 2, 5
or, if every step is right,
Wrong steps: none"""
_VERDICT = re.compile(r"wrong steps?\W*:\W*(none\b|\d[\d ,;and]*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Config:
    generator: Annotated[GeneratorConfig, "who criticizes, a table as in a judge's TOML"]
    critiques: Annotated[int, "of each solution"] = 4
    vote: Annotated[
        Literal["intersection", "majority", "union", "share"],
        "a step is wrong where all say so, more than half, any; share: a fraction instead",
    ] = "intersection"
    temperature: Annotated[float, "of the critiques"] = 0.7
    max_tokens: Annotated[int, "of a critique"] = 1024
    max_usd: Annotated[float | None, "what new calls may cost"] = None
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.critiques, self.max_tokens) < 1:
            raise ConfigError("critiques: critiques and max_tokens must be positive")
        if self.temperature < 0 or (self.critiques > 1 and self.temperature == 0):
            raise ConfigError(f"critiques: {self.critiques} critiques at temperature 0 are one; set temperature 0.7")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows of one solution in steps with a label for each step; others are dropped with the reason.

    Raises DataError where the budget ends before the data (the same recipe with a larger one goes on), EndpointError
    where nothing answers.
    """
    rows: list[tuple[dict[str, Any], tuple[str, ...]]] = []
    dropped: list[tuple[str, str, str | None]] = []
    for row in frame.to_dicts():
        try:
            rows.append((row, _steps(row)))
        except DataError as error:
            dropped.append((row["id"], "no solution in steps", str(error)))
    kept = []
    failed: Counter[str] = Counter()
    for (row, steps), texts in zip(rows, _critiques(rows, config, failed), strict=True):
        read = [wrong_steps(text) for text in texts]
        failed["no line of wrong steps"] += read.count(None)
        labels = voted(wrong_shares(read, len(steps)), config.vote)
        if labels is None:
            dropped.append((row["id"], "no critique could be read", None))
            continue
        own = {"step_ends": row["step_ends"], "step_labels": labels, "method": "critiques"}
        kept.append(row | UNLABELED | own | {"kind": "steps", "n_votes": sum(one is not None for one in read)})
    wrong = sum(label < 0.5 for row in kept for label in row["step_labels"])
    facts = {"critiques": len(rows) * config.critiques, "failed": dict(+failed), "wrong_steps": wrong}
    return result_of(frame, kept, dropped, facts)


def wrong_steps(critique: str) -> list[int] | None:
    """Numbers (from 0) of the steps that the last line of wrong steps lists; None where there is no such line."""
    verdicts = _VERDICT.findall(critique)
    return [int(number) - 1 for number in re.findall(r"\d+", verdicts[-1])] if verdicts else None


def voted(shares: list[float | None], vote: str) -> list[float] | None:
    """A label for each step from the share of critiques that call it wrong; None where no critique could be read."""
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return None
    match vote:
        case "intersection":
            return [float(share < 1) for share in known]
        case "majority":
            return [float(share <= 0.5) for share in known]
        case "union":
            return [float(share == 0) for share in known]
        case _:
            return [1 - share for share in known]


def _steps(row: dict[str, Any]) -> tuple[str, ...]:
    """Raises DataError for a row of no or several responses, or whose response is not cut into steps."""
    if len(row["responses"] or []) != 1:
        raise DataError(f"{len(row['responses'] or [])} responses")
    [completion] = Example(row).candidates.completions
    return step_texts(completion)


def _critiques(
    rows: list[tuple[dict[str, Any], tuple[str, ...]]], config: Config, failed: Counter[str]
) -> list[list[str]]:
    """The critiques of each solution that came back; equal ones are as many votes."""
    from rmkit.generate import Budget, Engine, Request
    from rmkit.generate.config import open_generator
    from rmkit.ledger import open_ledger

    settings: dict[str, Any] = {name: getattr(config, name) for name in ("max_tokens", "temperature", "seed")}
    requests = [
        request
        for row, steps in rows
        for request in Request(prompt=(_question(row, steps),), **settings).samples(config.critiques)
    ]
    with (
        open_ledger() as ledger,
        Engine(
            open_generator(config.generator),
            ledger=ledger,
            purpose="recipe step critiques",
            limits=config.generator.limits,
            budget=Budget(max_usd=config.max_usd),
        ) as engine,
    ):
        samples = engine.samples(requests)
    failures = [sample.no_reply if sample.finish in ("error", "malformed") else None for sample in samples]
    if unpaid := sum(why is not None and why.startswith(BUDGET_OF) for why in failures):
        raise DataError(
            f"critiques: ${config.max_usd:g} did not pay for {unpaid} of {len(requests)} calls; those made are kept: "
            "raise max_usd and run the recipe again"
        )
    failed.update(why.split(":")[0] for why in failures if why is not None)
    texts = [sample.text if why is None else None for sample, why in zip(samples, failures, strict=True)]
    batches = [texts[at : at + config.critiques] for at in range(0, len(texts), config.critiques)]
    return [[text for text in batch if text is not None] for batch in batches]


def _question(row: dict[str, Any], steps: tuple[str, ...]) -> Message:
    prompt = Example(row).candidates.prompt
    problem = "\n\n".join(turn.content if len(prompt) == 1 else f"{turn.role}: {turn.content}" for turn in prompt)
    numbered = "\n".join(f"{number}. {text.strip()}" for number, text in enumerate(steps, start=1))
    return Message("user", ASK.format(problem=problem, steps=numbered))
