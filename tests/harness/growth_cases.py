"""Inputs for tests.harness.test_growth: every entry takes a size and gives back the call whose cost is measured.

Each step that needs no trained model is doubled along every axis that its input has: rows, words of a prompt, turns of
a conversation, responses of a row, votes on a row, words of a response; each suite rule along its items; what the
service holds along requests.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from data_pipelines.steps import Context, configure, run_step
from rmkit.ids import assistant_message, canonical_json, content_hash, user_message
from tests.data_pipelines.frames import frame, pair, vote
from tests.harness import growth_learned, growth_service, growth_studio
from warehouse.write.identity import unit_hash

Call = Callable[[], Any]

VOCABULARY = np.array([f"w{number}" for number in range(20_000)])
HELD_OUT = 50


def text(draw: np.random.Generator, n_words: int) -> str:
    return " ".join(VOCABULARY[draw.integers(0, len(VOCABULARY), n_words)])


def rows_of(
    n: int = 40, *, words: int = 40, turns: int = 1, responses: int = 2, votes: int = 3, answer: int = 40
) -> pl.DataFrame:
    """Rows of random words; as many responses, votes, turns and words as said."""
    draw = np.random.default_rng(1)
    made = []
    for _ in range(n):
        roles = ["user", "assistant"] * turns
        said = [{"role": roles[at], "content": text(draw, words)} for at in range(2 * turns - 1)]
        prompt = canonical_json(said)
        texts = sorted((assistant_message(text(draw, answer)) for _ in range(responses)), key=content_hash)
        base = pair(prompt, "x", "y")
        kind = "pair" if responses == 2 else "list"
        order = draw.permuted(np.tile(np.arange(responses), (votes, 1)), axis=1).tolist()
        scores = [{"response": at, "aspect": aspect, "value": float(draw.normal())}
                  for at in range(responses) for aspect in ("rm", "truth")]  # fmt: skip
        row = base | {
            "kind": kind,
            "responses": texts,
            "unit": unit_hash(kind, prompt, responses=texts),
            "votes": [vote(f"r{at}", ranks) for at, ranks in enumerate(order)],
            "p": [0.9, 0.1] if responses == 2 else None,
            "ranks": list(range(responses)),
            "generators": ["pi"] * responses,
            "scores": scores,
        }
        made.append(row | {"id": content_hash(row["unit"])})
    return frame(made)


def benchmarks(words: int) -> pl.DataFrame:
    draw = np.random.default_rng(2)
    rows = [
        ("held-out", str(at), user_message(text(draw, words)), [assistant_message(text(draw, words))])
        for at in range(HELD_OUT)
    ]
    return pl.DataFrame(rows, schema=Context().benchmarks.schema, orient="row")


AXES: dict[str, tuple[str, int, dict[str, int]]] = {
    # axis: (which argument of rows_of, its base size, the others)
    "rows": ("n", 6_000, {}),
    "words": ("words", 8_000, {}),
    "turns": ("turns", 200, {"n": 100, "words": 20}),
    "responses": ("responses", 500, {"n": 20, "words": 20}),
    "votes": ("votes", 500, {"n": 40}),
    "answer": ("answer", 8_000, {}),
}
ROWS_ONLY, PAIRS = ("rows", "words", "turns", "responses", "answer"), ("rows", "votes")
# step -> (options, axes along which its work grows)
STEPS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "normalize": ({}, ROWS_ONLY),
    "exact_dedup": ({}, ROWS_ONLY),
    "near_dedup": ({}, ROWS_ONLY),
    "agreement": ({}, PAIRS),
    "aggregate": ({"method": "mace"}, PAIRS),
    "quality": ({"script": True, "truncated": True, "refusals": True}, ROWS_ONLY),
    "contamination": ({"responses": True}, ROWS_ONLY),
    "split": ({}, ("rows", "words", "turns")),
    "subset": ({"max_rows": 20}, ("rows", "words", "turns")),
    "noise": ({"kind": "prompt"}, ("rows", "words", "turns", "answer")),
    "relabel": ({}, ("rows",)),
    "consistency": ({"current": "rm", "previous": "truth"}, ("rows", "responses")),
    "policy_filter": ({"aspect": "rm", "truth": "truth"}, ("rows", "responses")),
    "on_policy": ({"policy": "pi", "aspect": "rm"}, ("rows", "responses")),
    "score": ({"model": "length", "label": True}, ROWS_ONLY),
    "best_of_n": ({"keep": 2, "aspect": "rm"}, ("rows", "responses")),
    "binarize": ({"how": "halves", "aspect": "rm"}, ("rows", "responses")),
}


def step_case(name: str, axis: str, size: int) -> Call:
    argument, _, others = AXES[axis]
    given = rows_of(**{**others, argument: size})
    options = dict(STEPS[name][0])
    if name == "relabel":
        options = {"labels": [f"{unit} 0.7 3" for unit in given["unit"]]}
    context = Context(benchmarks=benchmarks(size if axis == "words" else 40))
    config = configure(name, options, where="growth")
    return lambda: run_step(name, given, config, context=context)


def repeated_unit(size: int) -> Call:
    """One unit in many rows, all with votes of their own: exact_dedup unites them."""
    row = rows_of(1, votes=3).to_dicts()[0]
    rows = [
        row | {"id": f"{at:032x}", "votes": [one | {"rater": f"r{at}"} for one in row["votes"]]} for at in range(size)
    ]
    given, config = frame(rows), configure("exact_dedup", {}, where="growth")
    return lambda: run_step("exact_dedup", given, config, context=Context())


def template(size: int) -> Call:
    """Rows whose prompts differ in one word: near-duplicates of one another."""
    draw = np.random.default_rng(3)
    body = text(draw, 60)
    rows = [pair(f"{body} number {at}", text(draw, 20), text(draw, 20)) for at in range(size)]
    given, config = frame(rows), configure("near_dedup", {"text": "prompt"}, where="growth")
    return lambda: run_step("near_dedup", given, config, context=Context())


def suite_rule(form: str, size: int) -> Call:
    """All that a suite does with `size` rows of a form once they are scored: items, credits, measures, intervals."""
    from evaluation.scoring import credit_table
    from evaluation.scoring.measures import measure_all
    from evaluation.suites.forms import read_items
    from evaluation.suites.items import Answer
    from evaluation.suites.suite import Measure, Subset, Suite

    draw = np.random.default_rng(5)
    rule, extra, measure = SUITE_RULES[form]
    form = "best_of" if form == "ties" else form
    names = ("ref:{}", "tied:{}") if rule == "ties" else ("{}", "{}")
    rows = [
        {"id": names[at % 2].format(at // 2 if rule == "ties" else at), "prompt": f"question {at // 2}", "subset": "a"}
        | extra
        for at in range(size)
    ]
    suite = Suite(
        name="t",
        title="t",
        rule=rule,
        form=form,
        subsets=(Subset(name="a"),),
        measures=(Measure("all", "pool", {measure: 1.0}),),
    )

    def call() -> None:
        items = read_items(form, rows, where="growth")
        n = len(items[0].candidates.completions) if items[0].candidates else 0
        answers = {
            item.id: Answer(item.id, steps=(0.9, 0.2, 0.8))
            if form == "steps"
            else Answer(item.id, scores=tuple(draw.normal(size=n)))
            for item in items
        }
        measure_all(suite, credit_table(suite, items, answers))

    return call


FOUR = ["one reply", "another", "a third", "the last"]
SUITE_RULES: dict[str, tuple[str, dict[str, Any], str]] = {
    "pairs": ("pairs", {"chosen": "yes", "rejected": "no"}, "*"),
    "best_of": ("best_of", {"chosen": FOUR[:1], "rejected": FOUR[1:]}, "*"),
    "ties": ("ties", {"chosen": FOUR[:2], "rejected": FOUR[2:], "num_correct": 2}, "*/*"),
    "rmbench": ("rmbench", {"chosen": FOUR[:3], "rejected": FOUR[1:]}, "*/*"),
    "judgebench": ("judgebench", {"label": "A>B", "response_A": "x", "response_B": "y", "question": "q"}, "*"),
    "steps": ("first_error", {"steps": FOUR[:3], "label": 1}, "*/*"),
    "nway": ("nway", {"responses": [{"text": text, "score": at} for at, text in enumerate(FOUR)]}, "*/*"),
    "annotators": (
        "annotators",
        {"response_a": "x", "response_b": "y", "labels": [{"preference": one} for one in ("a", "b", "tie")]},
        "*/*",
    ),
}


def bootstrap(size: int) -> Call:
    from rmkit.metrics import clustered_interval

    draw = np.random.default_rng(4)
    credit, clusters = draw.random(size), draw.integers(0, size // 3, size)
    return lambda: clustered_interval(credit, clusters)


CASES: dict[str, Callable[[int], Call]] = {
    f"{name} {axis}": functools.partial(step_case, name, axis) for name, (_, axes) in STEPS.items() for axis in axes
}
SIZES: dict[str, int] = {f"{name} {axis}": AXES[axis][1] for name, (_, axes) in STEPS.items() for axis in axes}
for _name, _size, _case in (
    ("exact_dedup of one unit", 12_000, repeated_unit),
    ("near_dedup of a template", 4_000, template),
    ("bootstrap", 40_000, bootstrap),
    *((f"suite {form}", 8_000, functools.partial(suite_rule, form)) for form in SUITE_RULES),
    *(
        (name, size, case)
        for table in (growth_learned.CASES, growth_service.CASES, growth_studio.CASES)
        for name, (size, case) in table.items()
    ),
):
    CASES[_name], SIZES[_name] = _case, _size
