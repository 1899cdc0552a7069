"""The result of a model on a suite, JSON-ready: every measure as percent, numerator and denominator, and everything
that says what the number is a number of (suite hash, data digests, fingerprint, command)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from evaluation.probes import probes
from evaluation.scoring import credit_table
from evaluation.scoring.measures import measure_all
from evaluation.suites.evaluator import Progress, mean_latency_ms
from evaluation.suites.items import Answer, Credit, Item
from evaluation.suites.load import Loaded
from evaluation.suites.suite import Suite
from rmkit.data.reasons import counted
from rmkit.judge.tally import judging_lines
from rmkit.paths import warehouse_path
from rmkit.types import ModelInfo
from warehouse.lineage.runs import recorded_run
from warehouse.store import open_warehouse, transaction


def suite_facts(suite: Suite, loaded: Loaded, *, limit: int | None) -> dict[str, Any]:
    """What was measured on."""
    return {
        "suite": suite.name,
        "title": suite.title,
        "paper": suite.paper,
        "license": suite.license,
        "headline": suite.headline.name,
        "suite_hash": suite.hash(loaded.digests),
        "data": loaded.source,
        "digests": dict(loaded.digests),
        "missing": list(loaded.missing),
        "changed": list(loaded.changed),
        "limit": limit,
        "unscored": {"models": suite.unscored, "judges": suite.judge_unscored, "source": suite.unscored_source},
    }


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model's result, JSON-ready, and the credits that it was computed from."""

    result: dict[str, Any]
    credits: list[Credit]


def evaluated(
    suite: Suite,
    items: Sequence[Item],
    answers: Mapping[str, Answer],
    info: ModelInfo,
    progress: Progress | None = None,
    *,
    judging: Mapping[str, Any] | None = None,
    resamples: int = 2000,
) -> Evaluated:
    """One model's measures (declared ones and cells apart), how the run went, and a judge's own report on it."""
    credits = credit_table(suite, items, answers, kind=info.kind)
    measured = measure_all(suite, credits, resamples=resamples)
    declared = {measure.name for measure in suite.measures}
    inputs = [answers[item.id] for item in items if item.id in answers]
    result: dict[str, Any] = {
        "name": info.name,
        "kind": info.kind,
        "scale": info.scale,
        "fingerprint": info.fingerprint,
        "items": len(inputs),
        "measures": {name: value.as_json() for name, value in measured.items() if name in declared},
        "cells": {name: value.as_json() for name, value in measured.items() if name not in declared},
    }
    result["probes"] = probes(suite, items, answers, info)
    lost = {credit.item for credit in credits if credit.unscored}
    result["unscored"] = dict(counted(answer.unscored or "no score" for answer in inputs if answer.item in lost))
    result["one_order"] = sum(answer.one_order for answer in inputs)
    if progress is not None:
        latency = mean_latency_ms(inputs)
        result |= {
            "resumed": progress.resumed,
            "answered": progress.answered,
            "wall_s": round(progress.wall_s, 3),
            "model_s": round(progress.model_s, 3),
            "latency_ms": None if math.isnan(latency) else round(latency, 3),
        }
    if judging:
        result["judging"] = dict(judging)
    return Evaluated(result, credits)


EVAL_ITEM = pa.schema(
    [
        ("item", pa.string()),
        ("scores", pa.list_(pa.float64())),
        ("p_first", pa.float64()),
        ("p_orders", pa.list_(pa.float64())),
        ("unscored", pa.string()),
        ("latency_ms", pa.float64()),
    ]
)


def check_store() -> None:
    """Raise what `store` would raise for a warehouse that cannot be written, before hours are spent on scoring."""
    if warehouse_path().exists():
        with open_warehouse():
            pass


def store(
    facts: Mapping[str, Any], info: ModelInfo, items: Sequence[Item], answers: Mapping[str, Answer]
) -> str | None:
    """The id of a new eval run holding one row per answered item, written in one transaction; None where there is no
    warehouse. `scores` are the step probabilities on suites over steps."""
    if not warehouse_path().exists():
        return None
    rows = [_row(answers[item.id]) for item in items if item.id in answers]
    config = {**facts, "model": info.name, "fingerprint": info.fingerprint}
    with (
        open_warehouse() as connection,
        transaction(connection),
        recorded_run(connection, "eval", facts["suite"], config) as run_id,
    ):
        connection.register("suite_rows", pa.Table.from_pylist(rows, schema=EVAL_ITEM))
        connection.execute(
            "INSERT INTO eval_item SELECT ?, ?, ?, item, ?, scores, p_first, p_orders, unscored, latency_ms "
            "FROM suite_rows",
            [run_id, facts["suite"], facts["suite_hash"], info.fingerprint],
        ).fetchall()
    return str(run_id)


def _row(answer: Answer) -> dict[str, Any]:
    values = answer.scores or answer.steps
    return {
        "item": answer.item,
        "scores": [_null(value) for value in values] if values else None,
        "p_first": _null(answer.margin + 0.5) if answer.p else None,
        "p_orders": [_null(value) for value in answer.p] or None,
        "unscored": answer.unscored,
        "latency_ms": _null(answer.latency_ms),
    }


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def table(result: Mapping[str, Any]) -> str:
    """The result as text: what was measured on, then one block per model."""
    lines = [f"{result['title']} ({result['suite']}, hash {result['suite_hash'][:12]}), data {result['data']}"]
    if result["missing"]:
        lines.append(f"  MISSING: {', '.join(result['missing'])}; totals that need them are not given")
    lines += [f"  CHANGED: {change}" for change in result["changed"]]
    if result["limit"] is not None:
        lines.append(f"  LIMITED to {result['limit']} items: a smoke run, not a result")
    for model in result["models"]:
        lines += ["", *_model_lines(model)]
    if any(differs(value) for model in result["models"] for value in (model["measures"] | model["cells"]).values()):
        lines += ["", f"of all: {count_rule(result)}"]
    return "\n".join(lines)


def differs(measure: Mapping[str, Any]) -> bool:
    """Whether the number over all items is another one than that over the scored items."""
    keys = ("numerator", "denominator", "of_present")
    return any(measure.get(key) != measure["of_all"].get(key) for key in keys)


def count_rule(result: Mapping[str, Any]) -> str:
    """How the number over all items counts an unscored one, and by whose rule, as a sentence."""
    rule = result["unscored"]
    worth = {"zero": "nothing", "chance": "what a draw among its candidates would"}
    earns = f"earns {worth[rule['models']]}"
    if rule["models"] != rule["judges"]:
        earns += f" (of a judge: {worth[rule['judges']]})"
    source = rule["source"] or "rmkit's own count, the benchmark states none"
    return f"every item counts, an unscored one {earns}; {source}"


def _model_lines(model: Mapping[str, Any]) -> list[str]:
    head = f"{model['name']} ({model['kind']}, {model['fingerprint'][:12]}): {model['items']} items"
    if "wall_s" in model:
        head += f", {model['answered']} answered in {model['wall_s']:.1f} s, {model['resumed']} from before"
    shown = list((model["measures"] | model["cells"]).values())
    both = any(map(differs, shown))
    columns = (
        f"  {'':<44} {'percent':>8} {'95% interval':>14} {'right / of':>17} {'ties':>5} {'unscored':>8} {'prompts':>7}"
    )
    lines = [head, columns + (f" {'of all':>7} {'right / of':>17}" if both else "")]
    lines += [measure_line(value, both=both) for value in shown]
    lines += [f"  unscored: {count} items, {reason}" for reason, count in model.get("unscored", {}).items()]
    if model.get("one_order"):
        lines.append(f"  one order unread: {model['one_order']} pairs are judged by the other order alone")
    lines += judging_lines(model)
    return lines


def measure_line(value: Mapping[str, Any], *, both: bool) -> str:
    """One measure as a line of the table; `both` adds the number over all items."""
    between = "-" if value["low"] is None else f"[{value['low']:.1f}, {value['high']:.1f}]"
    line = (
        f"  {value['name']:<44} {percent(value):>8} {between:>14} {right_of(value):>17} {value['ties']:>5} "
        f"{value['unscored']:>8} {value['clusters']:>7}"
    )
    line += f" {percent(value['of_all']):>7} {right_of(value['of_all']):>17}" if both else ""
    if value.get("missing"):
        present = value.get("of_present")
        line += "  missing: " + ", ".join(value["missing"])
        line += "" if present is None else f" (mean of what is there: {present:.2f})"
    return line


def percent(value: Mapping[str, Any]) -> str:
    return "-" if value["percent"] is None else f"{value['percent']:.2f}"


def right_of(value: Mapping[str, Any]) -> str:
    """Numerator and denominator, a dash where a part is missing."""
    return "-" if value["numerator"] is None else f"{value['numerator']:.6g} / {value['denominator']:.6g}"
