"""Normalize text: the same words always have the same bytes.

Rules, in this order, each with a switch: Unicode NFC (`nfc`); CRLF, CR and Unicode line separators become LF
(`newlines`); zero-width and control characters go, except tab and LF, and zero-width joiners between letters of the
scripts and emoji that need them (`invisible`); spaces at line ends go (`trailing_spaces`); more than two LF in a row
become two, and blank lines at either end of a text go (`blank_lines`). A row whose text changes is a new unit: its
responses are sorted by content hash again and every position in its label and votes moves along; `parent_order`
tells where each stood before, so that the warehouse can carry over what it knows of the parent. Rows with step offsets
are left alone, since the offsets count characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from data_pipelines.algorithms.rewriting import renewed, with_rows
from data_pipelines.scopes import Rows
from data_pipelines.steps import Context, StepResult, nothing_dropped
from rmkit.ids import messages_json, parse_messages


@dataclass(frozen=True, kw_only=True)
class Config:
    nfc: bool = True
    newlines: bool = True
    invisible: bool = True
    trailing_spaces: bool = True
    blank_lines: bool = True


# Soft hyphen, zero-width space, word joiners, direction marks, BOM, interlinear marks, C0 and C1 except \t \n \r.
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u2060-\u2064\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"
    "|(?<![^\\s\x21-\x7e])[\u200c\u200d]|[\u200c\u200d](?![^\\s\x21-\x7e])"
)

RULES: Mapping[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "newlines": lambda text: re.sub("\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", text),
    "invisible": lambda text: _INVISIBLE.sub("", text),
    "trailing_spaces": lambda text: re.sub("[^\\S\n]+(?=\n|\\Z)", "", text),
    "blank_lines": lambda text: re.sub("\n{3,}", "\n\n", text).strip("\n"),
}

# In canonical JSON, what any rule could touch; most texts of most files do not match and are never parsed.
_SUSPECT = r'[^\x20-\x7e]|\\[urfb]|\\n\\n\\n|\\n"|"\\n|(?: |\\t)(?:\\n|")'


def _with_note(facts: dict[str, Any]) -> dict[str, Any]:
    used = ", ".join(f"{rule} {n}" for rule, n in facts["rows_changed_by_rule"].items() if n)
    n_rows = facts.pop("rows")
    return facts | {"note": f"rewrote {facts['rows_changed']} of {n_rows} rows" + (f" ({used})" if used else "")}


SCOPE = Rows(finish=_with_note)


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Every row is kept; facts count the rows that each rule changed."""
    rules = [name for name in RULES if getattr(config, name)]
    stepped = pl.col("step_ends").list.len().fill_null(0) > 0
    texts = _rewritten(frame.filter(~stepped), rules)
    touched = (
        pl.col("prompt").is_in(list(texts)) | pl.col("responses").list.eval(pl.element().is_in(list(texts))).list.any()
    )
    changed = frame.with_row_index("_at").filter(touched.fill_null(False) & ~stepped)
    rows: dict[int, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    for row in changed.iter_rows(named=True):
        old = [row["prompt"], *(row["responses"] or [])]
        prompt, *responses = (texts[text][0] if text in texts else text for text in old)
        counts.update(set().union(*(texts[text][1] for text in old if text in texts)))
        rows[row.pop("_at")] = renewed(row, prompt, responses)
    normalized = with_rows(frame, rows)
    facts = {
        "rows_changed": len(rows),
        "rows_changed_by_rule": {rule: counts[rule] for rule in rules},
        "rows_with_steps_left_alone": frame.select(stepped.sum()).item(),
        "rows": len(frame),
    }
    return nothing_dropped(normalized, facts)


def clean(text: str, rules: Sequence[str] = tuple(RULES)) -> tuple[str, set[str]]:
    """The text after the rules, and the rules that changed it."""
    used = set()
    for name in rules:
        before, text = text, RULES[name](text)
        if text != before:
            used.add(name)
    return text, used


def _rewritten(frame: pl.DataFrame, rules: Sequence[str]) -> dict[str, tuple[str, set[str]]]:
    """Canonical JSON -> (new canonical JSON, rules), for conversations that change."""
    distinct = pl.concat([frame["prompt"], frame["responses"].explode()]).unique().drop_nulls()
    suspects = distinct.filter(distinct.str.contains(_SUSPECT))
    names = {text: _clean_messages(text, rules) for text in suspects.sort()}
    return {text: new for text, new in names.items() if new[1]}


def _clean_messages(text: str, rules: Sequence[str]) -> tuple[str, set[str]]:
    used: set[str] = set()
    turns = []
    for message in parse_messages(text):
        content, by = clean(message.content, rules)
        used |= by
        turns.append(replace(message, content=content))
    return messages_json(turns), used
