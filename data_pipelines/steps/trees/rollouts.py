"""Trees of rollouts: solutions of every prompt, continuations from their prefixes, each verified.

The new responses of a row are all samples: `correct` is what the verifier says of each (missing where it cannot say),
`from_step_N` counts how often it was sampled with N steps given. Labels and pairs are made of them by the converters
`tree_labels` and `tree_pairs`, under any rule, without another call.

Plain, each prefix of each solution is continued `continuations` times (Math-Shepherd). Adaptive, only wrong solutions
are looked into: the first error is bisected, a prefix is continued until one continuation comes out right, and what
another solution settled is not tried again; that is enough for the rule `any_correct`, while means need all samples.

A continuation is asked for by an assistant message that the model goes on with. Calls are kept in the ledger: a run
that was killed, or repeated, pays for nothing twice and ends with the same samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

import polars as pl

from data_pipelines.algorithms.responses import result_of, widened
from data_pipelines.algorithms.trees import OUTCOME, SAMPLED
from data_pipelines.loops.rollouts import Plan, Samples, Work, sampled
from data_pipelines.steps import Context, StepResult
from rmkit.data.example import Example
from rmkit.errors import ConfigError, DataError
from rmkit.generate.budget import BUDGET_OF
from rmkit.generate.config import GeneratorConfig
from rmkit.ids import assistant_message, parse_messages
from rmkit.types import Candidates, Completion, Message


@dataclass(frozen=True, kw_only=True)
class Config:
    generator: Annotated[GeneratorConfig, "who answers, a table as in a judge's TOML"]
    verifier: Annotated[str, "what says whether a solution is right, by the row's reference"] = "answer"
    options: Annotated[dict[str, Any], "the verifier's own options"] = field(default_factory=dict)
    samples: Annotated[int, "solutions of each prompt; 0 looks into the responses that the row has"] = 4
    continuations: Annotated[int, "continuations of a prefix"] = 8
    adaptive: Annotated[bool, "bisect wrong solutions instead of continuing every prefix"] = False
    separator: Annotated[str, "stands between two steps"] = "\n"
    temperature: Annotated[float, "of solutions and continuations"] = 0.7
    top_p: Annotated[float, "nucleus of sampling"] = 1.0
    max_tokens: Annotated[int, "of a solution or continuation"] = 1024
    max_usd: Annotated[float | None, "what new calls may cost"] = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 0 or self.continuations < 0 or self.max_tokens < 1 or self.samples + self.continuations < 1:
            raise ConfigError("rollouts: samples and continuations are counts, one of them positive, max_tokens too")
        if not self.temperature > 0 or not 0 < self.top_p <= 1:
            raise ConfigError("rollouts: temperature must be above 0 (samples would be one reply), top_p in (0, 1]")
        if not self.separator:
            raise ConfigError("rollouts: separator must not be empty")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with the samples as responses and no label; rows without any verified sample are dropped with the reason.

    Raises DataError where the budget ends before the data (the same recipe with a larger one goes on), EndpointError
    where nothing answers.
    """
    rows = frame.to_dicts()
    dropped: list[tuple[str, str, str | None]] = []
    work: list[tuple[dict[str, Any], Work]] = []
    seen: set[str] = set()
    for row in rows:
        if row["reference"] is None:
            dropped.append((row["id"], "no reference to verify against", None))
        elif config.samples == 0 and not row["responses"]:
            dropped.append((row["id"], "no response to look into", None))
        elif config.samples and row["prompt"] in seen:
            dropped.append((row["id"], "its prompt was sampled for another row", None))
        else:
            seen.add(row["prompt"])
            work.append((row, _work(row, config)))
    author, results, spent = _sampled([one for _, one in work], config)
    kept = []
    failures: Counter[str] = Counter()
    for (row, _), samples in zip(work, results, strict=True):
        failures += samples.failures
        known = [one for one in samples.by_text.values() if not math.isnan(one.outcome)]
        if known:
            kept.append(_row(row, samples, author))
        else:
            why = next(iter(samples.failures), "no step to continue from")
            dropped.append((row["id"], "no sample could be verified", why))
    unpaid = sum(n for why, n in failures.items() if why.startswith(BUDGET_OF))
    if unpaid:
        raise DataError(
            f"rollouts: ${config.max_usd:g} did not pay for all calls ({unpaid} were refused); those made are kept: "
            "raise max_usd and run the recipe again"
        )
    facts = {
        "author": author,
        "solutions": sum(
            sum(n for start, n in one.starts.items() if start == 0) for s in results for one in s.by_text.values()
        ),
        "continuations": sum(one.continued for one in results),
        "texts": sum(len(one.by_text) for one in results),
        "right": sum(one.outcome >= 0.5 for samples in results for one in samples.by_text.values()),
        "failed": dict(failures),
        **spent,
    }
    return result_of(frame, kept, dropped, facts)


def _work(row: dict[str, Any], config: Config) -> Work:
    from rmkit.generate import Request

    prompt = parse_messages(row["prompt"])
    request = Request(
        prompt=prompt,
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
    )
    completions = () if config.samples else Example(row).candidates.completions
    nothing = Completion((Message("assistant", ""),))  # replaced by each sample in turn
    return Work(Candidates(prompt, (nothing,), reference=row["reference"]), request, completions)


def _sampled(work: Sequence[Work], config: Config) -> tuple[str, list[Samples], dict[str, Any]]:
    """The author's name, the samples of each prompt, and what the calls cost."""
    from rmkit.generate import Budget, Engine
    from rmkit.generate.config import open_generator
    from rmkit.generate.tally import spent
    from rmkit.ledger import open_ledger
    from rmkit.verifiers.verifier import load_verifier

    verifier = load_verifier(config.verifier, config.options, where="rollouts: options", trusted=True)
    names = ("samples", "continuations", "adaptive", "separator")
    plan = Plan(**{name: value for name, value in asdict(config).items() if name in names})
    generator = open_generator(config.generator)
    with (
        open_ledger() as ledger,
        Engine(
            generator,
            ledger=ledger,
            purpose="recipe step rollouts",
            limits=config.generator.limits,
            budget=Budget(max_usd=config.max_usd),
        ) as engine,
    ):
        results = list(engine.each(partial(sampled, engine, verifier, plan), work))
        return generator.name, results, spent([engine.tally])


def _row(row: dict[str, Any], samples: Samples, author: str) -> dict[str, Any]:
    texts = [samples.by_text[text] for text in sorted(samples.by_text)]  # not as the calls came back
    scores = []
    for at, one in enumerate(texts):
        if not math.isnan(one.outcome):
            scores.append({"response": at, "aspect": OUTCOME, "value": one.outcome})
        counts = sorted(one.starts.items())
        scores += [{"response": at, "aspect": f"{SAMPLED}{start}", "value": float(n)} for start, n in counts]
    new = widened(row, [assistant_message(one.text) for one in texts], author=author, keep_given=False)
    return new | {"scores": scores, "step_ends": [list(one.step_ends) for one in texts], "method": "rollouts"}
