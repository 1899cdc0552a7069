"""Small planted worlds in which published rules must go the way that their papers report (B22, B24, B37)."""

from __future__ import annotations

import numpy as np

from rmkit.search.aggregate import choose
from rmkit.search.space import Candidate
from rmkit.trees.rules import label, siblings
from rmkit.trees.tree import ROOT, Path, Tree, build


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def rescored(draw: np.random.Generator) -> tuple[list[float], Tree, Tree]:
    """(quality, tree of the drafts, tree with their reflections) of a prompt where hardly any draft passes.

    Ten drafts meet eight testbenches each; a draft that does not compile scores 0. Each is reflected on in two rounds,
    and a better draft is mended more often.
    """
    quality = draw.normal(size=10).tolist()
    drafts: list[Path] = []
    reflections: list[Path] = []
    for at, own in enumerate(quality):
        score = (
            draw.binomial(8, sigmoid(own - 2 + 1.5 * draw.normal())) / 8 if draw.random() < sigmoid(own + 1) else 0.0
        )
        drafts.append(Path(steps=(f"draft {at}",), outcome=score))
        for child in range(3):
            first = draw.binomial(8, sigmoid(1.5 * own + draw.normal())) / 8
            steps = (f"draft {at}", f"first {child}")
            reflections.append(Path(steps=steps, outcome=first))
            if first < 1:
                second = max(first, draw.binomial(8, sigmoid(1.5 * own + 1 + draw.normal())) / 8)
                reflections.append(Path(steps=(*steps, "second"), outcome=second))
    return quality, build(drafts), build([*drafts, *reflections])


def draft_pairs(tree: Tree, quality: list[float], value: str) -> list[bool]:
    """Whether the chosen draft of each pair of drafts is the better one."""
    pairs = [one for one in siblings(tree, {"use": "score_gap", "value": value}) if tree.nodes[one.chosen].depth == 1]
    at = [(int(tree.nodes[i].step.split()[1]), int(tree.nodes[j].step.split()[1])) for i, j, *_ in pairs]
    assert all(tree.nodes[one.rejected].parent == ROOT for one in pairs)
    return [quality[i] > quality[j] for i, j in at]


def test_rescoring_by_reflections_makes_more_pairs_of_sparse_rewards_and_no_worse_ones() -> None:
    """VeriRL (B24): a parent is worth the mean of its children, where the prompt's own pass rate is below .2. Here 35
    pairs of which .66 are right become 1,396 of which almost all are."""
    draw = np.random.default_rng(0)
    plain: list[bool] = []
    mended: list[bool] = []
    prompts = 0
    while prompts < 150:
        quality, before, after = rescored(draw)
        if float(np.mean([node.ends[0] for node in before.nodes[1:]])) >= 0.2:
            continue  # only prompts that pass so rarely are reflected on
        prompts += 1
        plain += draft_pairs(before, quality, "mean")
        mended += draft_pairs(after, quality, "children_mean")
    assert len(mended) > 5 * len(plain) > 0
    assert np.mean(mended) >= np.mean(plain)
    assert np.mean(mended) > 0.95


def candidates(draw: np.random.Generator, rate: float, *, n: int = 16, steps: int = 6) -> list[Candidate]:
    """Solutions of which a share is right; the wrong ones agree on one answer in half of the cases, and the step scores
    fall where the error is."""
    results = []
    for _ in range(n):
        right = draw.random() < rate
        error = steps if right else int(draw.integers(steps))
        scores = [sigmoid((2.0 if at < error else -1.0) + draw.normal(0, 1.2)) for at in range(steps)]
        answer = "right" if right else "usual" if draw.random() < 0.5 else f"wrong {draw.integers(5)}"
        results.append(Candidate(("x",) * steps, tuple(scores), answer))
    return results


def test_votes_do_on_easy_prompts_and_step_scores_on_the_others() -> None:
    """Compute-optimal scaling (B22)."""
    draw = np.random.default_rng(1)
    accuracy: dict[tuple[str, str], float] = {}
    for name, rate in (("easy", 0.6), ("medium", 0.25), ("hard", 0.05)):
        sets = [candidates(draw, rate) for _ in range(150)]
        for how in ("majority", "last-vote", "min-max"):
            chosen = [choose(one, how) for one in sets]
            accuracy[name, how] = float(np.mean([one is not None and one.answer == "right" for one in chosen]))
    assert accuracy["easy", "last-vote"] >= accuracy["easy", "majority"] > 0.9
    assert accuracy["medium", "min-max"] > accuracy["medium", "majority"] + 0.3
    assert accuracy["hard", "min-max"] > accuracy["hard", "majority"] + 0.2
    assert accuracy["hard", "majority"] < 0.05


def test_any_correct_labels_better_than_outcomes_and_rates() -> None:
    """GLoRe (B37): eight continuations of every prefix by a policy that errs in one step of seven."""
    draw = np.random.default_rng(2)
    n_steps, error, luck = 8, 0.15, 0.01
    right: dict[str, list[bool]] = {"outcome": [], "rate": [], "any": []}
    hits: dict[str, list[bool]] = {"rate": [], "any": []}
    for _ in range(200):
        wrong = next((at for at in range(n_steps) if draw.random() < error), n_steps)
        steps = tuple(map(str, range(n_steps)))
        outcome = float(wrong == n_steps)
        paths = [Path(steps=steps, outcome=outcome)]
        for at in range(1, n_steps):
            alive = (1 - error) ** (n_steps - at) if at <= wrong else luck
            for n in range(8):
                paths.append(Path(steps=(*steps[:at], f"c{n}"), outcome=float(draw.random() < alive), start=at))
        tree = build(paths)
        at = tree.walk(steps)
        labels = {
            "outcome": [outcome >= 0.5] * n_steps,
            "rate": (label(tree, {"use": "mean", "threshold": 0.5})[list(at)] >= 0.5).tolist(),
            "any": (label(tree, "any_correct")[list(at)] >= 0.5).tolist(),
        }
        for name, own in labels.items():
            right[name] += [value == (place < wrong) for place, value in enumerate(own)]
            if wrong < n_steps and name in hits:
                hits[name].append(next((place for place, value in enumerate(own) if not value), -1) == wrong)
    accuracy = {name: float(np.mean(values)) for name, values in right.items()}
    assert accuracy["any"] > max(accuracy["outcome"], accuracy["rate"]) + 0.1
    assert accuracy["any"] > 0.9
    assert np.mean(hits["any"]) > np.mean(hits["rate"]) + 0.3
