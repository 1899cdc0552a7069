"""score, best_of_n, binarize: which responses stay, what their label is, and that lineage follows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.recipes.recipe import parse_recipe, run_recipe
from data_pipelines.steps import binarize
from rmkit.cli import main as cli
from rmkit.errors import ConfigError
from rmkit.ids import assistant_message, content_hash
from tests.data_pipelines.frames import apply, frame, pair, version_frame
from warehouse.store import open_warehouse
from warehouse.versions.versions import resolve
from warehouse.write.identity import unit_hash


def listed(prompt: str, texts: dict[str, float | None], **extra: Any) -> dict[str, Any]:
    """A row of kind list whose responses have these scores of aspect rm."""
    row = pair(prompt, "x", "y")
    responses = sorted((assistant_message(text) for text in texts), key=content_hash)
    by_text = {assistant_message(text): value for text, value in texts.items()}
    scores = [
        {"response": at, "aspect": "rm", "value": by_text[text]}
        for at, text in enumerate(responses)
        if by_text[text] is not None
    ]
    made = row | {"kind": "list", "responses": responses, "scores": scores, "p": None, "ranks": None, "votes": []}
    made |= {"unit": unit_hash("list", row["prompt"], responses=responses), "generators": None}
    return made | {"id": content_hash(prompt)} | extra


def texts_of(row: dict[str, Any]) -> list[str]:
    return [json.loads(text)[0]["content"] for text in row["responses"]]


ROWS = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.0}


def test_binarize_takes_the_best_and_the_worst_with_their_gap() -> None:
    [row] = apply("binarize", frame([listed("p", ROWS)]), aspect="rm").kept.to_dicts()
    better, worse = (texts_of(row)[at] for at in ((0, 1) if row["p"] == [1.0, 0.0] else (1, 0)))
    assert (better, worse, row["margin"], row["kind"]) == ("a", "d", 3.0, "pair")
    assert row["ranks"] == [int(value == 0.0) for value in row["p"]]
    assert [(one["value"]) for one in row["scores"]] == [ROWS[text] for text in texts_of(row)]


@pytest.mark.parametrize("how", ["best_random", "halves"])
def test_random_pairs_keep_to_their_halves_and_their_seed(how: str) -> None:
    rows = frame([listed(f"p{i}", ROWS) for i in range(40)])
    seen = set()
    for row in apply("binarize", rows, how=how, aspect="rm").kept.to_dicts():
        texts = texts_of(row)
        seen.add(tuple(texts if row["p"][0] == 1.0 else texts[::-1]))
    wanted = {("a", "b"), ("a", "c"), ("a", "d")} if how == "best_random" else {(i, j) for i in "ac" for j in "bd"}
    assert seen == wanted
    again = apply("binarize", rows.sort("id", descending=True), how=how, aspect="rm").kept.sort("id")
    assert again.equals(apply("binarize", rows, how=how, aspect="rm").kept.sort("id"))


def test_a_pair_of_halves_is_drawn_as_from_the_list_of_all_of_them() -> None:
    draw = np.random.default_rng(3)
    for number in range(200):
        rewards = draw.integers(0, 4, draw.integers(2, 9)).astype(float).tolist()  # many ties
        if min(rewards) == max(rewards):
            continue
        order = sorted(range(len(rewards)), key=lambda at: -rewards[at])
        half = len(order) // 2
        pairs = [(i, j) for i in order[:half] for j in order[len(order) - half :] if rewards[i] > rewards[j]]
        seed = int.from_bytes(hashlib.sha256(f"0 {number}".encode()).digest()[:8])
        expected = pairs[int(np.random.default_rng(seed).integers(len(pairs)))]
        assert binarize._drawn(rewards, str(number), binarize.Config(how="halves")) == expected


def test_best_of_n_keeps_the_best_and_says_why_others_go() -> None:
    rows = frame([listed("p", ROWS), listed("q", {"a": 1.0, "b": None}), listed("r", {"a": 1.0, "b": 1.0, "c": 0.5})])
    one = apply("best_of_n", rows, aspect="rm")
    assert texts_of(one.kept.to_dicts()[0]) == ["a"]
    assert one.kept["kind"].to_list() == ["single", "single"]
    assert one.dropped["reason"].to_list() == ["not every response has a score"]
    two = apply("best_of_n", rows, aspect="rm", keep=2).kept.to_dicts()
    assert sorted(texts_of(two[0])) == ["a", "c"]
    assert dict(zip(texts_of(two[0]), two[0]["ranks"], strict=True)) == {"a": 0, "c": 1}
    assert two[1]["ranks"] == [0, 0]
    equal = apply("binarize", frame([listed("s", {"a": 1.0, "b": 1.0})]), aspect="rm")
    assert equal.dropped["reason"].to_list() == ["no two responses with different scores"]
    with pytest.raises(ConfigError, match="keep must be positive"):
        apply("best_of_n", rows, keep=0)


def test_a_model_scores_and_its_ranking_may_be_the_label() -> None:
    rows = frame([listed("p", {"one": None, "one two": None, "one two three": None})])
    scored = apply("score", rows, model="length", label=True).kept.to_dicts()[0]
    values = {text: one["value"] for text, one in zip(texts_of(scored), scored["scores"], strict=True)}
    assert values["one two three"] > values["one two"] > values["one"]
    assert dict(zip(texts_of(scored), scored["ranks"], strict=True)) == {"one two three": 0, "one two": 1, "one": 2}
    with pytest.raises(ConfigError, match="name the reward model"):
        apply("score", rows, model="")


def test_a_recipe_of_them_makes_a_version_whose_responses_know_their_authors(home: Path, tmp_path: Path) -> None:
    lines = [
        {"id": f"r{i}", "source": "lists", "prompt": [{"role": "user", "content": f"say it {i}"}],
         "responses": [{"text": f"word {'more ' * n}{i}", "model": f"m{n}", "score": n} for n in range(4)], "meta": {}}
        for i in range(5)
    ]  # fmt: skip
    path = tmp_path / "nway_lists.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    cli.call("ingest", [str(path), "--name", "lists", "--json"])
    steps = [{"use": "score", "model": "length", "label": True}, {"use": "binarize"}]
    made = run_recipe(parse_recipe({"recipe": {"name": "pairs"}, "step": steps}, where="test"), "lists")
    with open_warehouse(read_only=True) as connection:
        rows = version_frame(connection, resolve(connection, made["version"]), votes=True).to_dicts()
    assert len(rows) == 5
    for row in rows:
        best = 0 if row["p"] == [1.0, 0.0] else 1
        assert (row["generators"][best], row["generators"][1 - best]) == ("m3", "m0")
        assert row["kind"] == "pair"
