"""Training judges with TRL: the both-order reward, the order of GRPO's rows, and the three stages on a tiny model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
torch = pytest.importorskip("torch")

from data_pipelines.judge.data.folder import Built, read_folder, write_folder  # noqa: E402
from data_pipelines.judge.training.command import FACTS, train  # noqa: E402
from data_pipelines.judge.training.config import JudgeTrainingConfig  # noqa: E402
from data_pipelines.judge.training.reward import BothOrders, consistency, is_right  # noqa: E402
from data_pipelines.judge.training.trainers import together, trainer_of, usable  # noqa: E402
from evaluation.benchmarks.judge_training import (  # noqa: E402
    admission,
    page,
)
from evaluation.benchmarks.judge_training import recycled_rollouts as spark  # noqa: E402
from evaluation.benchmarks.judge_training import run as bench  # noqa: E402
from evaluation.benchmarks.judge_training.synthetic_task import made_world, words_of, write_base, write_judge  # noqa: E402
from rmkit.cli import main as cli  # noqa: E402
from rmkit.errors import ConfigError, DataError, ModelError, UsageError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rubrics.rubric_rm import WRITER_PROMPT  # noqa: E402


@pytest.mark.parametrize(
    ("text", "verdict", "expected"),
    [
        ("Verdict: A", "A", True),
        ("Verdict: A", "B", False),
        ("Verdict: A\nVerdict: B", "B", True),
        ("A is better", "A", False),
        ("Verdict: A or B", "A", False),
        ("Verdict: yes", "yes", True),
        ("Verdict: yes", "no", False),
    ],
)
def test_a_reply_is_right_by_its_last_verdict(text: str, verdict: str, expected: bool) -> None:
    assert is_right(text, verdict) is expected
    assert not is_right(text, verdict, complete=False)


def test_twins_are_rewarded_together() -> None:
    ids, orders = ["x"] * 6 + ["y", "z"], [[0, 1]] * 3 + [[1, 0]] * 3 + [[0, 1], [1, 0]]
    right = [True, True, False, True, False, False, True, False]
    assert consistency(right, ids, orders) == [1, 0, 0, 1, 0, 0, 1, 0]
    with pytest.raises(UsageError, match="both orders in one batch"):
        consistency(right[:5], ids[:5], orders[:5])


def test_the_reward_refuses_a_batch_that_tears_the_orders_apart() -> None:
    rows: dict[str, Any] = {"id": ["x", "x"], "order": [[0, 1], [0, 1]], "paired": [True, True], "verdict": ["A", "A"]}
    with pytest.raises(UsageError, match="one order in this batch only"):
        BothOrders([1])(completions=["Verdict: A"] * 2, completion_ids=[[1], [1]], **rows)
    alone = rows | {"paired": [False, False]}
    assert BothOrders([1])(completions=["Verdict: A"] * 2, completion_ids=[[1], [2]], **alone) == [1.0, 0.0]


def grpo_rows(pairs: int, singles: int) -> list[dict[str, Any]]:
    both = [
        {"prompt": [], "id": f"p{at}", "order": order, "verdict": "A"}
        for at in range(pairs)
        for order in ([0, 1], [1, 0])
    ]
    return both + [{"prompt": [], "id": f"s{at}", "order": [0, 1], "verdict": "yes"} for at in range(singles)]


def test_the_two_orders_stay_side_by_side_at_even_places_in_every_epoch() -> None:
    found = together(grpo_rows(7, 5), epochs=3, seed=0)
    assert len(found) == 3 * (14 + 4)  # an odd single is left out, so that nothing shifts
    for one, other in pairwise(found):
        if one["paired"] and one["order"] == [0, 1]:
            assert (other["id"], other["order"]) == (one["id"], [1, 0])
    assert all(found[at]["id"] == found[at + 1]["id"] for at in range(0, len(found), 2) if found[at]["paired"])
    epochs = [[row["id"] for row in found[at : at + 18]] for at in (0, 18, 36)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert together(grpo_rows(7, 5), epochs=3, seed=0) == found
    assert len(together(grpo_rows(8, 0), epochs=0.5, seed=0)) == 8


@pytest.mark.parametrize(
    ("values", "stage", "message"),
    [
        ({"beta": 0}, "dpo", "beta must be above 0"),
        ({"generations": 1}, "grpo", "generations must be at least 2"),
        ({"rows_at_once": 5}, "sft", "must divide the 16"),
        ({"global_batch_size": 3, "rows_at_once": 5}, "grpo", "both orders together"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], stage: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JudgeTrainingConfig(**values).at_once(stage)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model (base), a judge's TOML (asked) and data of each stage."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    write_base(folder / "base", seed=0, hidden=16)
    toml = write_judge(folder / "asked")
    prompt = [{"role": "user", "content": "A near amber B under birch"}]
    rows = [
        {"id": f"i{at}", "order": [at % 2, 1 - at % 2], "verdict": "AB"[at % 2], "prompt": prompt} for at in range(8)
    ]
    right, wrong = ([{"role": "assistant", "content": f"Verdict: {letter}"}] for letter in "AB")
    sft = [row | {"completion": right} for row in rows]
    dpo = [row | {"chosen": right, "rejected": wrong} for row in rows]
    twins = [rows[at] | {"id": f"i{at // 2}"} for at in range(8)]
    for name, data in {"sft": sft, "dpo": dpo, "orders": twins}.items():
        write_folder(folder / name, Built(data, [], {}), judge=toml, stage=name, dataset={"ref": "made@v1"})
    return folder


QUICK: dict[str, Any] = {"max_length": 60, "reply_tokens": 4, "precision": "fp32", "global_batch_size": 4, "steps": 2}


@pytest.mark.parametrize(
    ("stage", "data"), [("sft", "sft"), pytest.param("dpo", "dpo", marks=pytest.mark.slow), ("grpo", "orders")]
)
def test_every_stage_gives_a_judge_that_loads_and_names_its_data(
    tiny: Path, tmp_path: Path, home: Path, stage: Any, data: str
) -> None:
    settings = JudgeTrainingConfig(**QUICK, generations=2, learning_rate=1e-2)
    result = train(stage, tiny / data, base=str(tiny / "base"), output=tmp_path / "judge", settings=settings)
    assert result["steps"] == 2
    facts = json.loads((tmp_path / "judge" / FACTS).read_text())
    assert facts["data"]["digest"] == read_folder(tiny / data)["digest"]
    assert facts["data"]["dataset"] == {"ref": "made@v1"}
    assert len(facts["base"]["sha256"]) == 64
    assert stage == "grpo" or result["sha256"] != facts["base"]["sha256"]  # no reward yet, so GRPO may stand still
    judge = load_model(tmp_path / "judge" / "judge.toml")
    assert judge.info.kind == "generative"
    world = made_world(0)
    [said] = judge.compare([world.train[0].candidates])
    assert said.unscored or 0 <= said.p_first <= 1
    with pytest.raises(UsageError, match="exists already"):
        train(stage, tiny / data, base=str(tiny / "base"), output=tmp_path / "judge", settings=settings)


def test_model_prompt_and_toml_move_together(tiny: Path, tmp_path: Path, home: Path) -> None:
    train("sft", tiny / "sft", base=str(tiny / "base"), output=tmp_path / "a", settings=JudgeTrainingConfig(**QUICK))
    (tmp_path / "b").mkdir()
    (tmp_path / "a").rename(tmp_path / "b" / "a")
    assert load_model(tmp_path / "b" / "a" / "judge.toml").info.kind == "generative"


def test_adapters_are_merged_into_the_stored_weights(tiny: Path, tmp_path: Path) -> None:
    settings = JudgeTrainingConfig(**QUICK, learning_rate=1e-2, lora_rank=2)
    result = train("sft", tiny / "sft", base=str(tiny / "base"), output=tmp_path / "judge", settings=settings)
    assert result["sha256"] != result["base"]["sha256"]
    assert not list((tmp_path / "judge").glob("adapter*"))


def test_sft_learns_the_reply_alone_and_dpo_adds_the_chosen_nll(tiny: Path, tmp_path: Path) -> None:
    """The first losses against the same model's own log-probabilities: 0.2 x NLL per chosen token beside log 2."""
    import transformers

    from data_pipelines.judge.data.folder import read_lines

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny / "base")
    [row, *_] = read_lines(tiny / "dpo" / "data.jsonl")
    with torch.no_grad():
        ids = tokenizer.apply_chat_template([*row["prompt"], *row["chosen"]], return_dict=False, return_tensors="pt")
        start = len(
            tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False, tokenize=True)
        )
        logprobs = torch.log_softmax(model(ids).logits[0, :-1].float(), -1).gather(1, ids[0, 1:, None])[:, 0]
        nll = -logprobs[start - 1 :].mean().item()
    settings = JudgeTrainingConfig(**QUICK, nll_weight=0.2)
    first = {
        stage: train(stage, tiny / stage, base=str(tiny / "base"), output=tmp_path / stage, settings=settings)["log"][0]
        for stage in ("sft", "dpo")
    }
    assert first["sft"]["loss"] == pytest.approx(nll, abs=2e-4)
    assert first["dpo"]["loss"] == pytest.approx(math.log(2) + 0.2 * nll, abs=2e-4)


def test_rows_that_cannot_be_used_are_counted_and_long_ones_never_cut(tiny: Path, tmp_path: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / "base")
    turn = [{"role": "user", "content": "near"}]
    long = [{"role": "assistant", "content": "near " * 60}]
    rows = [{"prompt": turn, "completion": turn}, {"prompt": turn, "completion": long}, {"prompt": turn}]
    config = JudgeTrainingConfig(**QUICK)
    kept, dropped = usable(rows, "sft", tokenizer=tokenizer, config=config)
    assert (kept, dropped) == (rows[:1], {"longer than max_length": 1, "no completion": 1})
    with pytest.raises(DataError, match="no row can train the stage dpo"):
        train("dpo", tiny / "sft", base=str(tiny / "base"), output=tmp_path / "x", settings=config)
    assert not (tmp_path / "x").exists()


def test_a_base_that_is_no_chat_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no tokenizer that can be loaded"):
        train("sft", tiny / "sft", base=str(tmp_path / "empty"), output=tmp_path / "x", settings=JudgeTrainingConfig())


def test_the_command_trains_by_name(tiny: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sft.toml").write_text("steps = 1\nmax_length = 60\nglobal_batch_size = 4\n")
    data = ["judge", "--stage", "sft", "--data", str(tiny / "sft"), "--base", str(tiny / "base")]
    asked = [*data, "-o", str(tmp_path / "judge"), "--config", str(tmp_path / "sft.toml"), "--seed", "3", "--json"]
    status = cli.call("train", asked)
    told = json.loads(capsys.readouterr().out)
    assert (status, told["settings"]["seed"], told["steps"]) == (0, 3, 1)
    (tmp_path / "sft.toml").write_text("stepz = 1\n")
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        cli.call("train", asked)


@pytest.mark.parametrize(("guess", "orders"), admission.EXPECTED)
def test_the_lucky_share_of_admitted_rows_is_what_probability_says(guess: str, orders: str) -> None:
    found = admission.measured(600, guess, orders)
    assert found["standard_errors"] < 3
    assert found["expected"] == {("coin", "both"): 1 / 7, ("first slot", "both"): 0}.get((guess, orders), 1 / 4)


def test_the_world_holds_pairs_out_and_the_teacher_knows_sixty_per_cent() -> None:
    world = made_world(3)
    seen = {words_of(item.candidates) for item in world.train}
    assert not seen & {words_of(item.candidates) for item in world.held_out}
    assert sum(map(world.knows, world.train)) == 240
    assert len(seen & {w for w in seen if w <= world.known}) > 60
    assert 0.4 < sum(item.better for item in world.train) / 400 < 0.6
    permuted = made_world(3, permuted=True)
    assert [item.candidates for item in permuted.train] == [item.candidates for item in world.train]
    assert sum(item.better for item in permuted.train) == sum(item.better for item in world.train)
    assert permuted.held_out == world.held_out


def curves(values: Sequence[float]) -> dict[str, Any]:
    return {name: {"both_orders": values[0], "one_order": values[1]} for name in ("all", "taught", "untaught")}


def test_the_page_tells_both_tables(tmp_path: Path) -> None:
    stages = {"untrained": curves([0, 0]), "sft": curves([0.6, 0.8]), "dpo": curves([1, 1])}
    grpo = curves([0.9, 0.95]) | {"reward": [0.25] * 5 + [1.0] * 5, "right_share": [0.5] * 10, "steps": 10}
    runs = [
        {"seed": seed, "permuted": permuted, "held_out": 50, "seconds": 9.0, "stages": stages}
        | ({} if permuted else {"stages": stages | {"grpo": grpo}})
        for seed in range(2)
        for permuted in (False, True)
    ]
    recycled = [
        {"seed": seed, "rows": {"pairwise": 170, "pointwise": 230}, "right_first": 0.5, "yes_no": 0.9 + seed / 20}
        | {"one_order": 0.9, "both_orders": 0.8}
        for seed in range(2)
    ]
    lucky = [admission.measured(50, "first slot", "both")]
    result = {"items": 400, "runs": runs, "admission": lucky, "spark": recycled}
    page.write(tmp_path / "judge_training.md", result, argv=["--seeds", "2"])
    text = (tmp_path / "judge_training.md").read_text()
    assert "| true | SFT | 60.0 (60 to 60)" in text
    assert "| permuted | SFT, then DPO | 100.0" in text
    assert "| yes or no, one rollout | 92.5 (90 to 95)" in text
    assert "With permuted labels, one order: 100.0" in text
    assert "both-order reward 0.25 in the first five of 10 steps, 1.00 in the last five" in text
    assert (tmp_path / "judge_training.png").stat().st_size > 5000


def test_a_rubric_writer_is_trained_like_a_judge_and_serves_as_one_half_of_a_model(
    tiny: Path, tmp_path: Path, home: Path
) -> None:
    rows = [
        {
            "id": "i",
            "prompt": [{"role": "user", "content": "near"}],
            "completion": [{"role": "assistant", "content": "amber"}],
        }
    ]
    data = tmp_path / "writer-data"
    write_folder(
        data, Built(rows * 4, [], {}), judge=tiny / "asked" / "judge.toml", prompt=WRITER_PROMPT, stage="rubrics"
    )
    result = train(
        "sft", data, base=str(tiny / "base"), output=tmp_path / "writer", settings=JudgeTrainingConfig(**QUICK)
    )
    assert result["judge"] is None
    assert not (tmp_path / "writer" / "judge.toml").exists()
    toml = tmp_path / "judge.toml"
    text = (tiny / "asked" / "judge.toml").read_text().replace('prompt = "prompt.jinja"\n', "")
    toml.write_text(text + '\n[writer]\nbackend = "local"\nmodel = "writer"\n')
    model = load_model(toml)
    [answer] = model.compare([made_world(0).train[0].candidates])
    assert str(answer.unscored).startswith("no rubric: ")  # two steps teach nothing, but it was asked


@pytest.mark.slow
def test_sft_then_dpo_learn_the_planted_preference_and_permuted_labels_teach_nothing(tmp_path: Path) -> None:
    true = bench.one_seed(tmp_path / "true", 0)["stages"]
    assert true["untrained"]["all"]["both_orders"] == 0
    assert true["sft"]["untaught"]["both_orders"] < 0.7
    assert true["dpo"]["all"]["both_orders"] >= 0.9
    assert true["grpo"]["steps"] >= 30
    reward = true["grpo"]["reward"]
    assert sum(reward[-5:]) > sum(reward[:5]) + 1
    permuted = bench.one_seed(tmp_path / "permuted", 0, permuted=True)["stages"]
    assert 0.3 < permuted["dpo"]["all"]["one_order"] < 0.7


@pytest.mark.slow
def test_a_judge_trained_on_recycled_rollouts_beats_the_prior(tmp_path: Path) -> None:
    found = spark.one_seed(tmp_path, 1, settings=bench.SFT)
    assert 0.48 < found["right_first"] < 0.52
    assert found["yes_no"] > 0.75
    assert found["one_order"] > 0.75
    assert found["both_orders"] > 0.6


def test_trainer_of_is_what_the_stage_says(tiny: Path, tmp_path: Path) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / "base")
    turn = [{"role": "user", "content": "near"}]
    rows = [{"prompt": turn, "chosen": turn, "rejected": turn}]
    made = trainer_of("dpo", model, tokenizer, rows, config=JudgeTrainingConfig(**QUICK, beta=0.3), run=tmp_path)
    assert (made.args.beta, made.args.loss_weights) == (0.3, [1.0, 0.2])
