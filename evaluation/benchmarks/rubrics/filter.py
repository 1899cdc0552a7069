"""`rmkit bench rubric-filter`: does preference-label consistency find the good rubrics? (algorithms, section 3)

Tasks have hidden hard rules (word limit, required text, number of bullets ...). A scripted writer states them, but each
rule is corrupted with probability `noise`: inverted, given another value, or replaced by one nobody asked for. A
scripted judge runs whatever rules it is given and decides by how many each response keeps; where these are equal it
names the first one, so that only asking in both orders shows that it could not tell. Both answer through the engine,
the prompts, the parser, the validator and the filter that real models go through.

    rule precision   share of the rules in rubrics that the task really has, over all rubrics and over the kept ones
    judge accuracy   on requests nobody saw, each judged under a rubric drawn from those of its task: a writer that
                     imitates its training set. Before: drawn from all rubrics; after: from the kept ones.

A pair tests a rubric once; a list of N responses tests it N(N - 1)/2 times, and tau says how many must come out right.
Each seed is a new world. Intervals are those of the mean difference over the seeds (t distribution).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from evaluation.benchmarks.judging.page import write_section
from rmkit.cli import arguments, display
from rmkit.generate import Engine, Limits, Prices, Request, Sample
from rmkit.judge import Context, Judge, JudgeConfig
from rmkit.types import Candidates, Completion, Message
from rmkit.verifiers.rules import compiled
from rubrics.contrastive import ContrastConfig, Instance, Outcome, contrast
from rubrics.rule_text import described
from rubrics.validate import parse_reply

ABOUT = (
    "Synthetic tasks with hidden hard rules; a scripted writer corrupts rules, a scripted judge runs whatever\n"
    "rules it is given. Precision: share of rules the task really has. Judge accuracy: requests nobody saw, each\n"
    "under a rubric drawn from those of its task, before and after the filter. Gains with 95% intervals over\n"
    "seeds. A pair tests a rubric once, a list of four six times."
)
Check = dict[str, Any]
WORDS = ("amber", "bridge", "candle", "dragon", "ember", "falcon", "garden", "harbor", "island", "jungle")
INVERSE = {"max_words": "min_words", "min_words": "max_words", "includes": "excludes", "excludes": "includes"}


@dataclass(frozen=True, slots=True)
class Task:
    """Requests of one kind and the rules they state."""

    name: str
    rules: tuple[Check, ...]


class Scripted:
    """A Generator that answers from a function of the prompt's last message."""

    prices = Prices()

    def __init__(self, name: str, answer: Any) -> None:
        self.name = name
        self._answer = answer

    async def sample(self, request: Request) -> Sample:
        return Sample(text=self._answer(request.prompt[-1].content, request.seed))

    async def close(self) -> None:
        return None


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench rubric-filter",
        "Rule precision and held-out judge accuracy before and after the consistency filter.",
        examples=["bench rubric-filter", "bench rubric-filter --noise 0.5 --cases 4:0.75 --seeds 5"],
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.3, help="share of rules corrupted")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--requests", type=int, default=12, help="training requests per task, held out as many")
    parser.add_argument("--cases", default="2:0.5,4:0.5,4:0.75", help="responses:tau")
    parser.add_argument("--orders", choices=("both", "given"), default="both", help="of the judge")
    parser.add_argument("--rewrites", type=int, default=0)
    parser.add_page(help="write its section of the results page there")
    options = parser.parse_args(argv)
    summary = run(options)
    if options.page:
        write_section(options.page, name="rubric-filter", about=ABOUT, argv=argv, text=_text(summary))
    display.emit(summary, as_json=options.json, text=_text(summary))
    return 0


def run(options: Any) -> dict[str, object]:
    """Per case means over seeds with 95% intervals of the differences."""
    cases = [(int(n), float(tau)) for n, tau in (case.split(":") for case in options.cases.split(","))]
    by_key: dict[str, Any] = {"noise": options.noise, "seeds": options.seeds, "orders": options.orders, "cases": {}}
    with display.progress("worlds", options.seeds * len(cases)) as advance:
        for n, tau in cases:
            worlds = []
            for seed in range(options.seeds):
                worlds.append(world(seed, options, responses=n, tau=tau))
                advance(1)
            by_key["cases"][f"{n} responses, tau {tau:g}"] = _case(worlds)
    return by_key


def _case(worlds: Sequence[Mapping[str, float]]) -> dict[str, object]:
    means: dict[str, Any] = {name: fmean(world[name] for world in worlds) for name in worlds[0]}
    for name in ("precision", "accuracy"):
        means[f"{name}_gain"] = interval([world[f"{name}_after"] - world[f"{name}_before"] for world in worlds])
    return means


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean with its 95% interval over independent seeds."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return {"mean": fmean(values), "low": fmean(values) - half, "high": fmean(values) + half}


def world(seed: int, options: Any, *, responses: int, tau: float) -> dict[str, float]:
    """One seed: precision and accuracy before and after, share kept."""
    draw = random.Random(seed)
    tasks = [Task(f"task{i}", tuple(_rules(draw))) for i in range(options.tasks)]
    by_name = {task.name: task for task in tasks}
    instances = [
        Instance(id=f"{task.name} {i}", candidates=_candidates(task, f"{task.name} request {i}", responses, draw))
        for task in tasks
        for i in range(options.requests)
    ]

    def write(requests: str, attempt: int) -> str:
        name = re.search(r"(task\d+) request \d+", requests)
        assert name
        own = random.Random(f"{seed} {name[0]} {attempt}")
        rules = [_corrupted(rule, own) if own.random() < options.noise else rule for rule in by_name[name[1]].rules]
        return "\n".join(f"{n}. {described(rule)} [hard rule]" for n, rule in enumerate(_distinct(rules), start=1))

    limits = Limits(concurrency=64)
    config = ContrastConfig(tau=tau, rewrites=options.rewrites)
    with (
        Engine(Scripted("writer", write), limits=limits) as writer,
        Engine(Scripted("judge", judge), limits=limits) as e,
    ):
        rubric_judge = Judge(JudgeConfig(name="rules", verdict="parse", orders=options.orders), e)
        outcomes = contrast(writer, rubric_judge, instances, config=config)
        held_out = [
            (task, _candidates(task, f"{task.name} unseen {i}", 2, draw))
            for task in tasks
            for i in range(options.requests)
        ]
        accepted = [outcome for outcome in outcomes if outcome.dropped is None]
        return {
            "kept": len(accepted) / len(outcomes),
            "precision_before": _precision(outcomes, by_name),
            "precision_after": _precision(accepted, by_name),
            "accuracy_before": _accuracy(rubric_judge, held_out, outcomes, seed),
            "accuracy_after": _accuracy(rubric_judge, held_out, accepted, seed),
        }


def judge(requests: str, seed: int) -> str:
    """Runs the rules of the rubric in the prompt on both responses; where it cannot tell, it names the first one."""
    rubric = re.search(r"(?s)<rubric (\w+)>\n(.*?)\n</rubric \1>", requests)
    responses = [text for _, text in re.findall(r"(?s)<response-\w (\w+)>\n(.*?)\n</response-\w \1>", requests)]
    criteria, _ = parse_reply(rubric[2] if rubric else "")
    checks = [compiled(criterion.check) for criterion in criteria if criterion.check]
    first, second = (sum(bool(check(text)) for check in checks) for text in responses)
    return f"Verdict: {'A' if first >= second else 'B'}"


def _rules(draw: random.Random) -> list[Check]:
    """Three compatible rules of different kinds."""
    word, other = draw.sample(WORDS, 2)
    kinds: list[Check] = [
        {"rule": draw.choice(["max_words", "min_words"]), "value": 40},
        {"rule": "includes", "values": [word]},
        {"rule": "excludes", "values": [other]},
        {"rule": "bullets", "value": draw.randrange(1, 5)},
        {"rule": "begins_with", "value": "Answer"},
        {"rule": "ends_with", "value": "done"},
    ]
    return draw.sample(kinds, 3)


def _corrupted(rule: Check, draw: random.Random) -> Check:
    """Inverted where it has an opposite (half of the time), otherwise a rule nobody asked for."""
    if rule["rule"] in INVERSE and draw.random() < 0.5:
        return rule | {"rule": INVERSE[rule["rule"]]}
    if rule["rule"] == "bullets" and draw.random() < 0.5:
        return rule | {"value": (rule["value"] + draw.randrange(1, 4)) % 5}
    return draw.choice(
        [
            {"rule": "includes", "values": [f"{draw.choice(WORDS)}s"]},
            {"rule": "max_sentences", "value": draw.randrange(1, 6)},
            {"rule": "min_sentences", "value": draw.randrange(1, 6)},
            {"rule": "no_commas"},
            {"rule": "min_paragraphs", "value": 2},
            {"rule": "max_paragraphs", "value": 1},
        ]
    )


def _distinct(rules: Sequence[Check]) -> list[Check]:
    return list({json.dumps(rule, sort_keys=True): rule for rule in rules}.values())


def _candidates(task: Task, request: str, n: int, draw: random.Random) -> Candidates:
    """n responses, best first: the first keeps all rules, each later one breaks at least one more."""
    breaks = sorted(draw.sample(range(1, len(task.rules) + 1), n - 1))
    responses = []
    for count in [0, *breaks]:
        broken = draw.sample(task.rules, count)
        responses.append(_response([rule for rule in task.rules if rule not in broken], broken, draw))
    requests = f"Please do this ({request})."
    return Candidates(
        (Message("user", requests),), tuple(Completion((Message("assistant", text),)) for text in responses)
    )


def _response(obeyed: Sequence[Check], broken: Sequence[Check], draw: random.Random) -> str:
    """A text that keeps and breaks the rules given; all else about it is chance."""
    for _ in range(10_000):
        text = _chance(draw, [*obeyed, *broken])
        if all(compiled(rule)(text) for rule in obeyed) and not any(compiled(rule)(text) for rule in broken):
            return text
    raise AssertionError(f"no text keeps {obeyed} and breaks {broken}")


def _chance(draw: random.Random, rules: Sequence[Check]) -> str:
    filler = ["stone", "river", "cloud", "paper", "light", "wheel", "sound", "table", "north", "apple"]
    target = {rule["rule"]: rule for rule in rules}
    expected = [text for rule in rules for text in rule.get("values", [])]
    body = [draw.choice(filler) for _ in range(draw.choice([12, 25, 50, 70]))]
    for text in expected:
        if draw.random() < 0.5:
            body.insert(draw.randrange(len(body)), text)
    for mark, share in ((".", 0.1), (",", 0.05)):
        body = [word + mark if draw.random() < share else word for word in body]
    text = " ".join(body)
    if draw.random() < 0.3:
        text = text.replace(". ", ".\n\n", 1)
    text = ("Answer: " if "begins_with" in target and draw.random() < 0.5 else "") + text
    bullets = draw.randrange(0, 5) if "bullets" in target else draw.choice([0, 0, 2])
    text += "".join(f"\n- {draw.choice(filler)}" for _ in range(bullets))
    return text + (" done" if "ends_with" in target and draw.random() < 0.5 else "")


def _precision(outcomes: Sequence[Outcome], tasks: Mapping[str, Task]) -> float:
    true = [
        criterion.check in tasks[outcome.instance.id.split()[0]].rules
        for outcome in outcomes
        for criterion in outcome.criteria
    ]
    return fmean(true)


def _accuracy(
    judge: Judge, held_out: Sequence[tuple[Task, Candidates]], outcomes: Sequence[Outcome], seed: int
) -> float:
    """Share of unseen pairs decided rightly under a rubric drawn from those of the task, from any where it has none."""
    draw = random.Random(seed + 1)
    by_task: dict[str, list[str]] = {}
    for outcome in outcomes:
        by_task.setdefault(outcome.instance.id.split()[0], []).append(outcome.text)
    every = [text for texts in by_task.values() for text in texts]
    items = [(pair, Context(rubric=draw.choice(by_task.get(task.name, every)))) for task, pair in held_out]
    p_first = [judge.comparison_of(judged).p_first for judged in judge.judged_under(items)]
    return fmean((1 + (p > 0.5) - (p < 0.5)) / 2 for p in p_first)  # a tie counts one half


def _text(summary: Mapping[str, Any]) -> str:
    lines = [
        f"{summary['noise']:.0%} of rules corrupted, {summary['seeds']} seeds, orders: {summary['orders']}; "
        "gains in points with their 95% interval over seeds",
        "",
        f"{'case':<24}{'kept':>6}  {'rule precision':<40}judge accuracy, held out",
    ]
    for name, case in summary["cases"].items():
        cells = [_cell(case, measure) for measure in ("precision", "accuracy")]
        lines.append(f"{name:<24}{case['kept']:>6.1%}  {cells[0]:<40}{cells[1]}")
    return "\n".join(lines)


def _cell(case: Mapping[str, Any], measure: str) -> str:
    before, after, gain = (case[f"{measure}_{part}"] for part in ("before", "after", "gain"))
    between = f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}"
    return f"{before:.1%} -> {after:.1%} {100 * gain['mean']:+.1f} ({between})"
