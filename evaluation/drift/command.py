"""`rmkit drift NAME`: do served scores, lengths and unscored rates still look like the reference set's?"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evaluation.drift import charts as drift_charts
from evaluation.drift.outliers import outliers, queue_events
from evaluation.drift.served import Observed, reference, served
from evaluation.drift.statistics import compare, slices, verdicts
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.data.export_folder import dataset_of, examples_of, export_folder
from rmkit.errors import DataError, UsageError
from rmkit.ledger import open_ledger
from rmkit.ledger.annotation_queue import enqueue
from rmkit.models import load_model

MIN_SERVED = 50


def main(argv: list[str]) -> int:
    """0: nothing has drifted; 1: something has."""
    options = _options(argv)
    with open_ledger(read_only=not options.queue) as ledger:
        since = datetime.now(UTC) - timedelta(days=options.days) if options.days else None
        fingerprint, current = served(ledger, options.name, since=since)
        before, summary = _reference(options, fingerprint, current)
        current = [one for one in current if options.split_at is None or (one.time and one.time >= options.split_at)]
        if min(len(before), len(current)) < MIN_SERVED:
            raise DataError(
                f"{len(before)} reference and {len(current)} served scores; at least {MIN_SERVED} of each are needed"
            )
        result = _compared(before, current) | {"model": options.name, "fingerprint": fingerprint, "reference": summary}
        results = outliers(before, current, most=options.queue)
        if results:
            project = options.project or f"drift-{options.name}"
            events, textless = queue_events(results, model=options.name, fingerprint=fingerprint, project=project)
            result["queued"] = {"project": project, "new": enqueue(ledger, events), "without_text": textless}
    if options.output:
        _write(options.output, result, before, current)
    display.emit(result, as_json=options.json, text=table(result))
    return 1 if result["drifted"] else 0


def _options(argv: list[str]) -> Any:
    parser = arguments.parser(
        "drift",
        "Compare what a service scored with a reference set, and send the outliers items to people.",
        examples=[
            "drift helpful --reference hh@v2 --model models/helpful -o drift.html",
            "drift helpful --reference hh@v2 --model models/helpful --days 7 --queue 20",
            "drift helpful --split-at 2026-11-01       # served before against served since",
        ],
    )
    parser.add_argument("name", help="the name under which the model was served")
    parser.add_argument("--reference", metavar="DATA", help="dataset version or export folder, scored with --model now")
    parser.add_split()
    parser.add_argument("--model", help="the served model: folder, name or alias")
    parser.add_argument("--split-at", type=_day, metavar="TIME", help="take what was served before it as the reference")
    parser.add_argument("--days", type=float, help="only what was served in the last so many days")
    parser.add_argument("--queue", type=int, default=0, metavar="N", help="send the N outliers items to the queue")
    parser.add_argument("--project", help="annotation project of the queue (default drift-NAME)")
    parser.add_output("write a page with charts")
    options = parser.parse_args(argv)
    if (options.reference is None) == (options.split_at is None) or (options.reference and not options.model):
        raise UsageError("rmkit drift takes either --reference DATA with --model MODEL, or --split-at TIME")
    return options


def _day(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _reference(options: Any, fingerprint: str, current: Sequence[Observed]) -> tuple[list[Observed], str]:
    if options.split_at is not None:
        before = [one for one in current if one.time is not None and one.time < options.split_at]
        return before, f"served before {options.split_at.isoformat()}"
    model = load_model(options.model)
    if model.info.fingerprint != fingerprint:
        raise DataError(
            f"{options.model} has fingerprint {model.info.fingerprint}, but {fingerprint} was served last; scores of "
            "different models cannot be compared"
        )
    folder = export_folder(options.reference)
    name = dataset_of(folder)["ref"] or folder.name
    return reference(model, examples_of(folder, options.split)), f"{name}, split {options.split}"


def _compared(before: Sequence[Observed], current: Sequence[Observed]) -> dict[str, Any]:
    per_source, skipped = slices(before, current)
    result: dict[str, Any] = {"whole": compare(before, current), "slices": per_source, "skipped": skipped}
    known = {one.prompt for one in before}
    result["known_prompts"] = sum(prompt in known for prompt in {one.prompt for one in current})
    return {**result, "drifted": verdicts(result)}


def table(result: Mapping[str, Any]) -> str:
    """What moved, by slice, then the verdict."""
    lines = [
        f"{result['model']} ({result['fingerprint'][:12]}) against {result['reference']}",
        display.table(
            HEADER, [_row(where, part) for where, part in [("all", result["whole"]), *result["slices"].items()]]
        ),
        *(f"{source}: not compared: {why}" for source, why in result["skipped"].items()),
        f"{result['known_prompts']} of {result['whole']['served']['prompts']} served prompts are in the reference",
        *(f"DRIFT  {sentence}" for sentence in result["drifted"]),
    ]
    if not result["drifted"]:
        lines.append("no drift")
    if queued := result.get("queued"):
        lines.append(
            f"{queued['new']} strange items newly queued for {queued['project']}; {queued['without_text']} have no "
            "text (serve with --log-text, or ingest them)"
        )
    return "\n".join(lines)


HEADER = ("", "reference", "served", "PSI scores", "KS", "PSI length", "unscored")


def _row(where: str, part: Mapping[str, Any]) -> list[str]:
    sides = ("reference", "served")
    sizes = [f"{part[side]['completions']}/{part[side]['prompts']}" for side in sides]
    unscored = [f"{part['unscored'][side]['numerator']}/{part['unscored'][side]['denominator']}" for side in sides]
    scores = part["scores"] or {"psi": None, "ks": None}
    moved = [display.number(scores["psi"]), display.number(scores["ks"], ".2f"), display.number(part["lengths"]["psi"])]
    return [where, *sizes, *moved, " -> ".join(unscored)]


def _write(path: Path, result: Mapping[str, Any], before: Sequence[Observed], current: Sequence[Observed]) -> None:
    charts = [
        ("Scores", drift_charts.densities([o.value for o in before], [o.value for o in current], xlabel="score")),
        ("Lengths", drift_charts.densities([o.chars for o in before], [o.chars for o in current], xlabel="characters")),
        ("Population stability by source", drift_charts.stability(result)),
        ("Day by day", drift_charts.days([*before, *current])),
    ]
    body = "".join(f"<h2>{html.escape(title)}</h2>{svg}" for title, svg in charts if svg)
    page = drift_charts.PAGE.format(
        title=html.escape(result["model"]), table=html.escape(display.printable(table(result))), body=body
    )
    write_text(path, page)
