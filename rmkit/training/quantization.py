"""QLoRA: the trunk's weights in 4 bits, adapters and head in full precision.

Dettmers et al. 2023, "QLoRA" (arXiv 2305.14314): NormalFloat-4 weights with doubly quantized scales, dequantized to
bf16 for every product; only adapters and the score head are trained. What is saved is the adapter merged into the
original weights, not into their 4-bit rounding: that is the checkpoint that other engines can load. Its scores differ
from those seen in training by the rounding, so validation and temperature are taken from it.

Needs bitsandbytes and a CUDA GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rmkit.errors import ConfigError, require

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def loading_options() -> dict[str, object]:
    """Options of `from_pretrained` for a 4-bit trunk; the score head stays as it is.

    Raises MissingExtraError without bitsandbytes, ConfigError without a CUDA GPU.
    """
    import torch

    require("bitsandbytes", extra="gpu")
    if not torch.cuda.is_available():
        raise ConfigError("quantize = 'nf4' needs a CUDA GPU and none is visible; leave it at 'none' to train here")
    from transformers import BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["score", "classifier"],
    )
    return {"quantization_config": four_bits, "device_map": {"": torch.cuda.current_device()}}


def merged_into(base: Any, trained: Any, *, wrap: Callable[[Any], Any]) -> PreTrainedModel:
    """`base` (the original weights, unquantized) with the trained adapters merged in and the trained head.

    `wrap` puts untrained adapters of the same shape around a model.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    state = {name: weight.float().cpu() for name, weight in get_peft_model_state_dict(trained).items()}
    fresh = wrap(base)
    report = set_peft_model_state_dict(fresh, state)
    if unexpected := getattr(report, "unexpected_keys", None):
        raise AssertionError(f"adapters that the original model has no place for: {', '.join(unexpected[:3])}")
    return fresh.merge_and_unload()
