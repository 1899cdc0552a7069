"""`rmkit drift NAME`: do served scores still look like the reference set's, and does a policy hack its reward?

Without `--watch` everything of the reward log that both sides have is compared: scores, lengths, unscored rates, and
under a signal the mix, the shaped reward, components, the trainer's columns and the spread within groups.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evaluation.drift import charts as drift_charts
from evaluation.drift.outliers import outliers, queue_events
from evaluation.drift.served import Observed, reference, served
from evaluation.drift.statistics import compare, slices, verdicts
from evaluation.drift.watch import text as watched_text
from evaluation.drift.watch import watch
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.data.export_folder import dataset_of, examples_of, export_folder
from rmkit.errors import DataError, UsageError, unknown
from rmkit.ledger import open_ledger
from rmkit.ledger.annotation_queue import enqueue
from rmkit.models import load_model
from rmkit.signal.hacking import AlarmSettings

MIN_SERVED = 50


def main(argv: list[str]) -> int:
    """0: nothing has drifted, no alarm; 1: something has, or the alarm rings."""
    options = _options(argv)
    if options.watch:
        return _watch(options)
    with open_ledger(read_only=not options.queue) as ledger:
        since = datetime.now(UTC) - timedelta(days=options.days) if options.days else None
        fingerprint, current = served(ledger, options.name, since=since)
        before, current, summary = _sides(options, fingerprint, current)
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
        "Compare what a service scored with a reference set, and send the outliers to people; or watch a policy's "
        "rewards for signs of hacking.",
        examples=[
            "drift helpful --reference hh@v2 --model models/helpful -o drift.html",
            "drift helpful --reference hh@v2 --model models/helpful --days 7 --queue 20",
            "drift helpful --split-at 2026-11-01       # served before against served since",
            "drift helpful --split-step 500            # the trainer's steps before against those since",
            "drift helpful --watch --truth right --canary 'Bye!' --every 60",
        ],
    )
    parser.add_argument("name", help="the name under which the model was served")
    parser.add_argument("--reference", metavar="DATA", help="dataset version or export folder, scored with --model now")
    parser.add_split()
    parser.add_argument("--model", help="the served model: folder, name or alias")
    parser.add_argument("--split-at", type=_day, metavar="TIME", help="take what was served before it as the reference")
    parser.add_argument(
        "--split-step", type=arguments.positive, metavar="N", help="take the trainer's steps before it as the reference"
    )
    parser.add_argument("--split-policy", metavar="VERSION", help="take what came before that policy as the reference")
    parser.add_argument("--days", type=float, help="only what was served in the last so many days")
    parser.add_argument("--queue", type=int, default=0, metavar="N", help="send the N outliers to the queue")
    parser.add_argument("--project", help="annotation project of the queue (default drift-NAME)")
    parser.add_output("write a page with charts")
    parser.add_argument("--watch", action="store_true", help="hacking alarm over the trainer's steps")
    parser.add_argument(
        "--truth", action="append", default=[], metavar="NAME",
        help="a component of the rewards that must not fall while they rise (repeatable; default: every one)",
    )  # fmt: skip
    parser.add_argument(
        "--canary", action="append", default=[], metavar="TEXT",
        help="a phrase that must not spread (repeatable; needs a service with --log-text)",
    )  # fmt: skip
    parser.add_argument("--proxy", metavar="NAME", help="component that the policy is trained on (default: the mix)")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="look again and again, until the alarm rings")
    parser.add_config(AlarmSettings)
    options = parser.parse_args(argv)
    splits = (options.split_at, options.split_step, options.split_policy, options.reference)
    if options.watch:
        if any(one is not None for one in splits):
            raise UsageError("rmkit drift --watch looks at the run itself and takes no reference and no split")
    elif sum(one is not None for one in splits) != 1 or (options.reference and not options.model):
        raise UsageError(
            "rmkit drift takes either --reference DATA with --model MODEL, or one of --split-at, --split-step and "
            "--split-policy; or --watch"
        )
    return options


def _watch(options: Any) -> int:
    settings = arguments.settings(AlarmSettings, options, where="rmkit drift --watch")
    since = datetime.now(UTC) - timedelta(days=options.days) if options.days else None
    while True:
        with open_ledger(read_only=True) as ledger:
            _, observed = served(ledger, options.name, since=since)
        result = watch(
            observed, model=options.name, truth=options.truth, canaries=options.canary, proxy=options.proxy,
            settings=settings,
        )  # fmt: skip
        if options.every is None or result.alarm:
            display.emit(result.as_json(), as_json=options.json, text=watched_text(result))
            return 1 if result.alarm else 0
        time.sleep(options.every)


def _day(text: str) -> datetime:
    day = datetime.fromisoformat(text)
    return day if day.tzinfo else day.replace(tzinfo=UTC)


def _sides(options: Any, fingerprint: str, current: Sequence[Observed]) -> tuple[list[Observed], list[Observed], str]:
    """The reference, what is compared with it, and the reference's name."""
    if options.split_at is not None:
        before = [one for one in current if one.time is not None and one.time < options.split_at]
        since = [one for one in current if one.time is not None and one.time >= options.split_at]
        return before, since, f"served before {options.split_at.isoformat()}"
    if options.split_step is not None:
        before = [one for one in current if one.step is not None and one.step < options.split_step]
        since = [one for one in current if one.step is not None and one.step >= options.split_step]
        return before, since, f"steps before {options.split_step}"
    if options.split_policy is not None:
        versions = [one.policy_version for one in current]
        if options.split_policy not in versions:
            raise DataError(unknown("policy version", options.split_policy, sorted({one for one in versions if one})))
        first = versions.index(options.split_policy)
        return list(current[:first]), list(current[first:]), f"before policy {options.split_policy}"
    model = load_model(options.model)
    if model.info.fingerprint != fingerprint:
        raise DataError(
            f"{options.model} has fingerprint {model.info.fingerprint}, but {fingerprint} was served last; scores of "
            "different models cannot be compared"
        )
    folder = export_folder(options.reference)
    name = dataset_of(folder)["ref"] or folder.name
    return reference(model, examples_of(folder, options.split)), list(current), f"{name}, split {options.split}"


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
        *_fields_table(result["whole"]["fields"]),
        *(f"{source}: not compared: {why}" for source, why in result["skipped"].items()),
        f"{result['known_prompts']} of {result['whole']['served']['prompts']} served prompts are in the reference",
        *(f"DRIFT  {sentence}" for sentence in result["drifted"]),
    ]
    if not result["drifted"]:
        lines.append("no drift")
    if queued := result.get("queued"):
        lines.append(
            f"{queued['new']} strange items newly queued for {queued['project']} (rmkit label create "
            f"{queued['project']} --data DATA --task edit --queued); {queued['without_text']} have no text (serve with "
            "--log-text, or ingest them)"
        )
    return "\n".join(lines)


HEADER = ("", "reference", "served", "PSI scores", "KS", "PSI length", "unscored")


def _fields_table(fields: Mapping[str, Any]) -> list[str]:
    """Mix, shaped reward, components and columns, whole: as lines."""
    rows = [
        [
            name,
            *(display.number(one[key]) for key in ("mean_reference", "mean_served", "psi")),
            display.number(one["ks"]),
        ]
        for name, one in fields.items()
        if one
    ]
    return [display.table(("", "reference", "served", "PSI", "KS"), rows)] if rows else []


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
