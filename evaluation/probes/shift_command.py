"""`rmkit probe shift FIRST SECOND --cell id=DATA --cell prompt=DATA`: which of two models loses more under shift?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.probes.shift import CELLS, OUT_OF_DISTRIBUTION, SIDES, Cell, Side, shift_probe
from evaluation.reports.json_ready import without_nan, write_json
from evaluation.suites.evaluator import lengths, run
from evaluation.suites.items import Item
from evaluation.suites.journal import open_journal, run_folder
from evaluation.suites.load import Loaded, load_items
from evaluation.suites.stored_logprobs import Reward, StoredLogprobs, load_logprobs, names_logprobs
from evaluation.suites.suite import Suite, load_suite
from rmkit.cli import arguments, display
from rmkit.errors import UsageError
from rmkit.ids import messages_json
from rmkit.judge.tally import judging_lines, report_of
from rmkit.metrics.accuracy import TiePolicy
from rmkit.models import load_model
from rmkit.models.scoring import stream_scores
from rmkit.types import RewardModel, Score

Model = RewardModel | StoredLogprobs


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "probe shift",
        "Two reward models on pairs in and out of distribution, e.g. an explicit against an implicit one.",
        examples=[
            "probe shift models/explicit dpo_logprobs.jsonl --cell id=hh@v2 --cell prompt=webgpt@v1",
            "probe shift a b --cell id=hh@v2 --cell response=other.jsonl --cell both=shp@v1:test --json",
        ],
    )
    what = "artifact folder, a name under $RMKIT_HOME/models, `length`, or a file of stored log-probabilities"
    parser.add_argument("first", help=f"the explicit model: {what}")
    parser.add_argument("second", help="the model that it is compared with, the implicit one")
    parser.add_argument(
        "--cell",
        action="append",
        required=True,
        metavar="NAME=DATA",
        help=f"pairs of one cell ({', '.join(CELLS)}): NAME@VERSION[:SPLIT], an export folder or a file of pairs",
    )
    parser.add_argument("--ties", choices=("half", "zero"), default="half", help="what a tie earns")
    parser.add_argument("--tie-width", type=float, default=0.0, help="margins up to this are ties (default 0)")
    parser.add_output("also write the result as JSON")
    options = parser.parse_args(argv)
    result = shift(
        (options.first, options.second),
        parse_cells(options.cell),
        ties=options.ties,
        tie_width=options.tie_width,
        command=arguments.command_line("probe shift", argv),
    )
    if options.output:
        write_json(options.output, result)
    display.emit(result, as_json=options.json, text=table(result))
    return 0


def parse_cells(inputs: Sequence[str]) -> dict[str, str]:
    """Data by cell, in the order of `CELLS`. Raises UsageError unless there are id and a shifted one, each once."""
    split = [one.partition("=") for one in inputs]
    for name, _, data in split:
        if name not in CELLS or not data:
            raise UsageError(f"--cell takes NAME=DATA with NAME one of {', '.join(CELLS)}; got {name + '=' + data!r}")
    cells = {name: data for name, _, data in split}
    if len(cells) < len(split):
        raise UsageError(f"a cell is given twice: {', '.join(inputs)}")
    if "id" not in cells or not set(cells) & set(OUT_OF_DISTRIBUTION):
        raise UsageError(f"needs --cell id=DATA and one of {', '.join(OUT_OF_DISTRIBUTION)}; got {', '.join(cells)}")
    return {name: cells[name] for name in CELLS if name in cells}


def shift(
    names: tuple[str, str],
    cells: Mapping[str, str],
    *,
    ties: TiePolicy = "half",
    tie_width: float = 0.0,
    command: str = "",
) -> dict[str, object]:
    """The probe's result, JSON-ready, with what each cell's numbers are numbers of."""
    if tie_width < 0:
        raise UsageError(f"--tie-width must be 0 or more, got {tie_width}")
    suite = load_suite("pairs")
    loaded = {name: load_items(suite, data) for name, data in cells.items()}
    first, second = (_open(name) for name in names)
    if first.info.fingerprint == second.info.fingerprint:
        raise UsageError(f"{names[0]} and {names[1]} are the same model; name two")
    output = [_cell(name, suite, data, first, second) for name, data in loaded.items()]
    results = shift_probe(output, ties=ties, tie_width=tie_width)
    for name, data in loaded.items():
        results["cells"][name] |= {"data": data.source, "data_hash": suite.hash(data.digests)}
    models = {
        side: {"name": model.info.name, "kind": model.info.kind, "fingerprint": model.info.fingerprint}
        | {"judging": report_of(model)}
        for side, model in zip(SIDES, (first, second), strict=True)
    }
    result: dict[str, Any] = without_nan(models | results | {"command": command})
    return result


def _open(name: str) -> Model:
    return load_logprobs(Path(name)) if names_logprobs(name) else load_model(name)


def _cell(name: str, suite: Suite, loaded: Loaded, first: Model, second: Model) -> Cell:
    characters = np.array(list(lengths(loaded.items).values()), dtype=np.float64)
    return Cell(
        name=name,
        clusters=tuple(item.cluster for item in loaded.items),
        prompts=tuple(messages_json(item.candidates.prompt) for item in loaded.items if item.candidates),
        longer=characters[:, 0] - characters[:, 1],
        first=_side(first, name, suite, loaded),
        second=_side(second, name, suite, loaded),
    )


def _side(model: Model, cell: str, suite: Suite, loaded: Loaded) -> Side:
    if isinstance(model, StoredLogprobs):
        return _stored_side([_stored(model, cell, item) for item in loaded.items])
    if model.info.kind == "implicit":
        return _implicit_side(model, loaded)
    facts = {"suite": suite.name, "suite_hash": suite.hash(loaded.digests), "data": loaded.source}
    facts |= {"model": model.info.name, "fingerprint": model.info.fingerprint}
    with open_journal(run_folder(suite.name, facts["suite_hash"], model.info.fingerprint), facts) as journal:
        run(model, suite, loaded.items, journal)
        answers = [journal.answers[item.id] for item in loaded.items]
    return Side(np.array([answer.margin for answer in answers]), tuple(answer.unscored for answer in answers))


def _implicit_side(model: RewardModel, loaded: Loaded) -> Side:
    """Asked without a journal, which would not keep the rewards per token."""
    requests = [item.candidates for item in loaded.items if item.candidates]
    rewards = []
    with display.progress(f"scoring {model.info.name}", len(requests)) as advance:
        for first, second in stream_scores(model, requests):
            rewards.append((_reward(first), _reward(second)))
            advance(1)
    return _stored_side(rewards)


def _reward(score: Score) -> Reward:
    return Reward(score.value, score.aspects.get("per_token", math.nan), score.unscored)


def _stored(model: StoredLogprobs, cell: str, item: Item) -> tuple[Reward, Reward]:
    better, worse = item.positions or (0, 1)
    return model.reward(cell, item.row, better), model.reward(cell, item.row, worse)


def _stored_side(rewards: Sequence[tuple[Reward, Reward]]) -> Side:
    return Side(
        margin=np.array([better.total - worse.total for better, worse in rewards]),
        unscored=tuple(better.unscored or worse.unscored for better, worse in rewards),
        per_token=np.array([better.per_token - worse.per_token for better, worse in rewards]),
    )


def table(result: Mapping[str, Any]) -> str:
    """The result as text: a line a cell, then the cells out of distribution together."""
    named = [
        f"{side} {result[side]['name']} ({result[side]['kind']}, {result[side]['fingerprint'][:16]})" for side in SIDES
    ]
    lines = [
        ", ".join(named),
        display.table(COLUMNS, [_row(name, one) for name, one in result["cells"].items()], indent="  "),
    ]
    lines += [
        f"  {name}: {count} pairs dropped from both, {reason}"
        for name, one in result["cells"].items()
        for reason, count in one["reasons"].items()
    ]
    together = result["out_of_distribution"]
    if together is not None:
        mean, largest = together["mean"], together["largest"]
        lines.append(
            f"first minus second out of distribution: mean {mean['points']:+.2f} {display.interval(mean, '+.2f')} "
            f"points over {', '.join(together['cells'])}; largest {largest['points']:+.2f} ({largest['cell']})"
        )
    lines += [f"{result[side]['name']},{line}" for side in SIDES for line in judging_lines(result[side])]
    return "\n".join(
        [*lines, f"ties earn {result['ties']}; per token: the second model's reward by length; longer: a length rule"]
    )


COLUMNS = ["cell", "prompts", "pairs", "dropped", "first", "second", "points"]
COLUMNS += ["95% interval", "per token", "longer", "length corr.", "in id"]


def _row(name: str, one: Mapping[str, Any]) -> list[object]:
    def points(side: str, key: str = "percent") -> str:
        return display.number(one[side].get(key), ".1f")

    correlations = "/".join(display.number(one[side]["length_correlation"], "+.2f") for side in SIDES)
    difference = display.number(one["difference"]["points"], "+.2f"), display.interval(one["difference"], "+.2f")
    per_token = display.number(one["second"].get("per_token", {}).get("percent"), ".1f")
    counts = [one["prompts"], one["scored"], one["dropped"]]
    shares = [points("first"), points("second"), *difference, per_token, points("length_rule")]
    return [name, *counts, *shares, correlations, one["prompts_in_id"]]
