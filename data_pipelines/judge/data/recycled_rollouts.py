"""Verified rollouts recycled into judge items: the policy learns to judge from what it sampled anyway (SPARK,
arXiv 2509.22624).

One item a group, and rollouts that the verifier could not read are passed over:

    all right   pointwise, verdict yes, on a random rollout
    all wrong   pointwise, verdict no, on a random rollout
    mixed       3 of 10 groups pointwise (the verdict that is rarer so far), 7 of 10 pairwise, right against wrong; the
                right one stands first in exactly every other pair

and, with `reflection`, one more from each group that holds a wrong rollout: wrong answer -> gold, where gold is a right
rollout of the group, else the reference answer in the row's meta; every other one shows the whole wrong rollout, the
rest its last paragraph only. Surplus yes or no verdicts are dropped and counted: a judge learns the base rate first.
Rows are ordered so that every stretch of the file holds all verdicts in proportion, hence every batch does.

Row: id, order (rollouts shown), verdict, prompt, completion ("Verdict: yes", or the gold answer), task, template.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipelines.judge.data.dpo import SURPLUS, without_surplus
from data_pipelines.judge.data.folder import Built, Dropped, Row
from data_pipelines.judge.data.items import as_dicts, by_hash, reply
from rmkit.data.example import Example
from rmkit.errors import UsageError
from rmkit.judge import Judge
from rmkit.judge.prompt_file import PromptFile, Shown
from rmkit.types import Candidates, Completion, Message

REFLECTION = Path(__file__).parent / "prompts" / "reflection_v1.jinja"
POINTWISE_OF_TEN = 3


@dataclass(frozen=True, slots=True)
class Group:
    """Rollouts of one prompt with the verifier's word on each: right, wrong, or None where it could not read it."""

    id: str
    candidates: Candidates
    correct: tuple[bool | None, ...]
    reference: str = ""

    def indices(self, target: bool) -> list[int]:
        """The rollouts that are right (or wrong)."""
        return [i for i, result in enumerate(self.correct) if result is target]


def read_groups(examples: Iterable[Example], *, aspect: str = "score") -> tuple[list[Group], dict[str, int]]:
    """Groups of rows whose `scores` hold 1 (right) or 0 (wrong) under `aspect`, and the rows left out by reason.

    The reference answer is the meta's `reference`, where there is one.
    """
    groups: list[Group] = []
    reasons: Counter[str] = Counter()
    for example in examples:
        row = example.row
        if not row["responses"] or row["prompt"] is None or None in row["responses"]:
            reasons["no rollouts, or their text was erased"] += 1
            continue
        values = {one["response"]: one["value"] for one in row["scores"] or [] if one["aspect"] == aspect}
        if odd := {value for value in values.values() if value not in (0, 1, None)}:
            reasons[f"{aspect} is not 0 or 1 (a verifier's), but {min(odd):g} and the like"] += 1
            continue
        word = tuple(None if (v := values.get(i)) is None else bool(v) for i in range(len(row["responses"])))
        reference = json.loads(row["meta"] or "{}").get("reference") or ""
        groups.append(Group(example.id, example.candidates, word, str(reference)))
    return groups, dict(reasons)


def recycled(
    judges: Sequence[Judge], groups: Sequence[Group], *, skipped: dict[str, int], reflection: bool = True
) -> Built:
    """Judge items of the groups. `judges` lend their prompts only: yes_no ones for single rollouts, pairwise ones for
    pairs; of several of a form each item takes one by hash.

    Raises UsageError where a form is missing.
    """
    templates = {form: [judge for judge in judges if judge.config.form == form] for form in ("yes_no", "pairwise")}
    if missing := [form for form, results in templates.items() if not results]:
        raise UsageError(f"spark needs a judge of the form {' and of the form '.join(missing)}; add its TOML")
    rows: dict[str, list[Row]] = {"pointwise": [], "pairwise": [], "reflection": []}
    dropped: list[Dropped] = []
    mixed = 0
    for group in sorted(groups, key=lambda group: by_hash(group.id)):
        good, bad = group.indices(True), group.indices(False)
        draw = random.Random(group.id)
        if not good and not bad:
            dropped.append({"id": group.id, "reason": "no rollout that the verifier could read"})
            continue
        if good and bad and mixed % 10 >= POINTWISE_OF_TEN:
            shown = (draw.choice(good), draw.choice(bad))
            flipped = len(rows["pairwise"]) % 2 == 1
            rows["pairwise"].append(_pair(templates["pairwise"], group, shown[::-1] if flipped else shown))
        else:
            answers = Counter(row["verdict"] for row in rows["pointwise"])
            target = answers["yes"] <= answers["no"] if good and bad else bool(good)
            rows["pointwise"].append(_single(templates["yes_no"], group, draw.choice(good if target else bad)))
        mixed += bool(good and bad)
        if reflection and bad:
            result = _reflection(group, draw, whole=len(rows["reflection"]) % 2 == 0)
            if result:
                rows["reflection"].append(result)
            else:
                dropped.append({"id": group.id, "reason": "nothing to reflect towards: no right rollout, no reference"})
    rows["pointwise"], surplus = without_surplus(rows["pointwise"])
    for one in surplus:
        one["reason"] = f"{SURPLUS}: {one['verdict']}"
    return Built(_spread([row for results in rows.values() for row in results]), [*dropped, *surplus], skipped)


def _single(templates: Sequence[Judge], group: Group, at: int) -> Row:
    verdict = "yes" if group.correct[at] else "no"
    return _item(_of(templates, group), group, (at,), verdict, task="pointwise")


def _pair(templates: Sequence[Judge], group: Group, shown: tuple[int, int]) -> Row:
    return _item(_of(templates, group), group, shown, "A" if group.correct[shown[0]] else "B", task="pairwise")


def _of(templates: Sequence[Judge], group: Group) -> Judge:
    return templates[int(by_hash(group.id)[:8], 16) % len(templates)]


def _item(judge: Judge, group: Group, shown: tuple[int, ...], verdict: str, *, task: str) -> Row:
    completions = tuple(group.candidates.completions[i] for i in shown)
    _, request = judge.requests(replace(group.candidates, completions=completions))[0]
    return {
        "id": group.id,
        "order": list(shown),
        "verdict": verdict,
        "prompt": as_dicts(request.prompt),
        "completion": reply(f"Verdict: {verdict}"),
        "task": task,
        "template": judge.prompt.hash,
    }


def _reflection(group: Group, draw: random.Random, *, whole: bool) -> Row | None:
    good, wrong = group.indices(True), draw.choice(group.indices(False))
    gold = group.candidates.completions[draw.choice(good)].text if good else group.reference
    if not gold:
        return None
    text = group.candidates.completions[wrong].text
    shown = text if whole else text.strip().split("\n")[-1]
    requests = PromptFile(REFLECTION).render(
        group.candidates.prompt, Shown(responses=(Completion((Message("assistant", shown),)),)), settings={}
    )
    return {
        "id": group.id,
        "order": [wrong],
        "verdict": None,
        "prompt": as_dicts(requests),
        "completion": reply(gold),
        "task": "reflection, whole" if whole else "reflection, end only",
        "template": REFLECTION.name,
    }


def _spread(rows: Sequence[Row]) -> list[Row]:
    """In an order in which every kind of row and verdict comes at an even pace."""
    classes = [(row["task"], row["verdict"]) for row in rows]
    sizes, seen = Counter(classes), Counter[tuple[str, str]]()
    at: list[tuple[float, Row]] = []
    for name, row in zip(classes, rows, strict=True):
        at.append(((seen[name] + 0.5) / sizes[name], row))
        seen[name] += 1
    return [row for _, row in sorted(at, key=lambda one: one[0])]
