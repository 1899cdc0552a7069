"""Export folders made without a warehouse, whose truth is known: kind replies are better than rude ones."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rmkit.data.example import EXAMPLE_SCHEMA, MANIFEST
from rmkit.ids import assistant_message, content_hash, user_message

KIND = ("thank", "you", "glad", "happy", "gladly", "welcome", "certainly", "pleasure")
RUDE = ("no", "never", "stupid", "wrong", "boring", "annoying", "nonsense")
TOPICS = ("eggs", "bread", "rivers", "music", "chess", "stars", "trains", "paint")


def row(prompt: str, responses: Sequence[str], **fields: Any) -> dict[str, Any]:
    """One example; fields left out are null, the label defaults to none."""
    texts = [assistant_message(text) for text in responses]
    unit = content_hash(prompt + "".join(texts))
    made: dict[str, Any] = dict.fromkeys(EXAMPLE_SCHEMA.names)
    made |= {"id": content_hash(unit + repr(fields.get("p"))), "unit": unit, "kind": "pair", "source": "made"}
    made |= {"prompt": user_message(prompt), "responses": texts, "family": 0, "weight": 1.0, "n_votes": 1}
    return made | fields


def kind_rows(n: int, *, seed: int = 0, flipped: float = 0.0) -> list[dict[str, Any]]:
    """n pairs in n / 2 families, 60% train, 20% validation, 20% test; the better one is first in about half."""
    generator = random.Random(seed)
    rows = []
    for index in range(n):
        family = index // 2
        split = "train" if family % 5 < 3 else "validation" if family % 5 == 3 else "test"
        kind, rude = (" ".join(generator.choices(words + TOPICS, k=8)) for words in (KIND, RUDE))
        first = generator.random() < 0.5
        p = float(first) if generator.random() >= flipped else float(not first)
        prompt = f"tell me about {generator.choice(TOPICS)} number {family}"
        responses = [kind, rude] if first else [rude, kind]
        rows.append(row(prompt, responses, p=[p, 1 - p], family=family, split=split, subset=f"s{index % 3}"))
    return rows


def write_export(folder: Path, rows: Sequence[Mapping[str, Any]], *, ref: str = "made@v1") -> Path:
    """An export folder holding the rows in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=EXAMPLE_SCHEMA), folder / "rows-00000.parquet")
    manifest = {"files": {"rows-00000.parquet": {}}, "ref": ref, "digest": content_hash(ref) * 2, "benchmark_rows": 0}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder
