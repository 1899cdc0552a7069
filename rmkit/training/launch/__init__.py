"""The config of `accelerate launch` for DeepSpeed; everything else needs torchrun alone (docs/training.md)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def config_file(name: str) -> Path:
    """The path of a shipped config, by its name without .yaml; see `docs/training.md`."""
    return Path(str(files(__package__) / f"{name}.yaml"))
