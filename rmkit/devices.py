"""Which devices there are, which one a process computes on, and how several processes share them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec

from rmkit.errors import UsageError

VISIBLE, DEVICE = "CUDA_VISIBLE_DEVICES", "RMKIT_DEVICE"


def gpus() -> list[str]:
    """The GPUs that this process may use, by what CUDA_VISIBLE_DEVICES calls each of them."""
    if not find_spec("torch"):
        return []
    import torch

    n = torch.cuda.device_count()
    named = [one.strip() for one in os.environ.get(VISIBLE, "").split(",") if one.strip()]
    return named[:n] if named else [str(number) for number in range(n)]


def chosen(name: str | None = None) -> str:
    """The torch device of this name; of None or `auto` that of $RMKIT_DEVICE, else a GPU where there is one: of the
    processes that torchrun started each its own.

    Raises UsageError for a device that is not here.
    """
    import torch

    name = (None if name == "auto" else name) or os.environ.get(DEVICE) or None
    if name in (None, "auto"):
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise UsageError(f"there is no device {name!r} here, but {', '.join(here)}") from error
    return str(name)


def assigned(text: str) -> list[dict[str, str]]:
    """What each of several processes has in its environment, from `auto` (a process a GPU; where there is none, one on
    the CPU), `cpu`, or numbers of GPUs, one process for each. Raises UsageError for a GPU that is not here."""
    here = gpus()
    if text == "cpu" or (text == "auto" and not here):
        return [{VISIBLE: "", DEVICE: "cpu"}]
    if text == "auto":
        return [{VISIBLE: one} for one in here]
    try:
        return [{VISIBLE: here[int(number)]} for number in text.split(",") if int(number) >= 0]
    except (ValueError, IndexError) as error:
        numbers = ", ".join(map(str, range(len(here)))) or "none"
        raise UsageError(f"--devices takes auto, cpu or numbers of GPUs ({numbers} here), got {text!r}") from error


def named(environment: Mapping[str, str]) -> str:
    """What to call the device of one of several processes."""
    return f"GPU {environment[VISIBLE]}" if environment[VISIBLE] else "CPU"
