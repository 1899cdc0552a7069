"""The files of shared/data, each as it is and in disguise: the labels are the same, or the file is refused with a
reason.

rmkit's own form   as JSON lines, a JSON array, CSV with JSON cells, zipped
renamed            columns under other names, without id, source and meta
votes              one row a vote, with the rater in a column
words              the same with other words for the verdicts
numbers            the same with 1, 2 and 0: refused until --values says what they mean
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import random
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest import preview
from rmkit.errors import DataError
from tests.data_pipelines.sources.readings import Read, read

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
FILES = sorted(path.name for path in DATA.glob("*.jsonl.gz"))
ROWS = 60
NAMES = {
    "prompt": "question",
    "chosen": "better",
    "rejected": "worse",
    "response_a": "left",
    "response_b": "right",
    "responses": "answers",
    "response": "answer",
    "labels": "votes",
    "steps": "solution",
    "rubric": "criteria_list",
}
WORDS = {"a": "Response A is better", "b": "Response B is better", "tie": "About the same"}
NUMBERS = {"a": "1", "b": "2", "tie": "0"}
Rows = list[dict[str, Any]]


def rows_of(name: str) -> Rows:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in itertools.islice(file, ROWS)]


def lines(rows: Rows, path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_array(rows: Rows, folder: Path) -> Path:
    path = folder / "x.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def as_csv(rows: Rows, folder: Path) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "x.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            cells = [row.get(name) for name in columns]
            writer.writerow(["" if c is None else c if isinstance(c, str) else json.dumps(c) for c in cells])
    return folder / "x.csv"


def as_zip(rows: Rows, folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(lines(rows, folder / "rows.jsonl"), "data/rows.jsonl")
        archive.writestr("README.md", "What this is.")
    return folder / "x.zip"


def renamed(rows: Rows, folder: Path) -> Path:
    kept = [{NAMES.get(n, n): v for n, v in row.items() if n not in ("id", "source", "meta")} for row in rows]
    return lines(kept, folder / "x.jsonl")


def per_vote(words: dict[str, str]) -> Callable[[Rows, Path], Path | None]:
    def write(rows: Rows, folder: Path) -> Path | None:
        if "response_a" not in rows[0]:
            return None
        votes = [
            {
                "id": row["id"],
                "prompt": row["prompt"][-1]["content"] if len(row["prompt"]) == 1 else json.dumps(row["prompt"]),
                "response_a": row["response_a"],
                "response_b": row["response_b"],
                "preference": words[label["preference"]],
                "annotator": label["annotator"],
            }
            for row in rows
            for label in row["labels"]
        ]
        return as_csv(votes, folder)

    return write


def shuffled(rows: Rows, folder: Path) -> Path:
    order = random.Random(1)
    mixed = [dict(order.sample(sorted(row.items()), len(row))) for row in order.sample(rows, len(rows))]
    return lines(mixed, folder / "x.jsonl")


DISGUISES: dict[str, Callable[[Rows, Path], Path | None]] = {
    "JSON array": as_array,
    "CSV": as_csv,
    "zip": as_zip,
    "shuffled": shuffled,
    "renamed": renamed,
    "row a vote": per_vote({side: side for side in WORDS}),
    "other words": per_vote(WORDS),
    "numbers": per_vote(NUMBERS),
}


def labels(result: Read, *, ranks_only: bool = False) -> Counter[str]:
    """What is said of which texts, without names of raters."""
    counts: Counter[str] = Counter()
    for unit in result.merged:
        texts = [answer["messages"] for answer in unit["responses"]]
        order = sorted(range(len(texts)), key=texts.__getitem__)
        for one in unit["judgments"]:
            said = {
                "ranks": one["ranks"] and [one["ranks"][at] for at in order],
                "scores": sorted([order.index(s["response"]), s["value"]] for s in one["scores"] or []),
                "steps": one["step_labels"],
                "edit": one["edit"],
                "why": one["rationale"] if unit["kind"] == "single" else None,
            }
            if ranks_only and said["ranks"]:
                said = {"ranks": said["ranks"]}
            counts[json.dumps([unit["prompt"], [texts[at] for at in order], said])] += 1
    return counts


def outcome(path: Path | None, right: Read, *, ranks_only: bool) -> str:
    """same, a refusal with its reason, or what is wrong. `ranks_only` where the disguise took numbers away with
    meta.
    """
    if path is None:
        return "-"
    try:
        result = read(path)
    except DataError as error:
        return f"refused: {str(error).partition('not clear: ')[2].partition('. Seen')[0] or error}"[:100]
    own, whole = labels(result, ranks_only=ranks_only), labels(right, ranks_only=ranks_only)
    if own == whole:
        return "same"
    if not own:
        doubts = preview.doubts(result.opened, rater=None)
        return f"doubt: {doubts[0]}"[:100] if doubts else "no label, and no word of it"
    return f"wrong: {list((own - whole).items())[:1]} for {list((whole - own).items())[:1]}"[:600]


def matrix(name: str, folder: Path) -> dict[str, str]:
    rows = rows_of(name)
    right = read(lines(rows, folder / "as-it-is.jsonl"))
    return {
        disguise: outcome(write(rows, folder), right, ranks_only=disguise == "renamed")
        for disguise, write in DISGUISES.items()
    }


# disguise: how many files are read with the same labels, how many are refused or doubted with what is not clear, and
# how many the disguise does not fit
COUNTS: dict[str, dict[str, int]] = {
    "JSON array": {"same": 37},
    "CSV": {"same": 37},
    "zip": {"same": 37},
    "shuffled": {"same": 37},
    "renamed": {"same": 24, "refused": 10, "doubt": 3},
    "row a vote": {"same": 3, "-": 34},
    "other words": {"same": 3, "-": 34},
    "numbers": {"refused": 3, "-": 34},
}


@pytest.mark.slow
@pytest.mark.skipif(not FILES, reason="no shared/data")
def test_a_file_in_disguise_says_the_same_or_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts: dict[str, Counter[str]] = {disguise: Counter() for disguise in DISGUISES}
    wrong, reasons = [], []
    for name in FILES:
        for disguise, cell in matrix(name, tmp_path).items():
            kind = cell.partition(":")[0]
            counts[disguise][kind] += 1
            if kind in ("refused", "doubt"):
                reasons.append(f"{name} as {disguise}: {cell}")
            expected = {"numbers": ("-", "refused"), "renamed": ("same", "refused", "doubt")}
            if kind not in expected.get(disguise, ("same", "-")):
                wrong.append(f"{name} as {disguise}: {cell}")
            if disguise == "numbers" and kind == "refused" and "what the values of preference mean" not in cell:
                wrong.append(f"{name} as {disguise}: {cell}")
    with capsys.disabled():
        print("", *(f"{disguise}: {dict(sorted(count.items()))}" for disguise, count in counts.items()), sep="\n")
        print(*reasons, sep="\n")
    assert wrong == []
    assert {disguise: dict(count) for disguise, count in counts.items()} == COUNTS
