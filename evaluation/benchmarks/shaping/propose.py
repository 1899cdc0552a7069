"""`rmkit bench propose`: the share of groups with a signal when the prompt book proposes, against uniform sampling.

The learner is simulated: prompt i is solved with probability sigmoid(skill of its category - difficulty i); a group has
a signal where its rollouts differ in outcome, and only such groups raise the skill. Arms of one seed share prompts and
start; the book is a real one on a SQLite file. What is simulated is the learner, so the numbers say how the book
chooses under drift, not what a real policy would gain.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rmkit.cli import arguments, display
from rmkit.curriculum.book import PromptBook
from rmkit.curriculum.observation import Observation
from rmkit.curriculum.record import BookSettings
from rmkit.curriculum.utilities import Utility
from rmkit.ledger import open_ledger

ARMS: dict[str, tuple[Utility, float]] = {  # utility and decay
    "uniform": ("uniform", 1.0),
    "half": ("half", 1.0),
    "half, decay .5": ("half", 0.5),
    "variance": ("variance", 1.0),
    "spo": ("spo", 1.0),
}
CATEGORIES = 4
GAIN = 0.04  # of a category's skill for each group with a signal


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench propose",
        "Share of groups with a signal: prompts as the book proposes them, against uniform ones.",
        examples=["bench propose --seeds 8", "bench propose --seeds 3 --steps 20"],
    )
    parser.add_argument("--seeds", type=arguments.positive, default=8)
    parser.add_argument("--prompts", type=arguments.positive, default=400)
    parser.add_argument("--steps", type=arguments.positive, default=50)
    parser.add_argument("--batch", type=arguments.positive, default=24, help="prompts a step")
    parser.add_argument("--rollouts", type=arguments.positive, default=8, help="answers a prompt")
    options = parser.parse_args(argv)
    summary = run(options)
    rows = [
        [name, one["share"], one["gain"], display.interval(one["interval"]), one["skill"]]
        for name, one in summary["arms"].items()
    ]
    table = display.table(("arm", "groups with signal", "gain", "95% interval", "final skill"), rows)
    display.emit(summary, as_json=options.json, text=table)
    return 0


def run(options: Any) -> dict[str, Any]:
    """Per arm the mean share of groups with a signal, and the paired gain over uniform with its interval."""
    shares: dict[str, list[float]] = {name: [] for name in (*ARMS, "oracle")}
    skills: dict[str, list[float]] = {name: [] for name in shares}
    for seed in range(options.seeds):
        for name in shares:
            share, skill = _trained(name, seed, options)
            shares[name].append(share)
            skills[name].append(skill)
    base = np.array(shares["uniform"])
    arms = {}
    for name, values in shares.items():
        gain = np.array(values) - base
        half = _t95(len(gain)) * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 and name != "uniform" else None
        arms[name] = {
            "share": round(float(np.mean(values)), 4),
            "gain": None if name == "uniform" else round(float(gain.mean()), 4),
            "interval": None if half is None else {"low": float(gain.mean() - half), "high": float(gain.mean() + half)},
            "skill": round(float(np.mean(skills[name])), 3),
        }
    settings = {key: getattr(options, key) for key in ("seeds", "prompts", "steps", "batch", "rollouts")}
    return {"settings": settings, "arms": arms}


def _trained(arm: str, seed: int, options: Any) -> tuple[float, float]:
    """The share of groups with a signal over the run, and the mean skill at its end."""
    world, luck = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    difficulty = world.normal(0, 3, options.prompts)
    category = world.integers(CATEGORIES, size=options.prompts)
    skill = world.normal(0, 0.5, CATEGORIES)
    names = [f"p{number}" for number in range(options.prompts)]
    utility, decay = ARMS.get(arm, ("half", 1.0))
    mixed = 0
    with tempfile.TemporaryDirectory() as folder, open_ledger(Path(folder) / "ledger.sqlite") as ledger:
        book = PromptBook(ledger, settings=BookSettings(decay=decay))
        for step in range(options.steps):
            p = 1 / (1 + np.exp(difficulty - skill[category]))
            if arm == "oracle":
                chosen = np.argsort(np.abs(p - 0.5) + 1e-6 * luck.random(len(p)))[: options.batch]
            else:
                seen = book.propose(options.batch, utility=utility, among=names, seed=1000 * seed + step)
                chosen = np.array([int(one.prompt[1:]) for one in seen])
            right = luck.random((len(chosen), options.rollouts)) < p[chosen, None]
            if arm != "oracle":
                book.observe(
                    [
                        Observation(prompt=names[place], rewards=tuple(row.astype(float).tolist()))
                        for place, row in zip(chosen, right, strict=True)
                    ]
                )
            signal = right.any(1) & ~right.all(1)
            mixed += int(signal.sum())
            np.add.at(skill, category[chosen[signal]], GAIN)
    return mixed / (options.steps * options.batch), float(skill.mean())


def _t95(n: int) -> float:
    """The two-sided 95% quantile of Student's t with n - 1 degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1))
