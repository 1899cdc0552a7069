"""SPARK's check (B15): does a judge that was trained on recycled rollouts judge better than the prior?

The world of `judge_training_world`, as a policy would see it: groups of four rollouts to one prompt, each a filler and
a word, which a verifier calls right where the word is good. `judge_data_spark` makes yes/no items and pairs of them;
one SFT run on both trains one model. A quarter of the rollout texts occurs in no group; on these it is asked for
yes or no, and for the better of a right and a wrong one in both orders. The prior, and any guess, is right in one half.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Literal

from data_pipelines.judge.data.folder import write_folder
from data_pipelines.judge.data.recycled_rollouts import Group, recycled
from data_pipelines.judge.training.command import train
from data_pipelines.judge.training.config import JudgeTrainingConfig
from evaluation.benchmarks.judge_training.synthetic_task import FILLER, WORDS, write_base, write_judge
from rmkit.generate import Engine
from rmkit.generate.local import load_local
from rmkit.judge import Judge, JudgeConfig, load_judge
from rmkit.judge.prompt_file import PromptFile
from rmkit.ledger import open_ledger
from rmkit.types import Candidates, Completion, Message

Form = Literal["yes_no", "pairwise"]
FORMS: tuple[Form, ...] = ("yes_no", "pairwise")
GROUPS, ROLLOUTS = 400, 4
PROMPT = (Message("user", "which"),)


def one_seed(folder: Path, seed: int, *, settings: JudgeTrainingConfig) -> dict[str, object]:
    """Shares right on rollouts that no group held, and what the judge was trained on. `folder` is empty."""
    draw = random.Random(f"spark {seed}")
    texts = [
        (f"{filler} {word}", at < len(WORDS) // 2)
        for at, word in enumerate(draw.sample(WORDS, len(WORDS)))
        for filler in FILLER
    ]
    draw.shuffle(texts)
    held_out, seen = texts[: len(texts) // 4], texts[len(texts) // 4 :]
    forms: dict[Form, Path] = {form: write_judge(folder / form, form=form) for form in FORMS}
    with open_ledger(folder / "ledger.sqlite") as ledger:
        judges = [load_judge(toml, ledger=ledger) for toml in forms.values()]
        built = recycled(judges, _groups(seen, draw), skipped={}, reflection=False)
        for judge in judges:
            judge.close()
    write_folder(folder / "data", built, judge=forms["yes_no"], stage="spark", dataset=None)
    base = write_base(folder / "base", seed=seed, more=("yes", "no"))
    train("sft", folder / "data", base=str(base), output=folder / "judge", settings=replace(settings, seed=seed))
    tasks = [row["task"] for row in built.rows]
    return {
        "seed": seed,
        "rows": {task: tasks.count(task) for task in sorted(set(tasks))},
        "right_first": fmean(row["verdict"] == "A" for row in built.rows if row["task"] == "pairwise"),
    } | _accuracy(folder / "judge", forms, held_out)


def _groups(texts: list[tuple[str, bool]], draw: random.Random) -> list[Group]:
    """Groups of every difficulty: each has its own share of right rollouts."""
    by_word = {right: [text for text, names in texts if names is right] for right in (True, False)}
    groups = []
    for at in range(GROUPS):
        share = draw.random()
        correct = tuple(draw.random() < share for _ in range(ROLLOUTS))
        completions = tuple(_reply(draw.choice(by_word[right])) for right in correct)
        groups.append(Group(f"group {at}", Candidates(PROMPT, completions), correct))
    return groups


def _reply(text: str) -> Completion:
    return Completion((Message("assistant", text),))


def _accuracy(model: Path, forms: dict[Form, Path], held_out: list[tuple[str, bool]]) -> dict[str, float]:
    good, bad = ([text for text, right in held_out if right is target] for target in (True, False))
    n = min(len(good), len(bad))
    singles = [(text, right) for texts, right in ((good[:n], True), (bad[:n], False)) for text in texts]
    pairs = [Candidates(PROMPT, (_reply(one), _reply(other))) for one, other in product(good[:n], bad[:n])]
    with Engine(load_local(model)) as engine:
        yes_no, pairwise = (
            Judge(
                JudgeConfig(name=form, form=form, verdict="parse", max_tokens=4),
                engine,
                prompt=PromptFile(toml.parent / "prompt.jinja"),
            )
            for form, toml in forms.items()
        )
        answers = [scores[0] for scores in yes_no.score([Candidates(PROMPT, (_reply(text),)) for text, _ in singles])]
        compared = list(pairwise.judged(pairs))
    votes = [
        [not vote.reading.unread and (vote.reading.values[0] > 0.5) == (vote.shown[0] == 0) for vote in one.votes]
        for one in compared
    ]
    return {
        "yes_no": fmean(
            score.unscored is None and (score.value > 0.5) is right
            for score, (_, right) in zip(answers, singles, strict=True)
        ),
        "one_order": fmean(call for calls in votes for call in calls),
        "both_orders": fmean(all(calls) for calls in votes),
        "held_out": len(held_out),
    }
