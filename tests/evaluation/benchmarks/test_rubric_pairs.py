"""Contrastive rubrics by the commands a user types, with a kill in between."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from evaluation.benchmarks.rubrics.pairs import run


@pytest.mark.slow
def test_rubrics_are_filtered_stored_and_paid_once(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = []
    for i in range(300):
        words = ["word " * draw.randrange(2, 30) + side for side in "ab"]
        ask = [{"role": "user", "content": f"say something about {i}"}]
        rows.append(
            {"id": f"p{i}", "source": "made", "prompt": ask, "chosen": words[0], "rejected": words[1], "meta": {}}
        )
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run(pairs, limit=300, noise=0.3, kills=1)
    planted = found["planted"]
    assert (planted["right"]["dropped"], planted["wrong"]["kept"], planted["equal"]["kept"]) == (0, 0, 0)
    assert planted["right"]["kept"] > 20
    assert planted["wrong"]["dropped"] > 5
    assert found["rubrics_in_warehouse"] == found["report"]["kept"] == planted["right"]["kept"]
    assert found["kills"] == 1
    assert found["stored_answers_paid_again"] == 0
    assert found["report"]["judging"]["parse_rate"] == 1.0
