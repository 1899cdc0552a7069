"""Several processes: shipped launch configs, parameters beside the model under DDP, sharding with FSDP2's fully_shard.

What runs here is gloo on the CPU. The Trainer's FSDP2 and DeepSpeed paths need GPUs: on CPUs accelerate 1.15 takes the
FSDP config and runs DDP without a word, so they are not run by any test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from rmkit.errors import ConfigError  # noqa: E402
from rmkit.models.transformer.reward_module import RewardModule  # noqa: E402
from rmkit.training import explicit  # noqa: E402
from rmkit.training.kinds.explicit import build  # noqa: E402
from rmkit.training.launch import config_file  # noqa: E402
from rmkit.training.trainer import RewardTrainer, _keep_the_head_in_fp32  # noqa: E402
from tests.rmkit.training.test_training import Make, as_toml, base_model, data, make_trainer, settings  # noqa: E402, F401

KINDS = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero3": "DEEPSPEED"}


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_the_shipped_configs(name: str) -> None:
    assert {path.stem for path in config_file(name).parent.glob("*.yaml")} == set(KINDS)
    loaded = load_of(name)
    assert loaded.distributed_type.value == KINDS[name]
    assert loaded.num_processes == 8
    if name == "fsdp2":
        assert loaded.fsdp_config["fsdp_version"] == 2
        assert loaded.fsdp_config["fsdp_auto_wrap_policy"] == "TRANSFORMER_BASED_WRAP"
        assert loaded.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    if name == "deepspeed_zero3":
        assert loaded.deepspeed_config["zero_stage"] == 3


def test_the_fsdp_config_reaches_the_plugin(monkeypatch: pytest.MonkeyPatch, tiny_model: Make) -> None:
    """As `accelerate launch` hands it over: through the environment, into a plugin that finds the layers to wrap."""
    from accelerate.utils import FullyShardedDataParallelPlugin

    for key, value in load_of("fsdp2").fsdp_config.items():
        monkeypatch.setenv(key.upper(), str(value).lower() if isinstance(value, bool) else str(value))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    plugin.set_auto_wrap_policy(RewardModule(tiny_model("qwen3")))
    assert {cls.__name__ for cls in plugin.auto_wrap_policy.keywords["transformer_layer_cls"]} == {"Qwen3DecoderLayer"}


def test_numbers_beside_the_model_are_not_sharded(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RewardTrainer, "shards", property(lambda self: True))
    with pytest.raises(ConfigError, match="objective ties learns numbers beside the model"):
        make_trainer(settings(base_model("llama"), objective="ties"), data, tmp_path)
    make_trainer(settings(base_model("llama")), data, tmp_path)


def test_sharded_weights_are_brought_together(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = settings(base_model("llama"))
    trainer, _ = make_trainer(config, data, tmp_path)
    assert trainer.whole(lambda: pytest.fail("nothing to rebuild")) is trainer.model
    monkeypatch.setattr(RewardTrainer, "shards", property(lambda self: True))
    trained = {name: weight + 1 for name, weight in trainer.model.state_dict().items()}
    monkeypatch.setattr(trainer.accelerator, "get_state_dict", lambda model: trained)
    made = trainer.whole(lambda: build(config)[0])
    assert made is not trainer.model
    for name, weight in made.state_dict().items():
        assert torch.equal(weight, trained[name])
    monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
    assert trainer.whole(lambda: pytest.fail("only the first rebuilds")) is trainer.model


def test_sharded_processes_make_equally_many_passes(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Passes that only keep step with another process change nothing, and only the last one is the step's."""
    config = settings(base_model("llama"), max_batch_tokens=150)
    trainer, rows = make_trainer(config, data, tmp_path)
    step = rows["train"][:16]

    def gradients() -> tuple[float, list[Any]]:
        trainer.model.zero_grad()
        loss = float(trainer._accumulate(trainer.model, step))
        return loss, [p.grad.clone() for p in trainer.model.parameters()]

    loss, expected = gradients()
    planned = len(trainer.model.plan([row.ids for row in step], max_batch_tokens=150))
    monkeypatch.setattr(RewardTrainer, "shards", property(lambda self: True))
    monkeypatch.setattr(trainer.accelerator, "gather", lambda count: torch.cat([count, count + 3]))
    steps: list[bool] = []
    backward = trainer.accelerator.backward

    def watched(loss: Any, **more: Any) -> None:
        steps.append(trainer.accelerator.sync_gradients)
        backward(loss, **more)

    monkeypatch.setattr(trainer.accelerator, "backward", watched)
    found_loss, found = gradients()
    assert planned > 1
    assert steps == [False] * (planned + 2) + [True]
    assert found_loss == pytest.approx(loss)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    monkeypatch.setattr(trainer, "_accumulate", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("too big")))
    with pytest.raises(torch.OutOfMemoryError):
        trainer.training_step(trainer.model, {"step": SimpleNamespace(rows=tuple(step))})


def test_sharding_keeps_the_head_in_fp32() -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy

    rounding = MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.bfloat16)
    plugin = SimpleNamespace(mixed_precision_policy=rounding)
    fake = SimpleNamespace(
        is_deepspeed_enabled=False,
        is_fsdp_enabled=True,
        accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision="bf16"),
    )
    _keep_the_head_in_fp32(fake)
    assert plugin.mixed_precision_policy.param_dtype is None
    assert plugin.mixed_precision_policy.output_dtype is None
    fake.is_fsdp_enabled, fake.is_deepspeed_enabled = False, True
    with pytest.raises(ConfigError, match="DeepSpeed turns all weights into bf16, the score head too"):
        _keep_the_head_in_fp32(fake)
    fake.accelerator.mixed_precision = "no"
    _keep_the_head_in_fp32(fake)
    assert load_of("deepspeed_zero3").mixed_precision == "no"


def load_of(name: str) -> Any:
    from accelerate.commands.config.config_args import load_config_from_file

    return load_config_from_file(str(config_file(name)))


def torchrun(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments]
    given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(launch, capture_output=True, text=True, env=given, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.slow
def test_a_learned_tie_width_is_the_same_in_two_processes(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
) -> None:
    """DDP over gloo: the loss, not the model's forward pass, reads `log_nu`."""
    config = settings(base_model("llama"), num_train_epochs=1.0, objective="ties", learning_rate=3e-2)
    alone = explicit.train(str(data), config, output=tmp_path / "alone")
    assert abs(alone["log_nu"]) > 0.01
    toml = tmp_path / "explicit.toml"
    toml.write_text(as_toml(config))
    arguments = ["--data", str(data), "--config", str(toml), "-o", str(tmp_path / "both"), "--json"]
    both = json.loads(torchrun("-m", "rmkit", "train", "explicit", *arguments, RMKIT_HOME=str(home)).stdout)
    assert both["training"]["processes"] == 2
    assert both["training"]["loss"] == pytest.approx(alone["training"]["loss"], abs=1e-5)
    assert both["log_nu"] == pytest.approx(alone["log_nu"], abs=1e-4)


SHARDED = """
import sys, torch, torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForSequenceClassification, Qwen3Config
from rmkit.models.transformer.reward_module import RewardModule

dist.init_process_group("gloo")

def module():
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, head_dim=8, pad_token_id=0, num_labels=1)
    return RewardModule(AutoModelForSequenceClassification.from_config(config))

def backward(module, rows):
    chosen, rejected = module(module.collate(rows)).view(-1, 2).T
    torch.nn.functional.softplus(rejected - chosen).mean().backward()

rows = [[(5, 6, 7, 8, 9, 10 + i), (5, 6, 7, 11, 12, 13, 14 + i)] for i in range(4)]
plain, sharded = module(), module()
assert sharded.padded_because is None
backward(plain, rows)
mesh = init_device_mesh("cpu", (2,))
for layer in sharded.classifier.base_model.layers:
    assert type(layer).__name__ in sharded._no_split_modules
    fully_shard(layer, mesh=mesh)
fully_shard(sharded, mesh=mesh)
backward(sharded, rows[2 * dist.get_rank() :][:2])
gap = max(float((one.grad - other.grad.full_tensor()).abs().max())
          for one, other in zip(plain.parameters(), sharded.parameters(), strict=True))
whole = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True))
if dist.get_rank() == 0:
    fresh = module()
    fresh.load_state_dict(whole)
    print("gap", gap, type(next(sharded.parameters())).__name__)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_sharded_module_has_the_gradients_of_a_whole_one(tmp_path: Path) -> None:
    """FSDP2 over gloo, by hand: two processes with half of the rows each, prompts shared."""
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    root = str(Path(explicit.__file__).parents[2])
    word, gap, kind = torchrun(str(script), PYTHONPATH=root).stdout.split()[-3:]
    assert (word, kind) == ("gap", "DTensor")
    assert float(gap) < 1e-6


@pytest.mark.slow
def test_trackers_named_in_report_to_are_told_the_numbers(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tracker of our own, registered where transformers looks up the names of `report_to`."""
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    told: list[dict[str, Any]] = []

    class Tracker(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            told.append({"step": state.global_step, **logs})

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    trainer, _ = make_trainer(
        settings(base_model("llama"), num_train_epochs=1.0, report_to=("tensorboard",)), data, tmp_path
    )
    trainer.train()
    losses = [entry["loss"] for entry in told if "loss" in entry]
    assert losses == [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 6
    validated = [entry for entry in told if "eval_log_loss" in entry]
    assert [entry["step"] for entry in validated] == [3, 6]
    assert {"eval_accuracy", "eval_ece"} <= set(validated[0])
