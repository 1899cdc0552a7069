"""What a run will take, told from a config: bytes beside those that a profiled step allocates, steps, tokens, disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from evaluation.benchmarks.training.plan import CASES, profiled  # noqa: E402
from rmkit.cli import main as cli  # noqa: E402
from rmkit.errors import ModelError  # noqa: E402
from rmkit.models.transformer.packing import packed_tokens  # noqa: E402
from rmkit.training.plan.memory import LiveBytes, Memory, memory, optimizer_bytes, sample_rows  # noqa: E402
from rmkit.training.plan.report import plan, text  # noqa: E402
from tests.rmkit.training.test_training import Make, base_model, data, make_trainer, settings  # noqa: E402, F401

FAST = ("full, bf16, checkpointing",)


@pytest.mark.parametrize(
    ("family", "name", "more"),
    [pytest.param(*case, marks=[] if case[1] in FAST else pytest.mark.slow) for case in CASES],
)
def test_planned_bytes_are_those_that_a_step_allocates(
    tmp_path: Path, family: str, name: str, more: dict[str, Any]
) -> None:
    torch.set_num_threads(1)
    result = profiled(tmp_path, family, name, more, tokens=600)
    assert result["planned"] > 20e6
    assert abs(result["error"]) < 0.02


def test_the_plan_needs_no_weights_and_says_what_training_does(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base_model("llama"), bare, ignore=shutil.ignore_patterns("*.safetensors"))
    config = settings(str(bare), num_train_epochs=2.0, precision="fp32", gradient_checkpointing=False)
    result = plan(str(data), config, gpus=2, gpu_gib=0.001)
    _, rows = make_trainer(settings(base_model("llama")), data, tmp_path / "run")
    assert (result.rows, result.usable_rows, result.steps) == (96, 96, 12)
    assert result.tokens == 2 * sum(packed_tokens(row.ids) for row in rows["train"])
    module = make_trainer(settings(base_model("llama")), data, tmp_path / "run")[0].model
    # the tokenizer's new pad token adds a row to the embedding of the real one
    assert result.memory.parameters == pytest.approx(sum(p.numel() for p in module.parameters()), rel=0.01)
    assert result.memory.gradients == 4 * result.memory.parameters
    assert result.memory.optimizer == 2 * result.memory.gradients
    assert result.total == result.memory.total + result.memory.gradients  # DDP's buckets
    assert not result.fits
    changes = [one.change for one in result.ways]
    assert changes[0] == "gradient_checkpointing=true"
    assert changes[-1] == "or lora_rank=16 and quantization=nf4"
    assert result.ways[0].bytes < result.memory.total
    assert f"{result.memory.parameters / 1000:.3g} thousand weights, all trained" in text(result)
    arguments = ["explicit", "--data", str(data), "--model", str(bare), "--set", "max_length=200", "--plan", "--json"]
    assert cli.call("train", [*arguments, "--gpu-memory", "80"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True
    assert not (home / "models").exists()


def test_storages_are_followed_from_first_to_last() -> None:
    with LiveBytes() as live:
        one = torch.zeros(100)
        view = one[10:]
        two = one + view.sum()
        assert live.now == 800
        del one
        assert live.now == 800  # the view holds it
        del view
        assert live.now == 400
        del two
    assert live.now == 0
    assert live.peak == 804


def test_sharding_divides_what_belongs_to_weights() -> None:
    held = Memory(10, 10, 4000, 4000, 8000, 500, largest_layer=100, outside_layers=40)
    assert held.sharded(1) == held.total == 16500
    assert held.sharded(4) == 4000 + 200 + 40 + 500


def test_optimizers_states() -> None:
    assert optimizer_bytes((100, 200), "adamw_torch_fused") == 160_000
    assert optimizer_bytes((100, 200), "adafactor") == 4 * 300
    assert optimizer_bytes((100, 200), "adamw_8bit") == 40_000 + 8 * 79
    assert optimizer_bytes((200,), "adamw_8bit") == optimizer_bytes((200,), "adamw_torch") == 1600


def test_a_pass_on_a_gpu_holds_no_square_of_its_tokens(base_model: Make) -> None:  # noqa: F811
    config = settings(base_model("llama"), precision="fp32")
    few, many = (
        memory(config, sample_rows(prompt=30, replies=(10, 10), tokens=tokens)).activations for tokens in (500, 4000)
    )
    assert many / few == pytest.approx(8, rel=0.1)


def test_what_cannot_be_built_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(ModelError, match=r"whisper|no class|no config"):
        memory(settings(str(tmp_path)), sample_rows(prompt=3, replies=(2, 2), tokens=20))
