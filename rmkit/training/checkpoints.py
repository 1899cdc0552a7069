"""What a checkpoint holds: the weights that are trained, and where processes share them, each process's own share.

Weights that stay as they are (all but the adapters and the head, under LoRA) come from the base each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from rmkit.errors import ModelError


def trained(module: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries of a state dict that are trained."""
    names = _trained_names(module)
    return {name: weight for name, weight in state.items() if name in names}


def require_trained(module: nn.Module, result: Any) -> None:
    """Raises ModelError where load_state_dict's result says that a trained weight was missing, or one was unknown."""
    if wrong := sorted(_trained_names(module) & {*result.missing_keys}) + sorted(result.unexpected_keys):
        raise ModelError(f"the checkpoint is of another model: {len(wrong)} weights do not fit, {', '.join(wrong[:4])}")


def _trained_names(module: nn.Module) -> set[str]:
    return {name for name, weight in module.named_parameters() if weight.requires_grad}


def save_shares(module: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
    """Each process writes its shares of trained weights and optimizer state; all must call this."""
    save(_state(module, optimizer), checkpoint_id=folder)


def load_shares(module: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
    """What `save_shares` wrote, by as many processes or by others; all must call this."""
    state = _state(module, optimizer)
    load(state, checkpoint_id=folder)
    set_state_dict(
        module,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=StateDictOptions(ignore_frozen_params=True, strict=False),
    )


def _state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(module, optimizer, options=StateDictOptions(ignore_frozen_params=True))
    return {"model": weights, "optimizer": moments}
