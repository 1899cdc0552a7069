"""`rmkit search run`: an answer to each prompt by one method, with the candidates and the tree behind it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.generate.tally import spent
from rmkit.models import load_model
from rmkit.search.problems import (
    Policy,
    Problem,
    Searches,
    add_arguments,
    generator_config,
    policy_of,
    read_problems,
    verified,
)
from rmkit.search.select import METHODS, SearchConfig, select
from rmkit.search.space import Selection
from rmkit.trees.dump import as_rows
from rmkit.types import RewardModel
from rmkit.verifiers.verifier import load_verifier


@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """Counts over all prompts; `correct` of the `verified` ones."""

    output: str
    prompts: int
    answered: int
    verified: int
    correct: int
    steps_written: int
    states_scored: int
    spent: Mapping[str, Any]


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "search run",
        "Write an answer to each prompt, chosen among many by a model's scores. Calls are kept in the ledger: the same "
        "command again pays for nothing twice.",
        examples=[
            "search run --model models/steps --generator policy.toml --prompts problems.jsonl --method beam "
            "--budget 64 -o answers.jsonl",
            "search run --generator policy.toml --prompts problems.jsonl --set aggregate=majority -o answers.jsonl",
            "ingest answers.jsonl --name searched          # the trees come back as data",
        ],
    )
    add_arguments(parser)
    parser.add_output("answers, JSON lines", required=True)
    parser.add_argument("--method", choices=METHODS, help="how candidates come about (default best_of_n)")
    parser.add_argument("--budget", type=int, metavar="N", help="solutions' worth of steps (default 16)")
    parser.add_config(SearchConfig, hidden=("method", "budget"))
    options = parser.parse_args(argv)
    named = {"method": options.method, "budget": options.budget}
    config = arguments.settings(SearchConfig, options, where="search", named=named)
    problems = read_problems(options.prompts, limit=options.limit)
    model = None if options.model is None else load_model(options.model)
    policy = policy_of(options)
    verifier = load_verifier(options.verifier, trusted=True)
    with Searches(generator_config(options.generator), model, workers=options.workers, purpose="search") as searches:
        result = _run(searches, problems, config, policy, verifier, options.output)
    display.emit(asdict(result), as_json=options.json, text=_text(result))
    return 0


def _run(
    searches: Searches,
    problems: list[Problem],
    config: SearchConfig,
    policy: Policy,
    verifier: RewardModel,
    output: Path,
) -> SearchRun:
    def search(problem: Problem) -> tuple[Problem, Selection, list[float]]:
        result = select(policy.proposer(searches.engine, problem), searches.scorer(problem), config)
        texts = ["".join(one.steps) for one in result.candidates]
        return problem, result, verified(verifier, problem, texts)

    rows = []
    with display.progress("search", len(problems)) as advance:
        for problem, result, outcomes in searches.each(search, problems):
            rows.append(row_of(problem, result, outcomes))
            advance(1)
    write_text(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    known = [row["correct"] for row in rows if row["correct"] is not None]
    return SearchRun(
        output=str(output),
        prompts=len(rows),
        answered=sum(bool(row["answer"]) for row in rows),
        verified=len(known),
        correct=sum(value >= 0.5 for value in known),
        steps_written=sum(row["steps_written"] for row in rows),
        states_scored=sum(row["states_scored"] for row in rows),
        spent=spent([searches.engine.tally]),
    )


def row_of(problem: Problem, result: Selection, outcomes: list[float]) -> dict[str, Any]:
    """A line of the output: the answer, its candidates, and the tree in the form that `rmkit ingest` reads."""
    outcome = {one.steps: value for one, value in zip(result.candidates, outcomes, strict=True)}
    nodes = as_rows(result.nodes)
    at = {one.steps: row for one, row in zip(result.nodes, nodes[1:], strict=True)}
    for steps, value in outcome.items():
        if not math.isnan(value):
            at[steps] |= {"outcome": value, "terminal": True}
    chosen = result.chosen
    correct = math.nan if chosen is None else outcome[chosen.steps]
    return {
        "id": problem.id,
        "prompt": [{"role": turn.role, "content": turn.content} for turn in problem.item.prompt],
        "reference": problem.item.reference,
        "response": None if chosen is None else "".join(chosen.steps),
        "answer": None if chosen is None else chosen.answer,
        "correct": None if math.isnan(correct) else correct,
        "steps_written": result.written,
        "states_scored": result.scored,
        "candidates": [
            {
                "steps": list(one.steps),
                "scores": [None if math.isnan(x) else x for x in one.scores],
                "answer": one.answer,
            }
            for one in result.candidates
        ],
        "nodes": nodes,
    }


def _text(result: SearchRun) -> str:
    share = f"{result.correct / result.verified:.1%}" if result.verified else "none verified"
    return "\n".join(
        [
            f"{result.output}: {result.answered} of {result.prompts} prompts have an answer",
            f"correct   {result.correct} of {result.verified} verified ({share})",
            f"written   {result.steps_written} steps; scored {result.states_scored} states",
            f"calls     {result.spent['paid_calls']} paid, {result.spent['found_in_ledger']} found in the ledger",
        ]
    )
