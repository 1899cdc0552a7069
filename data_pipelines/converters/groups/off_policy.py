"""Groups with an answer from elsewhere among the policy's own: a refinement by a critique, or a demonstration.

Critique-GRPO (arXiv:2506.03106) replaces one of 8 rollouts by a refinement, RL-PLUS and off-policy REINFORCE mix
demonstrations in. Either way the trainer must know what the policy did not write: the rating `on_policy` is 1 for
answers of the policy's very version, else 0, and `staleness` = |logp_then - logp_now| where both ratings are there.

From elsewhere come responses by other authors, and corrections (`edits`), which are right where nothing rates them.
What is still wrong is dropped. In a full group the other answer takes the place of the worst rollout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.converters import Derived, Example, NotConvertibleError, authors
from rmkit.errors import ConfigError

ON_POLICY, STALENESS = "on_policy", "staleness"


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: Annotated[str, "the author whose answers are on-policy; without it those without a stated author"] = ""
    size: Annotated[int, "answers of a group"] = 8
    external: Annotated[int, "answers from elsewhere at most"] = 1
    aspect: Annotated[str, "the rating that is the reward"] = "correct"
    right: Annotated[float, "a reward of at least this is right"] = 0.5
    edits: Annotated[bool, "corrections are answers from elsewhere, and right"] = True

    def __post_init__(self) -> None:
        if not 0 < self.external < self.size:
            raise ConfigError(f"off_policy: external must be 1 to size - 1, got {self.external} of {self.size}")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """One unit: the policy's answers and those from elsewhere, with their ratings."""
    own_ratings = _by_response(example)
    writers = authors(example)
    reward = [one.get(config.aspect, math.nan) for one in own_ratings]
    own = [at for at, author in enumerate(writers) if author == config.policy]
    critiques = {vote["edit"]: vote["rationale"] for vote in example["votes"] if vote["edit"]} if config.edits else {}
    others = [
        example["responses"][at]
        for at, author in enumerate(writers)
        if author != config.policy and reward[at] >= config.right and example["responses"][at] not in critiques
    ]
    place = {text: at for at, text in enumerate(example["responses"])}
    texts = [*(text for text in critiques if place.get(text) not in own), *others][: config.external]
    if not own:
        raise NotConvertibleError("no answer of the policy")
    if not texts:
        raise NotConvertibleError("no right answer from elsewhere")
    worst_first = sorted(own, key=lambda at: (not math.isnan(reward[at]), reward[at]))
    replaced = worst_first[: max(0, len(own) + len(texts) - config.size)]
    group = [at for at in own if at not in replaced]
    scores = [(new, name, value) for new, at in enumerate(group) for name, value in own_ratings[at].items()]
    scores += [(new, ON_POLICY, 1.0) for new in range(len(group))]
    for new, at in enumerate(group):
        then, now = (own_ratings[at].get(name, math.nan) for name in ("logp_then", "logp_now"))
        if not math.isnan(then - now):
            scores.append((new, STALENESS, abs(then - now)))
    for new, text in enumerate(texts, start=len(group)):
        known = own_ratings[place[text]] if text in place else {}
        scores += [(new, name, value) for name, value in ({config.aspect: 1.0} | known).items()]
        scores.append((new, ON_POLICY, 0.0))
    critique = next((critiques[text] for text in texts if critiques.get(text)), None)
    yield Derived(
        responses=[*(example["responses"][at] for at in group), *texts],
        origins=[*group, *map(place.get, texts)],
        scores=scores,
        n_votes=0,
        meta={"critique": critique} if critique else {},
    )


def _by_response(example: Example) -> list[dict[str, float]]:
    result: list[dict[str, float]] = [{} for _ in example["responses"]]
    for one in example["scores"] or ():
        result[one["response"]][one["aspect"]] = float(one["value"])
    return result
