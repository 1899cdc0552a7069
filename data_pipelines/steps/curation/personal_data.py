"""Personal data and secrets, by patterns with checks (data_pipelines.algorithms.personal_data).

    mask     each hit becomes [EMAIL], [PHONE] ... in prompt, responses, tool calls, reference and meta; step ends move
             along
    drop     rows with a hit go
    count    nothing changes

A row with hits in meta alone is dropped, for meta belongs to a row's origin and is rewritten with its texts only.

Whatever is done, the facts count hits by kind and rows, and evidence never shows a whole hit. What the warehouse keeps
of the file as it was ingested, and people's reasons, stay as they are: `rmkit erase` forgets them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import polars as pl

from data_pipelines.algorithms.personal_data import KINDS, Hit, hits, masked, moved
from data_pipelines.algorithms.rewriting import renewed, with_rows
from data_pipelines.scopes import Rows
from data_pipelines.steps import Context, StepResult, nothing_dropped, partition
from rmkit.errors import ConfigError, unknown
from rmkit.ids import messages_json, parse_messages
from rmkit.types import Message

# What any hit holds; most texts of most files do not match and are never parsed.
_SUSPECT = (
    r"@|\d[ .()-]{0,2}\d[ .()-]{0,2}\d|:[0-9A-Fa-f]{0,4}:"
    r"|(?i:passw|pwd|secret|token|api[_-]?key|BEGIN |gh[pousr]_|xox|eyJ|hf_|sk-|[sr]k_live|A[KS]IA|AIza|glpat)"
    r"|github_pat"
)


@dataclass(frozen=True, kw_only=True)
class Config:
    action: Annotated[Literal["mask", "drop", "count"], "what is done with a row that holds some"] = "mask"
    kinds: Annotated[tuple[str, ...], f"what is looked for: {', '.join(KINDS)}"] = KINDS

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(f"personal_data: {unknown('kind', kind, KINDS)}")
        if self.action not in ("mask", "drop", "count"):
            raise ConfigError(f"personal_data: action is mask, drop or count, got {self.action!r}")


def _with_note(facts: dict[str, Any]) -> dict[str, Any]:
    n_rows, by_kind = facts.pop("rows"), {kind: n for kind in KINDS if (n := facts["hits_by_kind"].get(kind))}
    listed = ", ".join(f"{kind} {n}" for kind, n in by_kind.items())
    note = f"in {facts['rows_with_hits']} of {n_rows} rows" + (f" ({listed})" if listed else "")
    return facts | {"hits_by_kind": by_kind, "note": note}


SCOPE = Rows(finish=_with_note)


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows without what was looked for, or as they were."""
    texts = _Texts(config.kinds)
    read = pl.concat_list("prompt", pl.col("responses").fill_null([]), "reference", "meta")
    suspects = frame.with_row_index("_at").filter(
        read.list.eval(pl.element().fill_null("").str.contains(_SUSPECT)).list.any()
    )
    rows: dict[int, dict[str, Any]] = {}
    evidence: dict[int, str] = {}
    for row in suspects.iter_rows(named=True):
        texts.seen = []
        at = row.pop("_at")
        new = _masked_row(row, texts)
        if texts.seen:
            evidence[at] = "; ".join(dict.fromkeys(texts.seen))
            rows[at] = new
    n_by_kind = {kind: texts.n_hits[kind] for kind in config.kinds if texts.n_hits[kind]}
    facts: dict[str, object] = {"rows_with_hits": len(rows), "hits_by_kind": n_by_kind, "rows": len(frame)}
    if config.action == "count":
        return nothing_dropped(frame, facts)
    masks = config.action == "mask"
    in_meta = {at for at, row in rows.items() if masks and row["unit"] == frame["unit"][at]}
    kept = with_rows(frame, {at: row for at, row in rows.items() if at not in in_meta}) if masks else frame
    why = dict.fromkeys(in_meta if masks else rows, "personal data or secrets" + (" in meta alone" if masks else ""))
    columns = [[one.get(at) for at in range(len(frame))] for one in (why, {at: evidence[at] for at in why})]
    reason, shown = (pl.Series(one, dtype=pl.String) for one in columns)
    return partition(kept, reason, evidence=shown, facts=facts)


class _Texts:
    """Masks texts and counts what was masked; `seen` is the evidence of the row at hand."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds
        self.n_hits: Counter[str] = Counter()
        self.seen: list[str] = []

    def spans(self, text: str) -> list[Hit]:
        result = hits(text, self.kinds)
        self.n_hits.update(one.kind for one in result)
        self.seen += [one.evidence(text) for one in result]
        return result

    def text(self, text: str) -> str:
        return masked(text, self.spans(text))

    def value(self, value: Any) -> Any:
        """The same JSON value with its texts masked; keys stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.value(one) for name, one in value.items()}
        return [self.value(one) for one in value] if isinstance(value, list | tuple) else value


def _masked_row(row: dict[str, Any], texts: _Texts) -> dict[str, Any]:
    prompt, _ = _messages(row["prompt"], (), texts)
    ends = row["step_ends"] or [[]] * len(row["responses"] or ())
    both = [_messages(text, own, texts) for text, own in zip(row["responses"] or (), ends, strict=True)]
    more: dict[str, Any] = {"step_ends": None if row["step_ends"] is None else [own for _, own in both]}
    if row["reference"] is not None:
        more["reference"] = texts.text(row["reference"])
    if row["meta"]:
        more["meta"] = json.dumps(texts.value(json.loads(row["meta"])), ensure_ascii=False)
    return renewed(row, prompt, [text for text, _ in both], **more)


def _messages(text: str, ends: tuple[int, ...] | list[int], texts: _Texts) -> tuple[str, list[int]]:
    """The conversation masked, and where its step ends (into the joined contents of assistant turns) now stand."""
    turns: list[Message] = []
    places: list[Hit] = []
    start = 0
    for message in parse_messages(text):
        own = texts.spans(message.content)
        if message.role == "assistant":
            places += [Hit(one.kind, one.start + start, one.end + start) for one in own]
            start += len(message.content) + len("\n\n")
        new = replace(message, content=masked(message.content, own))
        if message.reasoning:
            new = replace(new, reasoning=texts.text(message.reasoning))
        if message.tool_calls:
            new = replace(new, tool_calls=tuple(texts.value(call) for call in message.tool_calls))
        turns.append(new)
    return messages_json(turns), [moved(end, places) for end in ends]
