"""What a run is on a GPU when nothing is said, optimizers, and the dtype and shards that weights are stored in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from rmkit.errors import ConfigError, MissingExtraError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.transformer import artifact  # noqa: E402
from rmkit.training import config as training_settings  # noqa: E402
from rmkit.training import explicit  # noqa: E402
from rmkit.training.config import training_config  # noqa: E402
from rmkit.training.run import arguments  # noqa: E402
from tests.rmkit.training.test_training import (  # noqa: E402, F401
    Make,
    base_model,
    data,
    logged,
    make_trainer,
    pair_item,
    settings,
)


def test_a_gpu_trains_in_bf16_with_checkpointing(monkeypatch: pytest.MonkeyPatch) -> None:
    here = training_config("explicit", model="x")
    assert (here.precision, here.gradient_checkpointing) == ("fp32", False)
    monkeypatch.setattr(training_settings, "on_gpu", lambda bf16=False: True)
    there = training_config("explicit", model="x")
    assert (there.precision, there.gradient_checkpointing) == ("bf16", True)
    assert there.as_json()["precision"] == "bf16"  # what a card says is what a run was
    named = training_config("explicit", model="x", precision="fp32", gradient_checkpointing=False)
    assert (named.precision, named.gradient_checkpointing) == ("fp32", False)
    monkeypatch.setattr(training_settings, "on_gpu", lambda bf16=False: not bf16)  # older than Ampere
    assert training_config("explicit", model="x").precision == "fp32"


def test_optimizers(base_model: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    losses = {}
    for name in ("adamw_torch_fused", "adamw_torch", "adafactor"):
        config = settings(base_model("llama"), optim=name, num_train_epochs=0.5)
        trainer, _ = make_trainer(config, data, tmp_path / name)
        trainer.train()
        losses[name] = logged(trainer)
    assert losses["adamw_torch"] == pytest.approx(losses["adamw_torch_fused"], abs=1e-5)
    assert losses["adafactor"][-1] != pytest.approx(losses["adamw_torch"][-1], abs=1e-3)
    eight = replace(config, optim="adamw_8bit")
    with pytest.raises((MissingExtraError, ConfigError), match=r"bitsandbytes|CUDA GPU"):
        arguments(eight, n_rows=100, run=tmp_path)
    import rmkit.training.run as run

    monkeypatch.setattr(run, "require", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="adamw_8bit' needs a CUDA GPU"):
        arguments(eight, n_rows=100, run=tmp_path)


@pytest.mark.parametrize("lora", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_weights_are_stored_as_the_checkpoint_was_in_shards_and_score_as_validated(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lora: int,
) -> None:
    import shutil

    import transformers as hf

    base = tmp_path / "base"
    shutil.copytree(base_model("llama"), base)
    hf.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    monkeypatch.setattr(artifact, "SHARD", "40KB")
    more = {"lora_rank": lora, "learning_rate": 1e-2} if lora else {}
    result = explicit.train(str(data), settings(str(base), num_train_epochs=1.0, **more), output=tmp_path / "model")
    assert result["training"]["stored_dtype"] == "bfloat16"
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 1
    assert set(shards) < set(json.loads((tmp_path / "model" / "reward_model.json").read_text())["files"])
    dtypes: dict[str, Any] = {}
    for shard in shards:
        with safe_open(tmp_path / "model" / shard, framework="pt") as file:
            dtypes |= {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert dtypes.pop("score.weight") == torch.float32
    assert set(dtypes.values()) == {torch.bfloat16}
    model = load_model(tmp_path / "model")  # golden scores replayed in fp32
    assert all(weight.dtype == torch.float32 for weight in model.module.parameters())
    config = settings(str(base))
    _, rows = make_trainer(config, data, tmp_path / "run")
    from rmkit.training.validation import validate

    again = validate(model.module, rows["validation"], max_batch_tokens=600, objective=config.objective)
    assert again.facts["log_loss"] == pytest.approx(result["validation"]["log_loss"], abs=1e-6)
    [[yes, no]] = model.score([pair_item("the Yes sky is", "the No sky is")])
    assert yes.value != no.value


def test_weights_are_stored_in_fp32_where_that_is_said(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
) -> None:
    for dtype in ("fp32", "bf16"):
        config = settings(base_model("llama"), num_train_epochs=0.5, save_dtype=dtype)
        result = explicit.train(str(data), config, output=tmp_path / dtype)
        weights = load_file(tmp_path / dtype / "model.safetensors")
        assert str(weights["model.norm.weight"].dtype) == f"torch.{result['training']['stored_dtype']}"
        assert result["training"]["stored_dtype"] == {"fp32": "float32", "bf16": "bfloat16"}[dtype]
