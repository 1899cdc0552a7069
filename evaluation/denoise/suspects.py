"""Suspicious labels: the worst disagreements between data and models go to people, and their answers come back.

    rmkit denoise suspects NAME      rows whose label models that never saw them contradict most -> annotation queue
    (people answer in the studio; rmkit sync brings the answers into the warehouse)
    rmkit denoise adjudicated NAME   answers -> a new version, and what that changed: accuracy on the test split of a
                                     head trained on the old and on the new train split, the same pairs and seeds

Margins are cross-fitted by prompt family (rmkit.reliability.cross_fit), or those of `--model`. The priority is the
probability that the label is wrong, sigmoid(-margin). The same row is queued once, however often it is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from data_pipelines.algorithms.weighing import family_of, feature_pairs, judged_pairs
from data_pipelines.recipes.recipe import parse_recipe, run_recipe
from data_pipelines.steps.relabel import METHOD
from data_pipelines.steps.reward_gap import Config as MarginConfig
from data_pipelines.steps.reward_gap import model_margins
from evaluation.denoise.data import version_data, version_frame
from evaluation.denoise.summary import resampled
from rmkit.cli import arguments, display
from rmkit.errors import DataError, UsageError
from rmkit.features.encoder import EncoderConfig
from rmkit.heads.stacked import Table, score_margins
from rmkit.heads.stacked_training import HeadConfig, fit_heads
from rmkit.ledger import Ledger, open_ledger
from rmkit.ledger.annotation_queue import KIND, enqueue, queue_item
from rmkit.metrics.calibration import sigmoid
from rmkit.reliability.cross_fit import cross_fitted_margins
from warehouse.lineage import reliability_audit
from warehouse.store import open_warehouse

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEEDS = 5
FINDER = "denoise suspects"


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label is doubted. `margin` is of the labeled order, negative where models prefer the other."""

    id: str
    unit: str
    margin: float
    prefers_first: bool
    n_votes: int


def suspects(ref: str, *, limit: int, margins: MarginConfig) -> tuple[list[Suspect], pl.DataFrame, str]:
    """The `limit` rows with the most negative margins, worst first, with the version's rows and full name."""
    frame, name, _ = version_frame(ref)
    ids, margin = model_margins(frame, margins) if margins.model else _cross_fitted(frame, margins)
    known = {row["id"]: row for row in frame.select("id", "unit", "p", "n_votes").iter_rows(named=True)}
    worst = [at for at in np.argsort(margin, kind="stable")[:limit] if margin[at] < 0]
    return [_suspect(known[ids[at]], float(margin[at])) for at in worst], frame, name


def _suspect(row: Mapping[str, Any], margin: float) -> Suspect:
    return Suspect(row["id"], row["unit"], margin, row["p"][0] > row["p"][1], row["n_votes"] or 0)


def _cross_fitted(frame: pl.DataFrame, config: MarginConfig) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    pairs = feature_pairs(frame, config)
    head = HeadConfig(epochs=config.epochs, hidden=config.hidden, lr=config.lr)
    return pairs.ids, cross_fitted_margins(pairs, head=head, groups=family_of(frame, pairs), seed=config.seed)


def queue_suspects(
    ref: str, *, project: str, limit: int = 50, margins: MarginConfig | None = None, ledger: Ledger
) -> dict[str, Any]:
    """Queue the worst rows for people; how many were found and how many are new in the queue."""
    margins = margins or MarginConfig()
    result, frame, name = suspects(ref, limit=limit, margins=margins)
    pairs = {pair.example: pair for pair in judged_pairs(frame, margins.splits)}
    items = [
        queue_item(
            pairs[one.id].candidates,
            project=project,
            found_by=f"{FINDER} {name}",
            reason=_reason(one, trained=bool(margins.model)),
            priority=float(sigmoid(-one.margin)),
            unit=one.unit,
            evidence={"margin": one.margin, "label_prefers_first": one.prefers_first, "n_votes": one.n_votes},
        )
        for one in result
    ]
    return {"version": name, "project": project, "found": len(items), "queued": enqueue(ledger, items)}


def _reason(one: Suspect, *, trained: bool) -> str:
    who = "a reward model" if trained else "models that have not seen this pair"
    settings = "the label (1 vote)" if one.n_votes == 1 else f"the label ({one.n_votes} votes)"
    return f"suspected wrong label: {who} give {sigmoid(one.margin):.0%} to the order that {settings} prefers"


def queued_at(ledger: Ledger, name: str, project: str) -> dict[str, datetime]:
    """When each unit (hex) of a version was put into the queue as a suspect."""
    by_key: dict[str, datetime] = {}
    for recorded in ledger.events(0, kinds=(KIND,)):
        answers = recorded.event.payload
        if answers["project"] == project and answers["found_by"] == f"{FINDER} {name}" and answers["unit"]:
            by_key[answers["unit"]] = recorded.event.time
    return by_key


def adjudicated(
    ref: str,
    *,
    project: str,
    ledger: Ledger,
    out: str | None = None,
    encoder: EncoderConfig | None = None,
    head: HeadConfig | None = None,
) -> dict[str, object]:
    """The version with people's answers as labels, and the accuracy before and after on the same test pairs.

    Raises DataError where nothing was queued, or no answer has come back yet.
    """
    _, name, _ = version_frame(ref)
    when = queued_at(ledger, name, project)
    if not when:
        raise DataError(f"nothing of {name} is in the queue of {project}; begin with: rmkit denoise suspects {name}")
    with open_warehouse(read_only=True) as connection:
        answers = reliability_audit.answers_since(connection, when)
    if not answers:
        raise DataError(
            f"none of the {len(when)} queued rows of {name} has an answer in the warehouse; bring answers in with: "
            "rmkit sync"
        )
    labels = [f"{unit} {_p_first(inputs):.6g} {len(inputs)}" for unit, inputs in sorted(answers.items())]
    recipe = {"recipe": {"name": METHOD}, "step": [{"use": "relabel", "labels": labels}]}
    result = run_recipe(parse_recipe(recipe, where="rmkit denoise adjudicated"), name, out=out)
    effect = _effect(name, result["version"], encoder, head or HeadConfig())
    facts = result["steps"][0]["facts"]
    summary = {"version": result["version"], "digest": result["digest"], "queued": len(when), "answered": len(answers)}
    return {**summary, **facts, **effect}


def _p_first(inputs: Sequence[tuple[int, int]]) -> float:
    """Share of the answers for the first response, a tie counting half."""
    return float(np.mean([0.5 if first == second else float(first < second) for first, second in inputs]))


def _effect(before: str, after: str, encoder: EncoderConfig | None, head: HeadConfig) -> dict[str, object]:
    """Accuracy in percent on the test split of the new version, heads trained on either train split, five seeds."""
    old, new = (version_data(ref, encoder=encoder) for ref in (before, after))
    credit = []
    for data in (old, new):
        heads = fit_heads(data.train, head, seeds=range(SEEDS))
        margin = score_margins(heads, Table(new.test))
        credit.append((margin > 0) + 0.5 * (margin == 0))
    drawn = 100 * resampled(credit[1] - credit[0], new.test_family)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "accuracy_before": float(100 * credit[0].mean()),
        "accuracy_after": float(100 * credit[1].mean()),
        "difference": float(100 * (credit[1] - credit[0]).mean()),
        "difference_low": float(low),
        "difference_high": float(high),
        "test_pairs": len(new.test),
        "seeds": SEEDS,
    }


def queue_main(argv: list[str]) -> int:
    parser = arguments.parser(
        "denoise suspects",
        "Queue the rows whose label models contradict most, for people to look at again.",
        examples=[
            "denoise suspects hh@v2 --limit 100",
            "denoise suspects hh@v2 --model models/hh-frozen --project recheck",
        ],
    )
    parser.add_data("data", metavar="NAME[@REF]")
    parser.add_limit(50, help="at most so many rows")
    parser.add_argument("--project", default="suspects", help="the labeling project that asks")
    parser.add_argument("--model", default="", help="margins of this reward model instead of cross-fitted ones")
    parser.add_encoder(help="frozen encoder of the cross-fitted heads")
    options = parser.parse_args(argv)
    if options.limit < 1:
        raise UsageError(f"--limit must be positive, got {options.limit}")
    margins = MarginConfig(model=options.model, encoder=options.encoder)
    with open_ledger() as ledger:
        result = queue_suspects(
            options.data, project=options.project, limit=options.limit, margins=margins, ledger=ledger
        )
    known = result["found"] - result["queued"]
    text = f"{result['queued']} rows of {result['version']} queued for {result['project']}" + (
        f", {known} were there already" if known else ""
    )
    display.emit(result, as_json=options.json, text=text)
    return 0


def answers_main(argv: list[str]) -> int:
    parser = arguments.parser(
        "denoise adjudicated",
        "A new version with people's answers about suspicious labels, and what that changed on the test split.",
        examples=["denoise adjudicated hh@v2", "denoise adjudicated hh@v2 --project recheck --out hh-rechecked"],
    )
    parser.add_data("data", metavar="NAME[@REF]", help="the version whose suspects were queued")
    parser.add_argument("--project", default="suspects")
    parser.add_argument("--out", metavar="NAME", help="dataset that the new version belongs to (default: the same)")
    parser.add_encoder(help="frozen encoder of the heads that measure the change")
    options = parser.parse_args(argv)
    with open_ledger() as ledger:
        result = adjudicated(
            options.data,
            project=options.project,
            ledger=ledger,
            out=options.out,
            encoder=EncoderConfig(encoder=options.encoder),
        )
    result |= {"command": arguments.command_line("denoise adjudicated", argv)}
    display.emit(result, as_json=options.json, text=_effect_text(result))
    return 0


def _effect_text(result: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"{result['version']} ({result['digest'][:12]}): {result['answered']} of {result['queued']} queued rows "
            f"answered, {result['winner_changed']} labels turned around",
            f"accuracy on {result['test_pairs']} test pairs  {result['accuracy_before']:.1f}% -> "
            f"{result['accuracy_after']:.1f}%, difference {result['difference']:+.1f} "
            f"({result['difference_low']:+.1f} to {result['difference_high']:+.1f}; {result['seeds']} seeds)",
        ]
    )
