"""What a transformer attends with in training: rmkit's own over packed rows, or one that transformers names.

`auto` packs rows behind shared prompts (`rmkit.models.transformer.shared_attention`: flex attention on a GPU, SDPA row
by row elsewhere). The others know nothing of packed rows: they run padded, each prompt as often as it has responses.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

from rmkit.errors import ConfigError

Attention = Literal["auto", "sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3"]

FLASH = {
    "flash_attention_2": ("flash_attn", "flash-attn"),
    "flash_attention_3": ("flash_attn_interface", "flash-attn-3"),
}
ON_GPUS = (*FLASH, "flex_attention")


def loading_options(attention: Attention) -> dict[str, object]:
    """Options of `from_pretrained`. Raises ConfigError for what is not installed or does not train here."""
    if attention == "auto":
        return {}
    import torch

    if attention in FLASH and importlib.util.find_spec(FLASH[attention][0]) is None:
        raise ConfigError(
            f"attention = {attention!r} takes the package {FLASH[attention][1]}, which is not installed (it is built "
            "against your torch and CUDA); install it, or leave attention = 'auto', which needs no package"
        )
    if attention in ON_GPUS and not torch.cuda.is_available():
        raise ConfigError(f"attention = {attention!r} trains on CUDA GPUs and none is visible; leave it at 'auto'")
    return {"attn_implementation": attention}
