"""Shipped recipes: their settings are valid, their models can be built from shapes, and they fit where they say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.errors import ConfigError
from rmkit.training.config import TrainingConfig
from rmkit.training.plan.memory import Memory, memory, sample_rows
from rmkit.training.plan.report import GIB, USABLE
from rmkit.training.recipes import recipe, recipes, shape_of
from rmkit.training.settings import read_settings

PLACES = {  # GPUs and GiB of each, as the head of a recipe says
    "qwen3-0.6b": (1, 24),
    "qwen3-8b": (4, 80),
    "qwen3-8b-lora": (1, 80),
    "qwen3-8b-qlora": (1, 24),
    "llama-70b-lora": (8, 80),
    "prm-7b": (4, 80),
    "dpo-8b": (4, 80),
}
SIZES = {"qwen3-0.6b": 0.596e9, "qwen3-8b": 7.57e9, "llama-70b-lora": 69.7e9, "prm-7b": 7.07e9, "dpo-8b": 8.19e9}


def kind_of(name: str) -> str:
    return {"prm": "process", "dpo": "implicit"}.get(name.split("-")[0], "explicit")


def settings(name: str) -> TrainingConfig:
    return read_settings(Path(name), [], kind=kind_of(name))


def planned(config: TrainingConfig, folder: Path) -> Memory:
    """From the shape alone, on the meta device."""
    shape_of(config.model).save_pretrained(folder)
    replies = (300,) if config.kind == "process" else (300, 300)
    rows = sample_rows(prompt=400, replies=replies, tokens=config.max_batch_tokens)
    return memory(replace(config, model=str(folder)), rows)


def test_there_are_these_recipes() -> None:
    assert recipes() == sorted(PLACES)
    with pytest.raises(ConfigError, match="did you mean 'qwen3-8b'"):
        recipe("qwen3-8B")
    with pytest.raises(ConfigError, match="unknown recipe"):
        recipe("shapes")
    with pytest.raises(ConfigError, match="no such file"):
        read_settings(Path("absent.toml"), [], kind="explicit")


@pytest.mark.parametrize("name", PLACES)
def test_settings_are_valid_and_their_sources_are_told(name: str) -> None:
    config = settings(name)
    assert config.precision == "bf16"
    assert config.gradient_checkpointing
    page = (Path(__file__).parents[4] / "docs" / "training_recipes.md").read_text()
    assert f"`{name}`" in page
    rates = {float(rate) for rate in re.findall(r"\b\d(?:\.\d)?e-\d\b", page)}
    assert config.learning_rate in rates
    gpus, gib = PLACES[name]
    text = " ".join(recipe(name).read_text().split()[:60])
    assert f"{gib} GB" in text
    assert gpus == 1 or f"{gpus} GPUs" in text


@pytest.mark.parametrize(
    "name", [name if name == "qwen3-0.6b" else pytest.param(name, marks=pytest.mark.slow) for name in PLACES]
)
def test_a_dry_run_builds_the_model_and_it_fits(name: str, tmp_path: Path) -> None:
    config = settings(name)
    held = planned(config, tmp_path)
    assert held.parameters == pytest.approx(SIZES.get(name, 7.6e9), rel=0.02)
    gpus, gib = PLACES[name]
    assert held.sharded(gpus) <= USABLE * gib * GIB
    assert (config.sharding == "fsdp2") == (gpus > 1)
    assert (held.trained == held.parameters) == (config.lora_rank == 0)
