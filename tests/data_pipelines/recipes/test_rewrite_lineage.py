"""Who wrote a response stays true when a step rewrites the text and the responses change places."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa

from data_pipelines.ingest.command import ingest
from data_pipelines.recipes.recipe import parse_recipe, run_recipe
from rmkit.data.example import EXAMPLE_SCHEMA
from rmkit.ids import assistant_message
from tests.data_pipelines.frames import version_frame
from warehouse.lineage.runs import recorded_run
from warehouse.store import open_warehouse, transaction
from warehouse.versions.versions import commit, resolve
from warehouse.write.load import store_examples
from warehouse.write.rewrite import PARENT_ORDER

NORMALIZE = {"recipe": {"name": "n", "description": "d"}, "step": [{"use": "normalize"}]}


def write(path: Path, rows: int) -> Path:
    """Lists whose texts normalize changes: trailing spaces, which move about half of the pairs' hash order."""
    with path.open("w") as file:
        for i in range(rows):
            responses = [
                {"text": f"alpha answer {i}  \n", "score": 2, "model": "model-alpha"},
                {"text": f"beta reply {i}  ", "score": 1, "model": "model-beta"},
            ]
            prompt = [{"role": "user", "content": f"question {i} about thing {i * 7}"}]
            row = {"id": f"g{i}", "source": "s", "prompt": prompt, "responses": responses, "meta": {}}
            file.write(json.dumps(row) + "\n")
    return path


def pairs(frame: pl.DataFrame) -> set[tuple[str, str, int]]:
    """(first word of a response, who wrote it, its rank)."""
    long = frame.select("responses", "generators", "ranks").explode("responses", "generators", "ranks")
    return {(json.loads(text)[0]["content"].split()[0], model, rank) for text, model, rank in long.iter_rows()}


def test_generators_and_ranks_follow_their_responses(home: Path, tmp_path: Path) -> None:
    ingest(write(tmp_path / "lists.jsonl", 30), dataset="g")
    result = run_recipe(parse_recipe(NORMALIZE, where="test"), "g")
    with open_warehouse(read_only=True) as connection:
        before, after = (version_frame(connection, resolve(connection, f"g@v{number}")) for number in (1, 2))
        orders = connection.execute("SELECT DISTINCT parent_order FROM unit WHERE parent_order IS NOT NULL").fetchall()
    assert result["steps"][0]["facts"]["rows_changed"] == 30
    assert sorted(order for (order,) in orders) == [[0, 1], [1, 0]]  # some moved, some did not
    assert pairs(before) == pairs(after) == {("alpha", "model-alpha", 0), ("beta", "model-beta", 1)}


def test_votes_follow_their_responses_through_two_rewrites(home: Path, tmp_path: Path) -> None:
    ingest(write(tmp_path / "lists.jsonl", 30), dataset="g")
    run_recipe(parse_recipe(NORMALIZE, where="test"), "g")
    with open_warehouse() as connection:
        frame = version_frame(connection, resolve(connection, "g@v2"), votes=True)
        assert [len(votes) for votes in frame["votes"]] == [1] * 30
        assert voted(frame) == {("alpha", 0, 2.0), ("beta", 1, 1.0)}
        moved = louder(frame)
        with transaction(connection), recorded_run(connection, "test", "louder", {}) as run_id:
            rows = store_examples(connection, moved, run_id=run_id)
            commit(connection, "g", rows, message="louder", author="test", run_id=run_id)
        again = version_frame(connection, resolve(connection, "g@v3"), votes=True)
    assert again["unit"].is_in(frame["unit"].implode()).sum() == 0
    assert voted(again) == {("ALPHA", 0, 2.0), ("BETA", 1, 1.0)}


def louder(frame: pl.DataFrame) -> pa.Table:
    """All responses in upper case, in an order of their own: what stood second comes first."""
    rows = frame.drop("votes").to_arrow(compat_level=pl.CompatLevel.oldest()).to_pylist()
    for row in rows:
        texts = [json.loads(text)[0]["content"].upper() for text in reversed(row["responses"])]
        row["responses"] = [assistant_message(text) for text in texts]
        row["parent_order"] = [1, 0]
        row["generators"] = row["generators"][::-1]
        row["ranks"] = row["ranks"][::-1]
        row["scores"] = [score | {"response": 1 - score["response"]} for score in row["scores"]]
    return pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA.append(PARENT_ORDER))


def voted(frame: pl.DataFrame) -> set[tuple[str, int, float]]:
    """(first word of a response, its rank in the vote, its score in the vote)."""
    found = set()
    for responses, votes in frame.select("responses", "votes").iter_rows():
        for vote in votes:
            score = {one["response"]: one["value"] for one in vote["scores"]}
            words = [json.loads(text)[0]["content"].split()[0] for text in responses]
            found |= {(word, vote["ranks"][at], score[at]) for at, word in enumerate(words)}
    return found
