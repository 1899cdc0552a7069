"""Training end to end on a tiny model: data, steps, resume, adapters, faults, artifact."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from rmkit.chat.encode import Chat, TruncationPolicy  # noqa: E402
from rmkit.cli import main as cli  # noqa: E402
from rmkit.data.example import EXAMPLE_SCHEMA, Example, read_examples  # noqa: E402
from rmkit.data.export_folder import dataset_of  # noqa: E402
from rmkit.errors import ConfigError, DataError, ModelError, UsageError  # noqa: E402
from rmkit.ids import assistant_message, user_message  # noqa: E402
from rmkit.losses.bradley_terry import bradley_terry  # noqa: E402
from rmkit.losses.plackett_luce import plackett_luce  # noqa: E402
from rmkit.losses.ties import davidson  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.training import explicit  # noqa: E402
from rmkit.training.config import ExplicitConfig, TrainingConfig, training_config  # noqa: E402
from rmkit.training.data import read_rows  # noqa: E402
from rmkit.training.kinds.explicit import build  # noqa: E402
from rmkit.training.objectives.bradley_terry import BradleyTerry  # noqa: E402
from rmkit.training.objectives.objective import RunState  # noqa: E402
from rmkit.training.objectives.rankings import PRO, PlackettLuce  # noqa: E402
from rmkit.training.objectives.soft_label import SoftLabel  # noqa: E402
from rmkit.training.objectives.ties import Ties  # noqa: E402
from rmkit.training.rows import (  # noqa: E402
    Preference,
    TrainingRow,
)
from rmkit.training.run import arguments as trainer_arguments  # noqa: E402
from rmkit.training.trainer import RewardTrainer, row_losses, validate  # noqa: E402
from rmkit.types import Candidates, Completion, Message  # noqa: E402

Make = Callable[..., Any]
WORDS = ["the", "quick", "brown", "fox", "sky", "is", "not", "step", "2", "+", "="]


def example(number: int, responses: list[str], **columns: Any) -> dict[str, Any]:
    row = dict.fromkeys(EXAMPLE_SCHEMA.names)
    row |= {"id": f"row{number:04d}", "unit": f"u{number}", "kind": "pair", "source": "test", "family": number % 40}
    row |= {
        "prompt": user_message(f"Is the sky blue {number}?"),
        "responses": [assistant_message(r) for r in responses],
    }
    return row | columns


def sample(n: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs in which the answer that says yes is the better one."""
    draw = random.Random(seed)
    rows = []
    for number in range(n):
        good, bad = (
            " ".join([*draw.choices(WORDS, k=draw.randint(1, 6)), word, *draw.choices(WORDS, k=draw.randint(0, 6))])
            for word in ("Yes", "No")
        )
        first = draw.random() < 0.5
        split = "train" if number % 5 else "validation"
        rows.append(
            example(number, [good, bad] if first else [bad, good], p=[float(first), float(not first)], split=split)
        )
    return rows


def export(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), folder / "rows.parquet")
    manifest = {"files": {"rows.parquet": {}}, "ref": "yes@v1", "digest": "d" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Make, chatml: str) -> Callable[[str], str]:
    """Checkpoints as people have them: a causal model whose tokenizer pads with EOS, an encoder without a template."""
    torch.set_num_threads(1)
    made: dict[str, str] = {}

    def make(family: str) -> str:
        if family in made:
            return made[family]
        import transformers as hf

        torch.manual_seed(1)
        folder = tmp_path_factory.mktemp(family)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        if family == "llama":
            tokenizer = make_tokenizer(chatml, pad="<|im_end|>", adds_bos=True)
            config = hf.LlamaConfig(vocab_size=len(tokenizer), attention_dropout=0.1, **shape)
            hf.LlamaForCausalLM(config).save_pretrained(folder)
        else:
            tokenizer = make_tokenizer(None, adds_bos=True, adds_eos=True)
            config = hf.BertConfig(vocab_size=len(tokenizer), **shape)
            hf.BertModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[family] = str(folder)
        return made[family]

    return make


def settings(model: str, **more: Any) -> TrainingConfig:
    quick = {
        "learning_rate": 3e-3,
        "num_train_epochs": 2.0,
        "global_batch_size": 16,
        "max_batch_tokens": 600,
        "max_length": 200,
    }
    return training_config("explicit", model=model, **{**quick, "response_reserve_tokens": 100, **more})


def as_toml(config: TrainingConfig) -> str:
    """The settings as a file of --config."""
    return "".join(f"{key} = {json.dumps(one)}\n" for key, one in config.as_json().items() if one is not None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("data") / "yes", sample(120))


def pair_item(first: str, second: str) -> Candidates:
    answers = tuple(Completion((Message("assistant", text),)) for text in (first, second))
    return Candidates((Message("user", "Is the sky blue 7?"),), answers)


@pytest.mark.parametrize("family", ["llama", pytest.param("bert", marks=pytest.mark.slow)])
def test_train_learns_and_leaves_a_verified_artifact(
    base_model: Make, data: Path, home: Path, family: str, tmp_path: Path
) -> None:
    chosen = settings(base_model(family), num_train_epochs=4.0 if family == "llama" else 6.0, global_batch_size=8)
    result = explicit.train(str(data), chosen, output=tmp_path / "model")
    assert result["validation"]["accuracy"]["value"] > 0.9
    assert result["validation"]["accuracy"]["interval"]["low"] > 0.7
    assert result["training"]["rows"] == {"train": 96, "validation": 24}
    assert result["training"]["truncated"] == {"train": 0, "validation": 0}
    assert result["training"]["loading"]["head"].startswith("new")
    assert result["training"]["loss"][-1] < 0.4 < result["training"]["loss"][0]
    assert (result["training"]["padded_because"] is None) == (family == "llama")
    model = load_model(result["path"])
    assert model.info.fingerprint == result["fingerprint"]
    [[yes, no]] = model.score([pair_item("the Yes sky is", "the No sky is")])
    assert yes.value > no.value + 1
    card = json.loads((tmp_path / "model" / "reward_model.json").read_text())
    assert card["training"]["settings"] == json.loads(json.dumps(chosen.as_json()))
    assert card["dataset"] == dataset_of(data)
    assert not (home / "runs" / "explicit-model").exists()


def test_the_command_line(base_model: Make, data: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = home.parent / "explicit.toml"
    toml.write_text("num_train_epochs = 1\nglobal_batch_size = 32\nmax_length = 200\nresponse_reserve_tokens = 100\n")
    arguments = ["explicit", "--data", str(data), "--model", base_model("llama"), "--config", str(toml)]
    status = cli.call("train", [*arguments, "--set", "learning_rate=1e-3", "--set", "objective=focal", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert status == 0
    assert result["path"].endswith("models/yes-v1-explicit")
    assert result["training"]["settings"]["objective"] == "focal"
    assert result["training"]["settings"]["learning_rate"] == 1e-3
    assert len(result["training"]["loss"]) == result["training"]["steps"] == 3
    with pytest.raises(ConfigError, match="did you mean 'num_train_epochs'"):
        explicit.main([*arguments[1:], "--set", "num_train_epoch=1"])
    with pytest.raises(UsageError, match="KEY=VALUE"):
        explicit.main([*arguments[1:], "--set", "num_train_epochs"])


@pytest.mark.parametrize("kind", ["explicit", "process", "implicit"])
def test_a_missing_model_is_told_under_the_commands_own_name(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"train {kind}.*model"):
        explicit.main(["--data", "hh@v2"], kind=kind)


def make_trainer(
    config: TrainingConfig, data: Path, run: Path, **more: Any
) -> tuple[RewardTrainer, dict[str, list[TrainingRow]]]:
    module, chat = build(config)
    rows = {
        split: read_rows(read_examples(data, split=split), chat, objective=config.objective)[0]
        for split in ("train", "validation")
    }
    arguments = trainer_arguments(config, n_rows=len(rows["train"]), run=run)
    for name, value in more.items():
        setattr(arguments, name, value)
    return RewardTrainer(module, arguments, config=config, rows=rows["train"], validation=rows["validation"]), rows


def logged(trainer: RewardTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_resumed_run_is_the_unbroken_one(base_model: Make, data: Path, tmp_path: Path, lora_rank: int) -> None:
    # dropout: the RNG must come back too
    config = settings(base_model("llama"), dropout=True, evaluations_per_epoch=2, lora_rank=lora_rank)
    whole, _ = make_trainer(config, data, tmp_path / "whole")
    whole.train()
    broken, _ = make_trainer(config, data, tmp_path / "broken")
    step = broken.training_step

    def killed(*arguments: Any, **named: Any) -> Any:
        if broken.state.global_step == 8:
            raise RuntimeError("killed")
        return step(*arguments, **named)

    broken.training_step = killed
    with pytest.raises(RuntimeError, match="killed"):
        broken.train()
    stored = load_file(tmp_path / "broken" / "checkpoint-6" / "model.safetensors")
    trained = {name for name, weight in broken.model.named_parameters() if weight.requires_grad}
    assert stored.keys() == trained  # under LoRA adapters and head, everything else comes from the base
    assert (len(trained) < len(broken.model.state_dict())) == bool(lora_rank)
    again, _ = make_trainer(config, data, tmp_path / "broken")
    step, taken = again.training_step, []
    again.training_step = lambda *a, **k: taken.append(again.state.global_step) or step(*a, **k)
    again.train(resume_from_checkpoint=True)
    assert taken == list(range(6, 12))
    assert logged(again) == logged(whole)
    for one, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)
    wrong = torch.nn.modules.module._IncompatibleKeys([], ["another.weight"])
    with pytest.raises(ModelError, match=r"of another model: 1 weights do not fit, another\.weight"):
        again._issue_warnings_after_load(wrong)


def test_the_command_resumes_only_what_it_started(base_model: Make, data: Path, home: Path, tmp_path: Path) -> None:
    config = settings(base_model("llama"), num_train_epochs=1.0)
    target = tmp_path / "model"
    with pytest.raises(UsageError, match="nothing to resume"):
        explicit.train(str(data), config, output=target, resume=True)
    run = home / "runs" / "explicit-model"
    trainer, _ = make_trainer(config, data, run)
    trainer.train()  # leaves checkpoints, as a killed command does
    with pytest.raises(UsageError, match="interrupted run"):
        explicit.train(str(data), config, output=target)
    told = {"settings": config.as_json(), "dataset": dataset_of(data)}
    (run / "settings.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="other settings"):
        explicit.train(str(data), replace(config, learning_rate=1e-4), output=target, resume=True)
    result = explicit.train(str(data), config, output=target, resume=True)
    assert result["training"]["loss"] == logged(trainer)


@pytest.mark.slow
def test_lora_trains_the_head_and_merging_keeps_the_scores(
    base_model: Make, data: Path, home: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    from safetensors.torch import load_file

    config = settings(base_model("llama"), lora_rank=4, learning_rate=1e-2, num_train_epochs=3.0)
    start, _ = build(config)
    trainable = {name for name, parameter in start.named_parameters() if parameter.requires_grad}
    assert any("lora_A" in name for name in trainable)
    assert any("score" in name for name in trainable)
    assert not any("embed_tokens" in name for name in trainable)
    head = start.classifier.score.modules_to_save["default"].weight.detach().clone()

    trainer, rows = make_trainer(config, data, tmp_path / "run")
    trainer.train()
    trained = validate(trainer.model, rows["validation"], max_batch_tokens=600, objective=config.objective)
    assert trained.facts["accuracy"]["value"] > 0.8

    result = explicit.train(str(data), config, output=tmp_path / "model")
    model = load_model(result["path"])
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert not any("lora" in name for name in weights)
    assert not torch.allclose(weights["score.weight"], head)
    merged = validate(model.module, rows["validation"], max_batch_tokens=600, objective=config.objective)
    assert merged.margin.tolist() == pytest.approx(trained.margin.tolist(), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"gradient_checkpointing": True}, {"max_batch_tokens": 60, "share_prompts": False}]
)
def test_memory_options_do_not_change_the_losses(
    base_model: Make, data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    plain, _ = make_trainer(settings(base_model("llama"), num_train_epochs=0.5), data, tmp_path / "plain")
    plain.train()
    other, _ = make_trainer(settings(base_model("llama"), num_train_epochs=0.5, **options), data, tmp_path / "other")
    other.train()
    assert logged(other) == pytest.approx(logged(plain), abs=2e-5)


@pytest.mark.slow
def test_gradient_checkpointing_with_lora_trains(base_model: Make, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    config = settings(base_model("llama"), num_train_epochs=0.5, lora_rank=2, learning_rate=1e-2)
    plain, _ = make_trainer(config, data, tmp_path / "plain")
    plain.train()
    other, _ = make_trainer(replace(config, gradient_checkpointing=True), data, tmp_path / "other")
    other.train()
    assert logged(other) == pytest.approx(logged(plain), abs=2e-5)


@pytest.mark.slow
def test_bf16_autocast_follows_fp32(base_model: Make, data: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        trainer, _ = make_trainer(
            settings(base_model("llama"), num_train_epochs=0.5, precision=precision), data, tmp_path / precision
        )
        trainer.train()
        losses.append(logged(trainer))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


def test_a_loss_that_is_not_finite_stops_with_the_rows(base_model: Make, data: Path, tmp_path: Path) -> None:
    trainer, rows = make_trainer(settings(base_model("llama")), data, tmp_path / "run")
    poisoned = rows["train"][5]
    real = trainer.model.forward

    def forward(batch: Any) -> Any:
        scores = real(batch)
        hit = (batch.input_ids[0] == 3).any()  # any batch at all
        return torch.where(hit, scores * math.nan, scores * math.nan)

    trainer.model.forward = forward
    with pytest.raises(DataError, match=r"loss of step 1 is not finite for \d+ rows \(row\d{4}") as caught:
        trainer.train()
    assert "micro-batch was row" in str(caught.value)
    assert poisoned.id.startswith("row")


def test_out_of_memory_halves_the_budget_and_goes_on(
    base_model: Make, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(base_model("llama"), num_train_epochs=0.5)
    plain, _ = make_trainer(config, data, tmp_path / "plain")
    plain.train()
    trainer, _ = make_trainer(config, data, tmp_path / "run")
    real = trainer.model.forward

    def forward(batch: Any) -> Any:
        if batch.input_ids.numel() > 310:
            raise torch.OutOfMemoryError("too big")
        return real(batch)

    trainer.model.forward = forward
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "out of memory: going on with 300 tokens" in caplog.text
    assert trainer.max_batch_tokens == 300
    assert logged(trainer) == pytest.approx(logged(plain), abs=2e-5)

    def never(batch: Any) -> Any:
        raise torch.OutOfMemoryError("too big")

    trainer.model.forward = never
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()


def chat_of(make_tokenizer: Make, chatml: str, **policy: Any) -> Chat:
    return Chat(make_tokenizer(chatml), TruncationPolicy(**{"max_length": 100, "response_reserve_tokens": 50} | policy))


def test_rows_left_out_are_counted_by_reason(make_tokenizer: Make, chatml: str) -> None:
    chat = chat_of(make_tokenizer, chatml)
    long = "quick fox " * 80
    rows = [
        example(0, ["Yes", "No"], p=[0.0, 1.0]),
        example(1, ["Yes", "No"], p=[0.5, 0.5]),
        example(2, ["Yes", long], p=[1.0, 0.0]),
        example(3, [long + "so", "No"], p=[1.0, 0.0]),
        example(4, ["Yes"], kind="single"),
        example(5, ["Yes", "No", long], kind="list", ranks=[1, 0, 2]),
    ]
    kept, skipped = read_rows(map(Example, rows), chat, objective=BradleyTerry())
    assert [row.id for row in kept] == ["row0000", "row0005"]
    assert kept[0].preferences == (Preference(0, 1, 0.0, 1.0),)
    assert kept[1].preferences == (Preference(0, 1, 0.0, 1.0),)  # the pair that is left, counted as a whole row
    assert len(kept[1].ids) == 2
    assert sum(skipped.values()) == 4
    assert skipped["the label is a tie"] == 1
    assert any("response takes N tokens" in reason and count == 2 for reason, count in skipped.items())
    with_ties, _ = read_rows(map(Example, rows), chat, objective=SoftLabel())
    assert [row.id for row in with_ties] == ["row0000", "row0001", "row0005"]
    ranked, _ = read_rows(map(Example, rows), chat, objective=PlackettLuce())
    assert [row.ranks for row in ranked] == [(1, 0), (1, 0)]


def test_responses_that_become_the_same_tokens_are_no_pair(make_tokenizer: Make, chatml: str) -> None:
    trimming = chatml.replace("message['content'] }}", "message['content'] | trim }}")
    long = "quick fox " * 80
    rows = [
        example(0, ["Yes", "Yes \n"], p=[0.0, 1.0]),
        example(1, [long + "so", long + "no"], p=[1.0, 0.0]),
        example(2, ["Yes ", "No", "Yes"], kind="list", ranks=[0, 1, 2]),
        example(3, [long, "No"], p=[1.0, 0.0]),
    ]
    chat = chat_of(make_tokenizer, trimming, long_response="flag")
    kept, skipped = read_rows(map(Example, rows), chat, objective=BradleyTerry())
    assert skipped == {"the responses become the same tokens": 2}
    assert [(row.id, row.truncated) for row in kept] == [("row0002", False), ("row0003", True)]
    assert kept[0].preferences == (Preference(0, 1, 1.0, 0.5), Preference(1, 2, 1.0, 0.5))


def test_too_few_rows_is_an_error_that_says_why(base_model: Make, home: Path, tmp_path: Path) -> None:
    folder = export(tmp_path / "few", sample(20))
    with pytest.raises(DataError, match="train split has 16 usable rows, at least 20"):
        explicit.train(str(folder), settings(base_model("llama")), output=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def row_of(n: int, *preferences: Preference, **more: Any) -> TrainingRow:
    ids = tuple((1, 2, 3 + k) for k in range(n))
    row = TrainingRow("r", ids, (1,) * n, preferences, (), 0.0, 1.0, 0)
    return replace(row, **more)


def test_objectives_see_the_right_scores() -> None:
    scores = torch.tensor([0.5, -1.0, 2.0, 0.3, 0.1])
    rows = [
        row_of(2, Preference(0, 1, 0.0, 1.0), weight=2.0),
        row_of(3, Preference(0, 1, 1.0, 0.5), Preference(2, 1, 1.0, 0.5)),
    ]
    config = ExplicitConfig(model="x")
    found = row_losses(scores, rows, config)
    pairs = bradley_terry(torch.tensor([-1.0, 2.0, 0.1]), torch.tensor([0.5, 0.3, 0.3]))
    assert found.tolist() == pytest.approx([2 * pairs[0].item(), (pairs[1] + pairs[2]).item() / 2])

    centered = row_losses(scores, rows, replace(config, center_rewards_coefficient=0.1))
    assert (centered - found).tolist() == pytest.approx([2 * 0.1 * 0.25, 0.1 * 2.4**2], rel=1e-5)

    ranked = [replace(rows[0], ranks=(1, 0)), replace(rows[1], ranks=(0, 2, 1))]
    luce = row_losses(scores, ranked, replace(config, objective=PlackettLuce()))
    table = torch.tensor([[0.5, -1.0, 0.0], [2.0, 0.3, 0.1]])
    expected = plackett_luce(table, rank_BN=torch.tensor([[1, 0, -1], [0, 2, 1]]))
    assert luce.tolist() == pytest.approx([2 * expected[0].item(), expected[1].item()])
    assert row_losses(scores, ranked, replace(config, objective=PRO())).isfinite().all()

    tied = [row_of(2, Preference(0, 1, 0.5, 1.0)), row_of(2, Preference(0, 1, 0.75, 1.0))]
    log_nu = torch.tensor(0.2)
    ties = row_losses(scores[:4], tied, replace(config, objective=Ties()), state=RunState(learned={"log_nu": log_nu}))
    outcome = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    expected = davidson(scores[[0, 2]], scores[[1, 3]], outcome_B3=outcome, log_nu=log_nu)
    assert ties.tolist() == pytest.approx(expected.tolist())


SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("margin", "soft_label", "label_smoothing", "robust", "pro")
]


@pytest.mark.parametrize("objective", ["ties", "plackett_luce", *SLOW])
def test_every_objective_trains(base_model: Make, data: Path, tmp_path: Path, objective: str) -> None:
    trainer, _ = make_trainer(
        settings(base_model("llama"), objective=objective, center_rewards_coefficient=0.01, num_train_epochs=1.5),
        data,
        tmp_path,
    )
    trainer.train()
    losses = logged(trainer)
    assert losses[-1] < losses[0]
    if objective == "ties":
        assert float(trainer.run_state.learned["log_nu"].detach()) < -0.005  # there is no tie in the data


@pytest.mark.slow
def test_the_best_checkpoint_is_kept(base_model: Make, data: Path, tmp_path: Path) -> None:
    trainer, rows = make_trainer(settings(base_model("llama"), learning_rate=2e-2), data, tmp_path)
    trainer.train()
    logs = [entry["eval_log_loss"] for entry in trainer.state.log_history if "eval_log_loss" in entry]
    best = validate(trainer.model, rows["validation"], max_batch_tokens=600, objective=BradleyTerry()).facts["log_loss"]
    assert len(logs) == 4
    assert best == pytest.approx(min(logs), abs=1e-6)


@pytest.mark.slow
def test_two_processes_train_like_one(base_model: Make, data: Path, home: Path, tmp_path: Path) -> None:
    """DDP over gloo on the CPU: each process takes half of every step's rows."""
    config = settings(base_model("llama"), num_train_epochs=1.0)
    alone = explicit.train(str(data), config, output=tmp_path / "alone")
    toml = tmp_path / "explicit.toml"
    toml.write_text(as_toml(config))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "rmkit"]
    arguments = [
        "train",
        "explicit",
        "--data",
        str(data),
        "--config",
        str(toml),
        "-o",
        str(tmp_path / "both"),
        "--json",
    ]
    environment = {**os.environ, "RMKIT_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *arguments], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    both = json.loads(done.stdout)
    assert both["training"]["processes"] == 2
    assert both["training"]["loss"] == pytest.approx(alone["training"]["loss"], abs=1e-5)
    assert both["validation"]["log_loss"] == pytest.approx(alone["validation"]["log_loss"], abs=1e-4)


def test_bad_settings_are_refused() -> None:
    for bad in (
        {"objective": "robust", "label_noise": 0.5},
        {"global_batch_size": 0},
        {"warmup_ratio": 1.0},
        {"center_rewards_coefficient": -1.0},
    ):
        with pytest.raises(ConfigError, match=list(bad)[-1]):
            training_config("explicit", model="x", **bad)


def test_texts_longer_than_the_models_positions_are_refused(base_model: Make) -> None:
    with pytest.raises(ConfigError, match="exceeds the 512 positions"):
        build(settings(base_model("bert"), max_length=513))


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        build(settings(str(tmp_path)))


def test_training_begins_with_the_checkpoint_or_not_at_all(base_model: Make, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = load_file(Path(base_model("llama")) / "model.safetensors")
    weights["score.weight"] = torch.randn(1, weights["model.norm.weight"].shape[0])
    for name, state, head in (
        ("wrapped", {f"module.{key}": one for key, one in weights.items()}, "from the checkpoint"),
        ("bare", {key: one for key, one in weights.items() if "score" not in key}, "new"),
    ):
        folder = shutil.copytree(base_model("llama"), tmp_path / name)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        module, _ = build(settings(str(folder)))
        assert module.loading["head"] == head
        own = module.classifier.state_dict()
        assert all(
            torch.equal(own[key], one)
            for key, one in weights.items()
            if key in own and "embed" not in key and (head != "new" or "score" not in key)
        )
    save_file({key: one for key, one in weights.items() if "layers.0" not in key}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="they would be random"):
        build(settings(str(folder)))


def test_pad_equal_to_eos_is_repaired_in_model_and_tokenizer(base_model: Make, tmp_path: Path) -> None:
    module, chat = build(settings(base_model("llama")))
    assert chat.tokenizer.pad_token_id != chat.tokenizer.eos_token_id
    assert module.classifier.config.pad_token_id == chat.tokenizer.pad_token_id
    assert module.classifier.get_input_embeddings().num_embeddings >= len(chat.tokenizer)
    shutil.rmtree(tmp_path)


def test_the_summary_says_why_rows_were_skipped_and_where_a_score_head_comes_from() -> None:
    from rmkit.training.explicit import _text

    training = {"rows": {"train": 9, "validation": 5}, "padded_because": None, "truncated": {"train": 2}}
    training |= {"skipped": {"train": {"too long": 3, "a tie": 1}, "validation": {"too long": 2}}}
    training |= {"loading": {"head": "new", "notes": []}, "seconds": 1.0, "steps": 3, "best_step": 2}
    accuracy = {"value": 0.5, "interval": None}
    result = {"path": "m", "fingerprint": "f", "scale": "logit", "temperature": 1.0, "dataset": {"ref": "x@v1"}}
    result |= {"kind": "explicit", "training": training}
    result |= {"validation": {"accuracy": accuracy, "log_loss": 0.7, "ece": 0.1}}
    lines = [" ".join(line.split()) for line in _text(result).splitlines()]
    assert lines[lines.index("skipped 6 rows") :][:3] == ["skipped 6 rows", "5 too long", "1 a tie"]
    assert "score head new" in lines
    assert not [line for line in _text(result | {"kind": "implicit"}).splitlines() if "score head" in line]
