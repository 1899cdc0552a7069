"""QLoRA as far as a CPU goes: what is refused and why, and that merging into the original weights loses nothing.

That a 4-bit trunk trains is not tested here: it needs bitsandbytes and a CUDA GPU.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from rmkit.errors import ConfigError, MissingExtraError  # noqa: E402
from rmkit.training import model as training_model  # noqa: E402
from rmkit.training import quantization  # noqa: E402
from rmkit.training.config import ExplicitConfig  # noqa: E402
from rmkit.training.kinds.explicit import build, storable  # noqa: E402
from rmkit.training.model import plain  # noqa: E402
from rmkit.training.validation import validate  # noqa: E402
from tests.rmkit.training.test_training import Make, base_model, data, make_trainer, settings  # noqa: E402, F401


def test_it_takes_adapters_a_package_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="set lora_rank"):
        ExplicitConfig(model="x", quantization="nf4")
    config = ExplicitConfig(model="x", quantization="nf4", lora_rank=4)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    with pytest.raises(MissingExtraError, match=r"bitsandbytes is not installed; run: pip install -e '.*\[gpu\]'"):
        build(config)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found("json") if name == "bitsandbytes" else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a CUDA GPU"):
        build(config)


def test_options_ask_for_four_bits_but_not_for_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found("json" if name == "bitsandbytes" else name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    asked = quantization.loading_options()
    four_bits = asked["quantization_config"]
    assert (four_bits.load_in_4bit, four_bits.bnb_4bit_quant_type) == (True, "nf4")
    assert four_bits.bnb_4bit_use_double_quant
    assert "score" in four_bits.llm_int8_skip_modules
    assert asked["device_map"] == {"": 3}


def test_adapters_and_head_go_into_the_original_weights(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trained here over unquantized weights, where merging anew must give exactly what merging in place gives."""
    config = settings(base_model("llama"), lora_rank=4, learning_rate=1e-2, num_train_epochs=1.0)
    trainer, rows = make_trainer(config, data, tmp_path / "run")
    untouched = storable(trainer.model, config)
    assert untouched is trainer.model
    trainer.train()
    trained = validate(trainer.model, rows["validation"], max_batch_tokens=600, objective=config.objective)
    loads: list[dict[str, Any]] = []
    loaded = training_model._loaded

    def watched(config: ExplicitConfig, checkpoint: Any, **options: Any) -> Any:
        loads.append(options)
        return loaded(config, checkpoint, **options)

    monkeypatch.setattr(training_model, "_loaded", watched)
    made = storable(trainer.model, replace(config, quantization="nf4"))
    assert loads == [{"dtype": "float32"}]  # the original, not its rounding
    found = validate(made, rows["validation"], max_batch_tokens=600, objective=config.objective)
    assert found.margin.tolist() == pytest.approx(trained.margin.tolist(), abs=1e-4)
    weights = plain(made).state_dict()
    assert not any("lora" in name for name in weights)
    expected = plain(trainer.model).state_dict()
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6)
