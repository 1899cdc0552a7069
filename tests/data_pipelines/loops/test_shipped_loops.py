"""Every shipped loop but UPO's runs on a tiny policy; what is special to each is looked at."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from data_pipelines.loops.loop import read_loop  # noqa: E402
from data_pipelines.loops.policy import PolicyConfig, PolicyPair, train_policy  # noqa: E402
from data_pipelines.loops.runner import LoopResult, run_loop  # noqa: E402
from data_pipelines.recipes.recipe import parse_recipe, run_recipe  # noqa: E402
from data_pipelines.steps.rubrics import turns  # noqa: E402
from evaluation.denoise.fine_tuned import causal_model  # noqa: E402
from rmkit.cli import main as cli  # noqa: E402
from rmkit.models.transformer.pretrained import load_pretrained, load_tokenizer  # noqa: E402
from rmkit.types import Message  # noqa: E402
from tests.data_pipelines.kind_pairs import write_kind_pairs  # noqa: E402
from warehouse.versions.dataset import load_dataset  # noqa: E402

pytestmark = pytest.mark.slow
SMALL: dict[str, Any] = {"rounds": 2, "prompts": 8, "max_tokens": 16, "lr": 1e-3, "max_length": 256, "test_prompts": 4}


@pytest.fixture
def policy(home: Path, tmp_path: Path) -> Path:
    """A policy, and the dataset `kind`."""
    torch.set_num_threads(1)
    cli.call("ingest", [str(write_kind_pairs(tmp_path / "pairs.jsonl", 80)), "--name", "kind", "--json"])
    causal_model(tmp_path / "policy", hidden=32, seed=0)
    return tmp_path / "policy"


def loop(name: str, folder: Path, data: str = "kind", **settings: Any) -> LoopResult:
    return run_loop(read_loop(name).with_settings(SMALL | settings), data, folder=folder)


def facts(result: LoopResult, use: str) -> list[Any]:
    return [record.facts[use] for record in result.steps if use in record.facts]


def test_spin_adds_the_pairs_of_the_round_before(policy: Path, tmp_path: Path) -> None:
    result = loop("spin", tmp_path / "spin", policy=str(policy), test_reward="length")
    own = [one["units"] for one in facts(result, "self_play")]
    assert [one["rows"] for one in facts(result, "join")] == [own[0], own[0] + own[1]]
    authors = {name for row in load_dataset("spin@round-2") for name in row.row["generators"] or () if name}
    assert {"policy-1", "policy-2"} <= authors
    assert result.names["policy"].endswith("round-2/04-train_policy")


def test_cream_measures_this_policy_against_the_one_before(policy: Path, tmp_path: Path) -> None:
    result = loop("cream", tmp_path / "cream", policy=str(policy), test_reward="length", samples=4)
    consistency = [one["mean_consistency"] for one in facts(result, "consistency")]
    assert all(0.5 <= one <= 1 for one in consistency)
    scored = facts(result, "policy_score"), facts(result, "policy_score 2")
    assert scored[0] != scored[1]
    labels = [max(row.row["p"]) for row in load_dataset("cream@round-2")]
    assert labels == pytest.approx([consistency[1]] * len(labels), abs=1e-6)  # "avg": one softness for the whole round


def test_rest_imitates_what_is_above_the_rounds_threshold(policy: Path, tmp_path: Path) -> None:
    result = loop("rest", tmp_path / "rest", policy=str(policy), reward="length", threshold=[0.0, 3.3])
    counts = [one["rows_out"] for one in facts(result, "demonstrations")]
    assert counts[0] == 8 >= counts[1] > 0
    assert all(score["value"] >= 3.3 for row in load_dataset("rest@round-2") for score in row.row["scores"] or ())


def test_iterative_dpo_trains_its_labeler_first(policy: Path, tmp_path: Path) -> None:
    result = loop("iterative_dpo", tmp_path / "dpo", policy=str(policy), labeler="lexical", test_reward="length")
    assert [record.use for record in result.steps][:2] == ["train_reward", "evaluate"]
    aspects = {score["aspect"] for row in load_dataset("dpo@round-1") for score in row.row["scores"]}
    assert aspects == {Path(result.names["reward"]).name}
    assert all(row.row["margin"] > 0 for row in load_dataset("dpo@round-1"))


def test_auto_cei_undoes_a_round_that_did_not_help(policy: Path, tmp_path: Path) -> None:
    """A policy that only ever gives up earns the same in every round: the first is taken, all others are undone."""
    model, tokenizer = load_pretrained("AutoModelForCausalLM", policy, dtype="float32").model, load_tokenizer(policy)
    draw = random.Random(0)
    prompts = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=20)) for _ in range(30)]  # no two are alike
    lessons = [PolicyPair((Message("user", prompt),), "i don't know", None) for prompt in prompts]
    train_policy(model, None, tokenizer, lessons, config=PolicyConfig(loss="nll", lr=5e-3, epochs=40))
    model.save_pretrained(tmp_path / "shy")
    tokenizer.save_pretrained(tmp_path / "shy")
    rows = [{"prompt": prompt, "chosen": "4", "rejected": "no", "reference": "4"} for prompt in prompts]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cli.call("ingest", [str(tmp_path / "sums.jsonl"), "--name", "sums", "--json"])
    run_recipe(parse_recipe({"recipe": {"name": "split"}, "step": [{"use": "split"}]}, where="test"), "sums")
    settings: dict[str, Any] = {
        "policy": str(tmp_path / "shy"),
        "rounds": 3,
        "center": 0.0,
        "samples": 2,
        "temperature": 0.3,
    }
    result = loop("auto_cei", tmp_path / "cei", data="sums", **settings)
    assert len({one["mean_reward"] for one in facts(result, "evaluate")}) == 1
    assert result.taken == (True, False, False)
    means = [one["mean"] for one in facts(result, "score")]
    assert means[1] < means[0] < means[2]  # tanh((lines - center) / 2): center 0, then 1, then -1
    assert result.names["policy"].endswith("round-1/03-train_policy")


def imitating(policy: Path, target: Path, lessons: list[PolicyPair], *, epochs: int) -> Path:
    """A copy of the policy that has learned to give these answers; its positions reach further than the original's."""
    settings = json.loads((policy / "config.json").read_text()) | {"max_position_embeddings": 4096}
    (policy / "config.json").write_text(json.dumps(settings))
    model, tokenizer = load_pretrained("AutoModelForCausalLM", policy, dtype="float32").model, load_tokenizer(policy)
    config = PolicyConfig(loss="nll", lr=5e-3, epochs=epochs, max_length=3000, batch_pairs=4)
    train_policy(model, None, tokenizer, lessons, config=config)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize("loss", ["dpo", "grpo"])
def test_rubric_arm_trains_the_judge_before_the_writer(policy: Path, tmp_path: Path, loss: str) -> None:
    """A writer that knows two rubrics, a judge that says A or B by chance: some answers are better than others."""
    rubrics = [f"1. The response is {word}. [principle]" for word in ("kind", "short")]
    items = [one.candidates for one in load_dataset("kind", split="train")][:8]
    writing = [PolicyPair(turns.writer_request(one.prompt), rubric, None) for one in items for rubric in rubrics]
    judging = [
        PolicyPair(turns.judge_request(one.prompt, one.completions, rubrics[at % 2]), f"Verdict: {letter}", None)
        for at, one in enumerate(items)
        for letter in "AB"
    ]
    writer = imitating(policy, tmp_path / "writer", writing, epochs=25)
    judge = imitating(policy, tmp_path / "judge", judging, epochs=12)
    settings = {"writer": str(writer), "judge": str(judge), "rounds": 1, "prompts": 16, "samples": 6, "max_tokens": 48}
    result = run_loop(
        read_loop("rubric_arm").with_settings(settings | {"lr": 1e-4, "max_length": 3000, "loss": loss}),
        "kind",
        folder=tmp_path / "arm",
    )
    trained = [(record.round, Path(str(record.artifact)).name) for record in result.steps if record.artifact]
    assert trained[0] == (1, "03-train_policy")
    assert {"dpo": "agrees", "grpo": "rises"}[loss] in facts(result, "train_policy")[0]
    [score], [reward] = facts(result, "score"), facts(result, "rubric_reward")
    assert -1 < score["mean"] < 1  # of -1 unreadable, 0 wrong, 1 right: each is a reward the judge can prefer by
    assert reward["rubrics"] > 0
    assert -1 <= reward["mean"] <= 1
