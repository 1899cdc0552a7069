"""New responses to every row's prompt, sampled from a language model: the first link of generate, score, binarize.

The model is any back end of rmkit.generate: a folder with a transformers model, a server that speaks the OpenAI chat
protocol, vLLM in this process. Each distinct reply becomes a response whose author is the model (with the digest of its
weights where it is local); those that the row had stay beside it unless `keep_given` is false. Labels and votes
speak of other sets of responses, so they go. Calls are kept in the ledger: a run that was killed, or repeated, pays
for nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from data_pipelines.algorithms.responses import result_of, widened
from data_pipelines.loops.replies import Replies, sampled_replies
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError, DataError
from rmkit.generate.budget import BUDGET_OF
from rmkit.generate.config import GeneratorConfig
from rmkit.ids import assistant_message, parse_messages


@dataclass(frozen=True, kw_only=True)
class Config:
    """`generator` is a table as in a judge's TOML; `max_usd` is what new calls may cost (default: no limit).
    `author` is the name that the replies are stored under (default: the generator's)."""

    generator: GeneratorConfig
    samples: int = 4
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 1024
    keep_given: bool = True
    author: str = ""
    max_usd: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                "generate: samples and max_tokens must be positive, temperature at least 0, top_p in (0, 1]"
            )
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(f"generate: {self.samples} samples at temperature 0 are one reply; set temperature 0.8")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with the new responses and no label; a row without any reply is dropped with the reason.

    Without `keep_given` rows of one prompt would become equal, so the first of them stays. Raises DataError where the
    budget ends before the data (the same recipe with a larger one goes on), EndpointError where nothing answers.
    """
    rows, again = frame.to_dicts(), set[str]()
    if not config.keep_given:
        again = set(frame.filter(~pl.col("prompt").is_first_distinct())["id"])
    target = [row for row in rows if row["id"] not in again]
    name, replies = _replies([row["prompt"] for row in target], config)
    author = config.author or name
    answered = []
    dropped: list[tuple[str, str, str | None]] = [
        (row["id"], "its prompt was sampled for another row", None) for row in rows if row["id"] in again
    ]
    for row, one in zip(target, replies, strict=True):
        if one.texts:
            texts = [assistant_message(text) for text in one.texts]
            answered.append(widened(row, texts, author=author, keep_given=config.keep_given))
        else:
            dropped.append((row["id"], "no reply could be generated", one.errors[0]))
    facts = {
        "author": author,
        "replies": sum(len(one.texts) for one in replies),
        "failed": dict(Counter(error.split(":")[0] for one in replies for error in one.errors)),
    }
    return result_of(frame, answered, dropped, facts)


def _replies(prompts: Sequence[str], config: Config) -> tuple[str, list[Replies]]:
    """The author's name, and the replies to each prompt."""
    from rmkit.generate import Budget, Request
    from rmkit.generate.config import open_generator
    from rmkit.ledger import open_ledger

    generator = open_generator(config.generator)
    settings: dict[str, Any] = {name: getattr(config, name) for name in ("max_tokens", "temperature", "top_p", "seed")}
    with open_ledger() as ledger:
        replies = sampled_replies(
            generator,
            [Request(prompt=parse_messages(prompt), **settings) for prompt in prompts],
            config.samples,
            ledger=ledger,
            purpose="recipe step generate",
            limits=config.generator.limits,
            budget=Budget(max_usd=config.max_usd),
        )
    unpaid = sum(error.startswith(BUDGET_OF) for one in replies for error in one.errors)
    if unpaid:
        raise DataError(
            f"generate: ${config.max_usd:g} did not pay for {unpaid} of {config.samples * len(prompts)} replies; those "
            "made are kept: raise max_usd and run the recipe again"
        )
    return generator.name, replies
