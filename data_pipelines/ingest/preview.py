"""What a load would hold, from its first rows, and what speaks against storing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from data_pipelines.ingest.inputs import SAMPLE_ROWS, Opened
from data_pipelines.ingest.report import Explanation, table_text
from data_pipelines.ingest.rows import Shard, UnitStream
from data_pipelines.ingest.tally import Tally
from data_pipelines.sources.form import Form
from data_pipelines.sources.reading.streams import Item, Parsed
from data_pipelines.sources.reading.tables import table_rows
from data_pipelines.sources.recognize import Plan
from data_pipelines.sources.unit_builder import Row
from rmkit.errors import DataError

NO_VERDICT_SHARE, REJECTED_SHARE = 0.05, 0.2
_INFERRED = ("trl", "generic")  # forms of tables that no published form knows
MIN_ROWS = 20  # fewer tell nothing of a whole file


@dataclass(frozen=True)
class DryRun:
    """What a load of the first rows would hold."""

    reading: Explanation
    rows: int
    rejected: int
    reasons: Mapping[str, int]
    units: Mapping[str, int]
    labels: Mapping[str, int]
    raters: Mapping[str, int]
    n_raters: int
    without_opinion: int
    doubts: Sequence[str] = field(default=())


def dry_run(opened: Opened, table: Explanation, *, rater: str | None) -> DryRun:
    """Read the first rows of every shard without storing anything."""
    shards = [Shard(one.name, one.plan, list(islice(_rows(one), SAMPLE_ROWS))) for one in opened.shards]
    stream = UnitStream(shards, path=opened.path, rater=rater)
    prompts: set[str] = set()
    try:
        for batch in stream.batches():
            prompts.update(batch["prompt"].to_pylist())
    except DataError:
        if not stream.n_lines:
            raise
    tally = stream.tally
    kinds = tally.rater_kinds()
    return DryRun(
        table,
        stream.n_lines,
        stream.n_rejected,
        dict(sorted(stream.reasons.items(), key=lambda pair: -pair[1])),
        dict(tally.kinds),
        dict(tally.votes),
        kinds,
        len(tally.raters),
        sum(one.without_opinion for one in stream.shards.values()),
        _doubts(stream, tally, prompts, [one.plan for one in opened.shards]),
    )


def _rows(shard: Shard) -> Iterator[Item]:
    return iter(table_rows(shard.tables)) if shard.tables is not None else iter(shard.items)


def doubts(opened: Opened, *, rater: str | None) -> list[str]:
    """What speaks against storing a load, from the sample of its first shard."""
    sample = opened.shards[0]
    stream = UnitStream([Shard(sample.name, sample.plan, _parsed(opened.sample))], path=opened.path, rater=rater)
    prompts: set[str] = set()
    try:
        for batch in stream.batches():
            prompts.update(batch["prompt"].to_pylist())
    except DataError:
        return []  # nothing usable: the load says so with its reasons
    return _doubts(stream, stream.tally, prompts, [sample.plan])


def _parsed(sample: Sequence[Row]) -> list[Item]:
    return [Parsed(line, dict(row)) for line, row in enumerate(sample, 1)]


def _doubts(stream: UnitStream, tally: Tally, prompts: set[str], plans: Sequence[Plan]) -> list[str]:
    n = stream.n_lines
    inferred = all(plan.name in _INFERRED for plan in plans)
    forms = [plan.form for plan in plans if plan.form is not None]
    if n < MIN_ROWS:
        return []
    result = []
    if stream.n_rejected > REJECTED_SHARE * n:
        top = max(stream.reasons.items(), key=lambda pair: pair[1])
        result.append(f"{stream.n_rejected} of {n} rows are rejected ({top[0]}: {top[1]})")
    if not tally.judgments and not set(tally.kinds) <= {"rubric"} and any(plan.name in _INFERRED for plan in plans):
        result.append("no column was read as a label (--map score=..., preference=... names one)")
    silent = sum(one.without_opinion for one in stream.shards.values())
    if tally.judgments and silent > NO_VERDICT_SHARE * n:
        result.append(f"{silent} of {n} rows hold no verdict")
    if not inferred:
        return result
    if len(tally.votes) == 1 and all("preference" in form.roles or form.wide for form in forms):
        result.append(f"every verdict is {next(iter(tally.votes))}: is that the column of labels?")
    if any(plan.forced for plan in plans):
        return result
    if len(tally.raters) == 1 and all(_is_guessed_rater(form) for form in forms):
        result.append(
            f"every label is by {next(iter(tally.raters))!r}: is {forms[0].roles['rater']} the column of raters? "
            "(--rater-kind says what that rater is)"
        )
    if len(prompts) == 1 and all("prompt" in form.roles for form in forms):
        result.append(f"every row has the same prompt: is {forms[0].roles['prompt']} the column of prompts?")
    return result


def _is_guessed_rater(form: Form) -> bool:
    """Whether a column was taken for the raters by its name, and nobody said what they are."""
    return "rater" in form.roles and "rater_kind" not in form.roles and (form.named_people or form.kind == "unknown")


def dry_text(result: DryRun) -> str:
    """The table, then counts of what the rows hold."""
    lines = [table_text(result.reading), *_counts(asdict(result))]
    lines += [f"  doubt    {doubt}" for doubt in result.doubts]
    lines.append("nothing was stored (--dry-run)")
    return "\n".join(lines)


def _counts(facts: Mapping[str, Any]) -> list[str]:
    labels = " | ".join(f"{name} {count:,}" for name, count in sorted(facts["labels"].items())) or "none"
    units = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts["units"].items())) or "none"
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(facts["raters"].items())) or "none"
    return [
        f"  rows     {facts['rows']:,}, rejected {facts['rejected']:,}",
        *(f"             {count:,} x {reason}" for reason, count in list(facts["reasons"].items())[:10]),
        f"  units    {units}",
        f"  labels   {labels}",
        f"  raters   {kinds}",
        f"  no opinion  {facts['without_opinion']:,} rows",
    ]
