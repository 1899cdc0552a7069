"""The result of models on a suite: every measure as percent, numerator and denominator, and everything that says what
the number is a number of (suite hash, data digests, fingerprint, command); its rows in the warehouse, its text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa

from evaluation.probes import probes
from evaluation.reports.json_ready import without_nan
from evaluation.scoring import credit_table
from evaluation.scoring.measures import Measured, measure_all
from evaluation.scoring.paired import Difference
from evaluation.suites.evaluator import Progress, mean_latency_ms
from evaluation.suites.items import Answer, Credit, Item
from evaluation.suites.load import Loaded
from evaluation.suites.suite import Suite
from rmkit.data.reasons import counted
from rmkit.judge.tally import judging_lines
from rmkit.paths import warehouse_path
from rmkit.types import LOGIT_SCALES, ModelInfo, sigmoid
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
        "version": None if loaded.version is None else dict(loaded.version),
        "left_out": dict(loaded.left_out),
        "digests": dict(loaded.digests),
        "missing": list(loaded.missing),
        "changed": list(loaded.changed),
        "limit": limit,
        "ties": {"models": suite.ties, "judges": suite.judge_ties},
        "unscored": {"models": suite.unscored, "judges": suite.judge_unscored, "source": suite.unscored_source},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """One model on a suite: `measures` (declared) and `cells` by name, what the probes say, how the run went.

    `items` counts the answered ones, `unscored` those without a score by reason, `one_order` the pairs on which a judge
    could be read in one order alone. `folder` holds the answers, `run` is their id in the warehouse; both are None for
    stored scores, as is `progress`. `credits` is what was earned where: all that paired tests need.
    """

    name: str
    kind: str
    scale: str
    fingerprint: str
    items: int
    measures: Mapping[str, Measured]
    cells: Mapping[str, Measured]
    probes: Mapping[str, Any]
    unscored: Mapping[str, int]
    one_order: int
    progress: Progress | None = None
    latency_ms: float = math.nan
    judging: Mapping[str, Any] | None = None
    folder: str | None = None
    run: str | None = None
    credits: Sequence[Credit] = field(default=(), repr=False)

    def as_json(self) -> dict[str, Any]:
        """The fields with null for NaN, without the credits and what does not apply."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        for name in ("credits", "progress", "latency_ms"):
            del plain[name]
        for name in ("measures", "cells"):
            plain[name] = {key: value.as_json() for key, value in plain[name].items()}
        if self.progress is not None:
            plain |= {
                "resumed": self.progress.resumed,
                "answered": self.progress.answered,
                "wall_s": round(self.progress.wall_s, 3),
                "model_s": round(self.progress.model_s, 3),
                "latency_ms": round(self.latency_ms, 3),
            }
        optional = [name for name in ("judging", "folder") if not plain[name]]
        optional += [] if self.folder else ["run"]
        result: dict[str, Any] = without_nan({key: value for key, value in plain.items() if key not in optional})
        return result


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """The first model minus another one: every declared measure, p_holm over all comparisons of the result."""

    first: ModelResult
    second: ModelResult
    differences: Sequence[Difference]

    def as_json(self) -> dict[str, Any]:
        """Who was compared, and the differences with null for NaN."""
        sides = {"first": self.first, "second": self.second}
        named = {
            side: {"name": one.name, "kind": one.kind, "fingerprint": one.fingerprint, "judging": one.judging}
            for side, one in sides.items()
        }
        return named | {"differences": [one.as_json() for one in self.differences]}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """Models on one suite. `data` names the source, `version` its ref, split and digest where it is a dataset,
    `left_out` what of it could not be used; `suite_hash` is equal where two results compare; `headline` is the measure
    to show; `comparisons` holds every model after the first against it."""

    suite: str
    title: str
    paper: str
    license: str
    headline: str
    suite_hash: str
    data: str
    version: Mapping[str, Any] | None
    left_out: Mapping[str, int]
    digests: Mapping[str, str]
    missing: Sequence[str]
    changed: Sequence[str]
    limit: int | None
    ties: Mapping[str, str]
    unscored: Mapping[str, str]
    command: str
    models: Sequence[ModelResult]
    comparisons: Sequence[ModelComparison] = ()

    def as_json(self) -> dict[str, Any]:
        """What `rmkit eval --json` prints and reports are made of."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return plain | {name: [one.as_json() for one in plain[name]] for name in ("models", "comparisons")}


def evaluated(
    suite: Suite,
    items: Sequence[Item],
    answers: Mapping[str, Answer],
    info: ModelInfo,
    progress: Progress | None = None,
    *,
    judging: Mapping[str, Any] | None = None,
    folder: str | None = None,
    resamples: int = 2000,
) -> ModelResult:
    """One model's measures (declared ones and cells apart), how the run went, and a judge's own report on it."""
    credits = credit_table(suite, items, answers, kind=info.kind)
    measured = measure_all(suite, credits, resamples=resamples)
    declared = {measure.name for measure in suite.measures}
    inputs = [answers[item.id] for item in items if item.id in answers]
    lost = {credit.item for credit in credits if credit.unscored}
    return ModelResult(
        name=info.name,
        kind=info.kind,
        scale=info.scale,
        fingerprint=info.fingerprint,
        items=len(inputs),
        measures={name: value for name, value in measured.items() if name in declared},
        cells={name: value for name, value in measured.items() if name not in declared},
        probes=probes(suite, items, answers, info),
        unscored=dict(counted(answer.unscored or "no score" for answer in inputs if answer.item in lost)),
        one_order=sum(answer.one_order for answer in inputs),
        progress=progress,
        latency_ms=mean_latency_ms(inputs),
        judging=dict(judging) if judging else None,
        folder=folder,
        credits=credits,
    )


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
    rows = [_row(item, answers[item.id], info) for item in items if item.id in answers]
    config = {**facts, "model": info.name, "fingerprint": info.fingerprint}
    version = facts.get("version") or {}
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
        connection.execute(
            "INSERT INTO run_io SELECT ?, 'in', version_id FROM version JOIN dataset USING (dataset_id) "
            "WHERE dataset.name || '@v' || version.number = ? AND digest = ?",
            [run_id, version.get("ref"), version.get("digest")],
        ).fetchall()
    return str(run_id)


def _row(item: Item, answer: Answer, info: ModelInfo) -> dict[str, Any]:
    """Numbers of a dataset's pair are in the order of its row, those of a benchmark's item in its own."""
    scores, orders, p = answer.scores or answer.steps, answer.p, answer.predicted
    if answer.p:
        p = answer.margin + 0.5
    elif info.scale in LOGIT_SCALES and len(answer.scores) == 2 and item.positions:
        p = sigmoid(answer.margin)
    if len(item.positions) == 2 and item.positions[0] > item.positions[1]:
        scores, orders, p = scores[::-1], tuple(1 - one for one in orders), 1 - p
    return {
        "item": answer.item,
        "scores": [_null(value) for value in scores] if scores else None,
        "p_first": _null(p),
        "p_orders": [_null(value) for value in orders] or None,
        "unscored": answer.unscored,
        "latency_ms": _null(answer.latency_ms),
    }


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def table(result: Mapping[str, Any]) -> str:
    """The result as text: what was measured on, one block per model, then the comparisons."""
    lines = _data_lines(result)
    for model in result["models"]:
        lines += ["", *_model_lines(model)]
    for one in result["comparisons"]:
        lines += ["", *comparison_lines(one)]
    lines += [COMPARISON_NOTE] if result["comparisons"] else []
    if any(differs(value) for model in result["models"] for value in (model["measures"] | model["cells"]).values()):
        lines += ["", f"of all: {count_rule(result)}"]
    return "\n".join(lines)


def compared_table(result: Mapping[str, Any]) -> str:
    """The comparisons alone as text."""
    lines = _data_lines(result)
    for one in result["comparisons"]:
        lines += ["", *comparison_lines(one)]
        for side in (one["first"], one["second"]):
            lines += [f"  {side['name']},{line}" for line in judging_lines(side)]
    return "\n".join([*lines, "", COMPARISON_NOTE])


def _data_lines(result: Mapping[str, Any]) -> list[str]:
    lines = [f"{result['title']} ({result['suite']}, hash {result['suite_hash'][:12]}), data {result['data']}"]
    if result["missing"]:
        lines.append(f"  MISSING: {', '.join(result['missing'])}; totals that need them are not given")
    lines += [f"  CHANGED: {change}" for change in result["changed"]]
    lines += [f"  left out: {count} {reason}" for reason, count in result["left_out"].items()]
    if result["limit"] is not None:
        lines.append(f"  LIMITED to {result['limit']} items: a smoke run, not a result")
    return lines


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
    return [*lines, *_probe_lines(model["probes"])]


def _probe_lines(probes: Mapping[str, Any]) -> list[str]:
    """Calibration and length in a line each, where the probes apply."""
    lines = []
    if (one := probes.get("calibration")) and one["n"]:
        lines.append(f"  calibration: ECE {one['ece']:.3f}, log loss {one['log_loss']:.3f}, Brier {one['brier']:.3f}")
    if one := probes.get("length"):
        right = {
            name: "-" if part["percent"] is None else f"{part['percent']:.1f}" for name, part in one["accuracy"].items()
        }
        shorter, longer = right["shorter"], right["longer"]
        lines.append(f"  length: {shorter} right where the better reply is the shorter, {longer} where the longer")
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


COMPARISON_NOTE = "p: label swaps prompt by prompt; Holm: over all tests shown; unscored: left out of both"


def comparison_lines(one: Mapping[str, Any]) -> list[str]:
    """The first model minus another one as a table."""
    return [
        f"{one['first']['name']} minus {one['second']['name']} (percent points)",
        f"  {'':<44} {'first':>7} {'second':>7} {'diff':>7} {'95% interval':>15} {'p':>8} {'Holm':>8} "
        f"{'only 1st':>8} {'only 2nd':>8} {'prompts':>7} {'unscored 1st, 2nd':>17}",
        *(_difference_line(difference) for difference in one["differences"]),
    ]


def _difference_line(one: Mapping[str, Any]) -> str:
    unscored = f"{one['unscored_first']}, {one['unscored_second']}"
    if one["difference"] is None:
        lost = not one["n"] and one["unscored_first"] + one["unscored_second"]
        why = f"nothing scored by both; unscored {unscored}" if lost else "parts are missing"
        return f"  {one['measure']:<44} {'-':>7} {'-':>7} {'-':>7}   ({why})"
    between = "-" if one["low"] is None else f"[{one['low']:+.2f}, {one['high']:+.2f}]"
    return (
        f"  {one['measure']:<44} {one['first']:>7.2f} {one['second']:>7.2f} {one['difference']:>+7.2f} {between:>15} "
        f"{one['p']:>8.4f} {one['p_holm']:>8.4f} {one['only_first']:>8} {one['only_second']:>8} {one['clusters']:>7} "
        f"{unscored:>17}"
    )
