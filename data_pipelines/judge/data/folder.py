"""The folder between building judge training data and training: rows, drops, the judge's prompt, and their lineage.

    data.jsonl       one training row a line (what a row holds: see judge_data_sft, _dpo, _verdicts, _spark)
    dropped.jsonl    one item a line that gave no row, with its reason
    prompt.jinja     the prompt that every row was rendered with; the trained judge asks with it again
    manifest.json    stage, dataset (ref, digest), judge, parents, settings, counts, sha256 of each file, digest

The digest is the SHA-256 over the sorted rows as canonical JSON: no clock, no file order. It is the id that a trained
judge names, so the way from its weights back to the dataset version is digests all along. Folders are never changed.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rmkit.atomic import draft_folder, put
from rmkit.chat.tool_calls import json_text
from rmkit.config import file_in, read_object
from rmkit.errors import DataError, StoreError, UsageError
from rmkit.ids import canonical_json, digest, file_sha256
from rmkit.judge import read_judge
from rmkit.judge.prompt_file import BUILT_IN, FOLDER

MANIFEST, ROWS, DROPPED, PROMPT = "manifest.json", "data.jsonl", "dropped.jsonl", "prompt.jinja"
FORMAT = "judge-data/1"

Row = dict[str, Any]
Dropped = dict[str, Any]  # "id", "reason", and what else explains it


@dataclass(frozen=True, slots=True)
class Built:
    """What a builder gives: training rows, what it dropped and why, and by reason the rows that never became items."""

    rows: Sequence[Row]
    dropped: Sequence[Dropped]
    skipped: Mapping[str, int]

    @property
    def reasons(self) -> dict[str, int]:
        """Every reason with its number of items, most frequent first."""
        counted = Counter(str(one["reason"]) for one in self.dropped)
        counted.update(self.skipped)
        return dict(counted.most_common())


def prompt_path(judge: Path) -> Path:
    """The Jinja file of a judge's TOML: its own, or the built-in one of its form."""
    config = read_judge(judge)[0]
    if config.profile:
        raise UsageError(
            f"{judge}: training data is written under a prompt of a judge's own, not under profile {config.profile}"
        )
    return judge.parent / config.prompt if config.prompt else FOLDER / BUILT_IN[config.form]


def write_folder(
    target: Path, built: Built, *, judge: Path, prompt: Path | None = None, **facts: Any
) -> dict[str, object]:
    """Write the folder whole or not at all; its manifest. StoreError where `target` exists, DataError for no rows.

    `prompt` is that of a model which is no judge; then the manifest names none.
    """
    if target.exists():
        raise StoreError(f"{target} exists already; judge data is never overwritten, name a new folder with -o")
    built = _representable(built)
    if not built.rows:
        why = "; ".join(f"{count}: {reason}" for reason, count in built.reasons.items())
        raise DataError(f"no training row was left ({why or 'the data held no item'}); nothing was written")
    with draft_folder(target) as folder:
        _lines(folder / ROWS, built.rows)
        _lines(folder / DROPPED, built.dropped)
        shutil.copyfile(prompt or prompt_path(judge), folder / PROMPT)
        config = None if prompt else asdict(read_judge(judge)[0])
        manifest = {
            "format": FORMAT,
            "digest": digest(sorted(map(canonical_json, built.rows))),
            **facts,
            "judge": config,
            "rows": len(built.rows),
            "items": len({row["id"] for row in built.rows}),
            "dropped": built.reasons,
            "files": {name: file_sha256(folder / name) for name in (ROWS, DROPPED, PROMPT)},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        put(folder, target)
    return manifest


def read_folder(folder: Path) -> dict[str, Any]:
    """The manifest, every file's hash verified. Raises DataError where it is no such folder, or changed since."""
    path = folder / MANIFEST
    hint = "it is no judge data; make some with: rmkit judge-data"
    manifest = read_object(path, raises=DataError, hint=hint, keys={"format": str, "files": dict})
    if manifest.get("format") != FORMAT:
        raise DataError(f"{path}: format {manifest.get('format')!r}, expected {FORMAT!r}; see rmkit judge-data --help")
    for name, expected in manifest["files"].items():
        file = file_in(folder, name, raises=DataError)
        if not file.is_file() or file_sha256(file) != expected:
            raise DataError(f"{folder / name} is missing or was changed since it was built; build the data again")
    return manifest


def read_lines(path: Path) -> list[dict[str, object]]:
    """The JSON objects of a file, one a line."""
    with path.open() as file:
        return [json.loads(line) for line in file]


def _representable(built: Built) -> Built:
    """Rows whose text holds half of a surrogate pair, as models write it, are dropped: trainers could not read them."""
    rows, dropped = list[Row](), list[Dropped]()
    for row in built.rows:
        try:
            json_text(row)
            rows.append(row)
        except DataError:
            dropped.append({"id": row["id"], "reason": "a text holds half of a surrogate pair"})
    return Built(rows, [*built.dropped, *dropped], built.skipped)


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:  # half a pair: JSON's own escape of it
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
