"""Step of loops: what a policy's replies to held-out prompts are worth, or how often a reward model is right.

With `policy`: `samples` replies to each prompt of the split, their mean reward by `reward`. Without: the accuracy of
`reward` on the pairs of the split, as `rmkit eval`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from data_pipelines.loops.records import Left, Place
from data_pipelines.loops.replies import sampled_replies
from data_pipelines.steps.score import scorer
from rmkit import plugins
from rmkit.data.example import prompt_facts
from rmkit.errors import ConfigError, DataError
from rmkit.generate import Request
from rmkit.generate.local import load_local
from rmkit.ids import parse_messages
from rmkit.ledger import open_ledger
from rmkit.types import Candidates, Completion, Message
from warehouse.versions.dataset import load_dataset


@dataclass(frozen=True, kw_only=True)
class Config:
    reward: Annotated[str, "the reward model"]
    options: Annotated[dict[str, Any], "those of a verifier as `reward`"] = field(default_factory=dict)
    policy: Annotated[str, "folder of the causal language model whose replies are judged"] = ""
    split: Annotated[str, "whose prompts, or pairs"] = "test"
    max_prompts: Annotated[int, "the first so many prompts"] = 200
    samples: Annotated[int, "replies a prompt"] = 1
    temperature: Annotated[float, "of sampling"] = 1.0
    max_tokens: Annotated[int, "of a reply"] = 512
    seed: Annotated[int, "of sampling"] = 0

    def __post_init__(self) -> None:
        if min(self.max_prompts, self.samples, self.max_tokens) < 1 or self.temperature < 0:
            raise ConfigError("evaluate: max_prompts, samples and max_tokens must be positive, temperature at least 0")


def act(config: Config, place: Place) -> Left:
    """`mean_reward` with its standard error over prompts, or `accuracy`. Raises DataError without such rows."""
    if not config.policy:  # a reward model
        result = plugins.resolve("front_door", "evaluate")(config.reward, data=place.version, split=config.split)
        return Left({"accuracy": result.models[0].measures["overall"].percent / 100})
    rows = {row.row["prompt"]: row.row for row in load_dataset(place.version, split=config.split)}
    drawn = list(rows.items())[: config.max_prompts]
    requests = [
        Request(
            prompt=parse_messages(prompt),
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            seed=config.seed,
        )
        for prompt, _ in drawn
    ]
    with open_ledger() as ledger:
        replies = sampled_replies(
            load_local(Path(config.policy)), requests, config.samples, ledger=ledger, purpose="loop: evaluate"
        )
    items = [
        Candidates(
            request.prompt, tuple(Completion((Message("assistant", text),)) for text in one.texts), **prompt_facts(row)
        )
        for request, one, (_, row) in zip(requests, replies, drawn, strict=True)
        if one.texts
    ]
    if not items:
        raise DataError(f"evaluate: {config.policy} gave no reply to {len(drawn)} prompts of split {config.split}")
    scores = [[one.value for one in scores] for scores in scorer(config.reward, config.options).score(items)]
    means = np.array([np.mean(one) for one in scores if np.isfinite(one).all()])
    return Left(
        {
            "prompts": len(means),
            "unscored": len(items) - len(means),
            "failed": sum(len(one.errors) for one in replies),
            "mean_reward": float(means.mean()) if len(means) else None,
            "standard_error": float(means.std(ddof=1) / len(means) ** 0.5) if len(means) > 1 else None,
        }
    )
