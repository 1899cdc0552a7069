"""Settings of runs that are right at the first try, and the shapes of the models that they name.

    qwen3-0.6b  qwen3-8b  qwen3-8b-lora  qwen3-8b-qlora  llama-70b-lora  of train explicit
    prm-7b                                                               of train process
    dpo-8b                                                               of train implicit

`rmkit train explicit --config qwen3-8b --data hh@v2`: a name without a folder is a recipe. Where each number comes from
stands in docs/training_recipes.md.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from rmkit.errors import ConfigError, unknown


def recipe(name: str) -> Path:
    """The file of a shipped recipe, by its name without .toml. Raises ConfigError."""
    path = Path(str(files(__package__) / f"{name}.toml"))
    if not path.is_file() or name == "shapes":
        raise ConfigError(unknown("recipe", name, recipes()))
    return path


def recipes() -> list[str]:
    """The names of all recipes."""
    folder = Path(str(files(__package__)))
    return sorted(path.stem for path in folder.glob("*.toml") if path.stem != "shapes")


def shape_of(model: str) -> Any:
    """The config, as transformers knows it, of a model whose shape is known here. Raises ConfigError for others."""
    import transformers

    shapes: dict[str, dict[str, Any]] = tomllib.loads((files(__package__) / "shapes.toml").read_text())
    if model not in shapes:
        raise ConfigError(unknown("shape of a model", model, shapes))
    values = dict(shapes[model])
    config_class: Any = getattr(transformers, values.pop("config"))
    return config_class(**values)
