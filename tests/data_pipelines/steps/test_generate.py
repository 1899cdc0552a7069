"""The step `generate`: real replies over HTTP and of a tiny local model, paid once, with their author and lineage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from data_pipelines.recipes.recipe import parse_recipe, run_recipe
from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, EndpointError
from tests.data_pipelines.frames import apply, frame, pair, version_frame
from warehouse.store import open_warehouse
from warehouse.versions.versions import resolve


def growing(asked: dict[str, Any]) -> Reply:
    """The longer, the higher the sample's seed; one sample fails for good, one is empty."""
    nth = asked["seed"] - 7
    if nth == 1:
        return Reply(status=400, text="no")
    words = "" if nth == 2 else "word " * (2 + nth)
    return Reply(text=f"{words}{asked['messages'][-1]['content']}" if words else "")


@pytest.fixture
def server() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint(growing) as endpoint:
        yield endpoint


def settings(server: ScriptedEndpoint, **more: Any) -> dict[str, Any]:
    generator = {"model": "m", "base_url": server.base_url, "attempts": 1} | more.pop("generator", {})
    return {"use": "generate", "generator": generator, "samples": 5, "seed": 7, "max_tokens": 20} | more


def texts(row: dict[str, Any]) -> list[str]:
    return [json.loads(text)[0]["content"] for text in row["responses"]]


def ingested(tmp_path: Path, n: int = 3) -> None:
    lines = [{"prompt": f"p{i}", "chosen": f"given good {i}", "rejected": f"given bad {i}"} for i in range(n)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    cli.call("ingest", [str(path), "--name", "pairs", "--json"])


def made_rows(ref: str) -> list[dict[str, Any]]:
    with open_warehouse(read_only=True) as connection:
        return version_frame(connection, resolve(connection, ref), votes=True).to_dicts()


def test_distinct_replies_join_the_given_responses_and_the_label_goes(home: Path, server: ScriptedEndpoint) -> None:
    options = settings(server)
    options.pop("use")
    result = apply("generate", frame([pair("p0", "given good", "given bad")]), **options)
    [row] = result.kept.to_dicts()
    assert texts(row)[2:] == ["word word p0", "word word word word word p0", "word word word word word word p0"]
    assert sorted(texts(row)[:2]) == ["given bad", "given good"]
    assert (row["kind"], row["p"], row["ranks"], row["votes"]) == ("list", None, None, [])
    assert row["generators"] == [None, None, *[result.facts["author"]] * 3]
    assert row["parent_order"] == [0, 1, -1, -1, -1]
    assert result.facts["replies"] == 3
    assert sum(result.facts["failed"].values()) == 2


def test_generate_score_binarize_is_a_recipe_whose_version_names_every_author(
    home: Path, tmp_path: Path, server: ScriptedEndpoint
) -> None:
    ingested(tmp_path)
    steps = [settings(server), {"use": "score", "model": "length", "label": True}, {"use": "binarize"}]
    recipe = parse_recipe({"recipe": {"name": "chain"}, "step": steps}, where="test")
    made = run_recipe(recipe, "pairs")
    asked = server.n_requests
    rows = made_rows(made["version"])
    assert len(rows) == 3
    for row in rows:
        better = 0 if row["p"] == [1.0, 0.0] else 1
        number = json.loads(row["prompt"])[0]["content"]
        assert texts(row)[better] == f"word word word word word word {number}"
        assert row["generators"][better] == made["steps"][0]["facts"]["author"]
        assert row["generators"][1 - better] is None
    cached = run_recipe(recipe, "pairs@v1", out="again")
    assert cached["digest"] == made["digest"]
    assert {body.get("seed") for body in server.bodies[asked:]} == {0, 8}  # what failed, and the probe
    whole = run_recipe(parse_recipe({"recipe": {"name": "g"}, "step": [settings(server)]}, where="test"), "pairs@v1")
    for row in made_rows(whole["version"]):
        authors = dict(zip(texts(row), row["generators"], strict=True))
        assert {text for text, who in authors.items() if who is None} == {text for text in authors if "given" in text}
        [vote] = row["votes"]  # people's vote follows its two responses; the others are unranked
        ranked = {text: rank for text, rank in zip(texts(row), vote["ranks"], strict=True) if rank is not None}
        assert sorted((text.split()[1], rank) for text, rank in ranked.items()) == [("bad", 1), ("good", 0)]


def test_new_responses_alone_make_one_row_a_prompt(home: Path, server: ScriptedEndpoint) -> None:
    options = settings(server, keep_given=False)
    options.pop("use")
    result = apply("generate", frame([pair("p", "a", "b"), pair("p", "c", "d"), pair("q", "a", "b")]), **options)
    assert [json.loads(row["prompt"])[0]["content"] for row in result.kept.to_dicts()] == ["p", "q"]
    assert all("word" in text for row in result.kept.to_dicts() for text in texts(row))
    assert result.dropped["reason"].to_list() == ["its prompt was sampled for another row"]


def test_a_prompt_without_any_reply_is_dropped_with_the_reason(home: Path) -> None:
    def refusing(asked: dict[str, Any]) -> Reply:
        return Reply(status=400, text="never") if asked["messages"][-1]["content"] == "bad" else Reply(text="fine")

    with ScriptedEndpoint(refusing) as endpoint:
        options = settings(endpoint, samples=1)
        options.pop("use")
        result = apply("generate", frame([pair("bad", "a", "b"), pair("good", "a", "b")]), **options)
    assert result.dropped["reason"].to_list() == ["no reply could be generated"]
    assert "refused" in result.dropped["evidence"].to_list()[0]
    assert len(result.kept) == 1


def test_faults_are_told_in_one_line_and_what_was_paid_is_kept(home: Path, server: ScriptedEndpoint) -> None:
    options = settings(server, generator={"prompt_price": 1000.0, "completion_price": 1000.0}, max_usd=0.2)
    options.pop("use")
    rows = frame([pair(f"p{number}", "a", "b") for number in range(4)])
    with pytest.raises(DataError, match=r"those made are kept: raise max_usd"):
        apply("generate", rows, **options)
    with pytest.raises(ConfigError, match="5 samples at temperature 0 are one reply"):
        apply("generate", rows, **options | {"temperature": 0.0})
    with pytest.raises(ConfigError, match=r"generator: unknown key 'modle'; did you mean 'model'"):
        apply("generate", rows, generator={"modle": "m"})
    with pytest.raises(EndpointError, match="does not answer"):
        apply("generate", rows, generator={"model": "m", "base_url": "http://127.0.0.1:9/v1", "attempts": 1})


def test_a_local_model_samples_the_same_replies_again(home: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from evaluation.denoise.fine_tuned import causal_model

    torch.set_num_threads(1)
    causal_model(tmp_path / "tiny", hidden=32, seed=0)
    generator = {"model": str(tmp_path / "tiny"), "backend": "local"}
    options = {"generator": generator, "samples": 3, "temperature": 1.0, "max_tokens": 8}
    first = apply("generate", frame([pair("say it", "a", "b")]), **options)
    [row] = first.kept.to_dicts()
    assert len(texts(row)) == 5
    assert row["generators"][2].startswith("local:tiny:")
    (home / "ledger.sqlite").unlink()
    assert apply("generate", frame([pair("say it", "a", "b")]), **options).kept.equals(first.kept)
