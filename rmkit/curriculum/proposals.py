"""From records to prompts to train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmkit.curriculum import bandits
from rmkit.curriculum.bandits import Arm
from rmkit.curriculum.record import BookSettings, PromptRecord
from rmkit.curriculum.utilities import Utility, chosen
from rmkit.curriculum.value_model import ValueModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A prompt to train on, and what a trainer may want of it: NFT's pass rate, CLPO's bucket, a hint's tier."""

    prompt: str
    pass_rate: float
    n: int
    category: str | None
    bucket: str | None
    flags: tuple[str, ...]
    tier: int
    hint: str | None = None


def picked(
    records: Mapping[str, PromptRecord],
    m: int,
    utility: Utility,
    rng: np.random.Generator,
    *,
    values: Mapping[str, float],
) -> list[str]:
    """At most m prompts, best first; `values` are predictions of pass rates, of as many prompts as there are."""
    if not records or m < 1:
        return []
    names, of = list(records), list(records.values())
    places = chosen(
        utility,
        m,
        rng,
        a=np.array([one.belief.a for one in of]),
        b=np.array([one.belief.b for one in of]),
        n=np.array([float(one.n) for one in of]),
        advantage=np.array([np.nan if one.advantage is None else one.advantage for one in of]),
        value=np.array([values.get(name, np.nan) for name in names]),
    )
    return [names[place] for place in places]


def picked_by_category(
    records: Mapping[str, PromptRecord],
    m: int,
    utility: Utility,
    rng: np.random.Generator,
    *,
    values: Mapping[str, float],
    bandit: str,
    arms: Mapping[str, Arm],
) -> list[str]:
    """As `picked`, after the bandit (sec or dump) has drawn how many of each category."""
    inside: dict[str, dict[str, PromptRecord]] = {}
    for prompt, one in records.items():
        inside.setdefault(one.category or "", {})[prompt] = one
    probability = getattr(bandits, bandit)({name: arms.get(name, Arm()) for name in sorted(inside)})
    counts: list[int] = rng.multinomial(m, list(probability.values())).tolist() if probability else []
    result = []
    for category, count in zip(probability, counts, strict=True):
        result += picked(inside[category], count, utility, rng, values=values)
    return result


def predicted(records: Mapping[str, PromptRecord], features: Mapping[str, ArrayLike]) -> dict[str, float]:
    """A value model's pass rates of all prompts with features, fitted to those of them that were tried."""
    if not features:
        return {}
    table = {prompt: np.asarray(one, np.float64) for prompt, one in features.items()}
    tried = [prompt for prompt in table if prompt in records and records[prompt].n]
    rows = np.stack(list(table.values()))
    model = ValueModel.fit(
        np.array([table[prompt] for prompt in tried]).reshape(len(tried), rows.shape[1]),
        [records[prompt].pass_rate for prompt in tried],
        [records[prompt].n for prompt in tried],
    )
    return dict(zip(table, model.predict(rows).tolist(), strict=True))


def proposal(prompt: str, one: PromptRecord, settings: BookSettings) -> Proposal:
    """What is said of a prompt. Where all attempts failed, the tier is the one to try next, at least 1."""
    seen = one.flags(settings)
    return Proposal(
        prompt=prompt,
        pass_rate=one.pass_rate,
        n=one.n,
        category=one.category,
        bucket=one.bucket,
        flags=seen,
        tier=max(one.tier, 1) if "all_fail" in seen else 0,
    )
