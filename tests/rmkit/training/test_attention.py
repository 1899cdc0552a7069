"""What a transformer attends with in training: the same losses by every implementation, and refusals in one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
import torch

from rmkit.errors import ConfigError
from rmkit.models import load_model
from rmkit.training import attention, explicit
from rmkit.training.config import training_config
from rmkit.training.kinds import kind_of
from tests.rmkit.training.test_training import Make, base_model, export, pair_item, sample, settings  # noqa: F401


@pytest.mark.slow
def test_losses_and_artifact_are_those_of_packed_training(base_model: Make, home: Path, tmp_path: Path) -> None:  # noqa: F811
    data = export(tmp_path / "yes", sample(120))
    results = {}
    for name in ("auto", "eager"):
        chosen = settings(base_model("llama"), num_train_epochs=1.0, attention=name)
        results[name] = explicit.train(str(data), chosen, output=tmp_path / name)
    packed, padded = results["auto"]["training"], results["eager"]["training"]
    assert len(packed["loss"]) == 6
    assert padded["loss"] == pytest.approx(packed["loss"], rel=1e-4)
    assert (packed["attention"], packed["padded_because"]) == ("rmkit_shared_prefix", None)
    assert (padded["attention"], padded["padded_because"]) == ("eager", "attention is eager")
    assert padded["settings"]["attention"] == "eager"
    scores = [load_model(tmp_path / name).score([pair_item("the Yes sky", "the No sky")])[0] for name in results]
    assert [one.value for one in scores[1]] == pytest.approx([one.value for one in scores[0]], abs=1e-3)


def test_an_encoder_attends_as_named_too(base_model: Make) -> None:  # noqa: F811
    config = settings(base_model("bert"), attention="eager")
    module, _ = kind_of(config).build(config)
    assert (module.attention, module.padded_because) == ("eager", "attention is eager")


def test_a_policy_attends_as_named_and_gives_the_same_rewards(base_model: Make) -> None:  # noqa: F811
    values = {"model": base_model("llama"), "max_length": 64, "response_reserve_tokens": 32}
    rows = [[(1, 5, 6, 7), (1, 5, 8)]]
    rewards: list[Any] = []
    for name in ("auto", "sdpa"):
        config = training_config("implicit", attention=name, **values)
        module, _ = kind_of(config).build(config)
        assert (module.padded_because is None) == (name == "auto")
        module.known = dict.fromkeys(rows[0], (2, 0.0))
        rewards.append(module(module.collate(rows)).tolist())
    assert rewards[1] == pytest.approx(rewards[0], rel=1e-4)
    assert rewards[0][0] < rewards[0][1] < 0  # two tokens are less likely than one


@pytest.mark.parametrize(
    ("name", "package", "line"),
    [
        ("flash_attention_2", None, "takes the package flash-attn, which is not installed"),
        ("flash_attention_3", None, "takes the package flash-attn-3, which is not installed"),
        ("flash_attention_2", "there", "trains on CUDA GPUs and none is visible"),
        ("flex_attention", None, "trains on CUDA GPUs and none is visible"),
    ],
)
def test_what_does_not_run_here_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: Any, package: str | None, line: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: package)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=line) as caught:
        attention.loading_options(name)
    assert "\n" not in str(caught.value)


def test_flash_attention_computes_in_bf16() -> None:
    with pytest.raises(ConfigError, match="set precision = 'bf16'"):
        training_config("explicit", model="x", attention="flash_attention_2")
