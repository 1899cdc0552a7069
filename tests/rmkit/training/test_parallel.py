"""Several processes: parameters beside the model under DDP, FSDP2 through the Trainer, the config for DeepSpeed.

What runs here is gloo on the CPU; DeepSpeed needs GPUs and is not run by any test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from rmkit.errors import ConfigError  # noqa: E402
from rmkit.models.transformer.reward_module import RewardModule  # noqa: E402
from rmkit.training import explicit  # noqa: E402
from rmkit.training.config import TrainingConfig  # noqa: E402
from rmkit.training.kinds.explicit import build  # noqa: E402
from rmkit.training.launch import config_file  # noqa: E402
from rmkit.training.run import arguments as trainer_arguments  # noqa: E402
from rmkit.training.run import last_checkpoint  # noqa: E402
from rmkit.training.trainer import RewardTrainer, _keep_the_head_in_fp32  # noqa: E402
from tests.rmkit.training.test_training import Make, as_toml, base_model, data, make_trainer, settings  # noqa: E402, F401


def test_accelerate_reads_the_config_for_deepspeed() -> None:
    assert [path.stem for path in config_file("deepspeed_zero3").parent.glob("*.yaml")] == ["deepspeed_zero3"]
    loaded = load_of("deepspeed_zero3")
    assert loaded.distributed_type.value == "DEEPSPEED"
    assert loaded.num_processes == 8
    assert loaded.deepspeed_config["zero_stage"] == 3


def test_each_layer_is_a_unit_of_sharding(tiny_model: Make) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP")
    plugin.set_auto_wrap_policy(RewardModule(tiny_model("qwen3")))
    assert {cls.__name__ for cls in plugin.auto_wrap_policy.keywords["transformer_layer_cls"]} == {"Qwen3DecoderLayer"}


def test_a_process_alone_shares_nothing(base_model: Make, tmp_path: Path) -> None:  # noqa: F811
    assert not trainer_arguments(settings(base_model("llama"), sharding="fsdp2"), n_rows=32, run=tmp_path).fsdp


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


def trained_by_two(
    config: TrainingConfig, rows: Path, *, home: Path, folder: Path, launch: Sequence[str] = ("-m", "rmkit"), **env: str
) -> dict[str, Any]:
    """What `rmkit train explicit` says of a model that two processes trained, `folder`/both."""
    (toml := folder / "explicit.toml").write_text(as_toml(config))
    arguments = ["--data", str(rows), "--config", str(toml), "-o", str(folder / "both"), "--json"]
    done = torchrun(*launch, "train", "explicit", *arguments, RMKIT_HOME=str(home), **env)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


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
    both = trained_by_two(config, data, home=home, folder=tmp_path)
    assert both["training"]["processes"] == 2
    assert both["training"]["loss"] == pytest.approx(alone["training"]["loss"], abs=1e-5)
    assert both["log_nu"] == pytest.approx(alone["log_nu"], abs=1e-4)


def weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: one for path in sorted(folder.glob("*.safetensors")) for name, one in load_file(path).items()}


@pytest.mark.slow
def test_two_processes_with_shares_of_the_weights_train_like_one(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
) -> None:
    """FSDP2 through the Trainer, over gloo; with several micro-batches a step, whose gradients are accumulated."""
    config = settings(base_model("llama"), num_train_epochs=1.0, max_batch_tokens=300)
    alone = explicit.train(str(data), config, output=tmp_path / "alone")
    both = trained_by_two(replace(config, sharding="fsdp2"), data, home=home, folder=tmp_path)
    assert (both["training"]["processes"], both["training"]["sharded"]) == (2, True)
    assert both["training"]["loss"] == pytest.approx(alone["training"]["loss"], abs=1e-5)
    assert both["validation"]["log_loss"] == pytest.approx(alone["validation"]["log_loss"], abs=1e-5)
    ours, theirs = weights_of(tmp_path / "alone"), weights_of(tmp_path / "both")
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        torch.testing.assert_close(theirs[name], one, atol=1e-4, rtol=1e-3)


TOO_LARGE = """
import sys
from rmkit.cli.main import main
from rmkit.training.trainer import RewardTrainer

RewardTrainer.fits_one_device = lambda self: False
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_model_that_no_device_holds_is_validated_by_shares(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
) -> None:
    config = settings(base_model("llama"), num_train_epochs=1.0)
    alone = explicit.train(str(data), config, output=tmp_path / "alone")
    (tmp_path / "too_large.py").write_text(TOO_LARGE)
    root = str(Path(explicit.__file__).parents[2])
    sharded, launch = replace(config, sharding="fsdp2"), [str(tmp_path / "too_large.py")]
    both = trained_by_two(sharded, data, home=home, folder=tmp_path, launch=launch, PYTHONPATH=root)
    assert both["training"]["validated"] == "by shares, before rounding"
    assert alone["training"]["validated"] == "as stored"
    assert both["validation"]["log_loss"] == pytest.approx(alone["validation"]["log_loss"], abs=1e-4)
    assert both["validation"]["accuracy"]["n"] == alone["validation"]["accuracy"]["n"]


@pytest.mark.slow
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_shares_survive_kills(base_model: Make, data: Path, tmp_path: Path, lora_rank: int) -> None:  # noqa: F811
    """All processes die by SIGKILL behind a checkpoint, three times; the same command ends as an unbroken run does."""
    config = settings(base_model("llama"), num_train_epochs=2.0, save_steps=2, dropout=True, lora_rank=lora_rank)
    toml = tmp_path / "explicit.toml"
    toml.write_text(as_toml(replace(config, sharding="fsdp2")))

    def start(home: str) -> subprocess.Popen[bytes]:
        arguments = ["--data", str(data), "--config", str(toml), "-o", str(tmp_path / home / "model")]
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "rmkit"]
        environment = {**os.environ, "RMKIT_HOME": str(tmp_path / home), "OMP_NUM_THREADS": "1"}
        command = [*launch, "train", "explicit", *arguments, "--resume", "auto", "--json"]
        with (tmp_path / f"{home}.log").open("ab") as out:
            return subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)

    assert start("whole").wait(timeout=300) == 0, (tmp_path / "whole.log").read_text()[-2000:]
    folder, seen = tmp_path / "broken" / "runs" / "explicit-model", []
    for _ in range(3):
        process, before = start("broken"), last_checkpoint(folder)
        while last_checkpoint(folder) == before and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        seen.append(last_checkpoint(folder))
        sizes = {path.name: path.stat().st_size for path in Path(seen[-1] or "").rglob("*.distcp")}
        assert len(sizes) == 2
    assert len(set(seen)) == 3
    assert start("broken").wait(timeout=300) == 0, (tmp_path / "broken.log").read_text()[-2000:]
    ours, theirs = (
        json.loads((tmp_path / home / "model/reward_model.json").read_text()) for home in ("whole", "broken")
    )
    assert ours["training"]["sharded"]
    assert ours["training"]["loss"] == theirs["training"]["loss"]
    assert ours["fingerprint"] == theirs["fingerprint"]


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
