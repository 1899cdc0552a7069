"""Reward models that rmkit can load, behind one function.

length    the built-in baseline: the longer response is better
lexical   hashed n-grams, logistic regression (needs scikit-learn only)
frozen    a frozen encoder's features and a small head (needs the train extra)
pairwise  the same with a head that sees both responses of a pair (needs the train extra)
explicit  a transformer with a scalar head (needs the train extra)
process   a transformer that scores every step of a solution (needs the train extra)
process-frozen  the same with a frozen encoder and a small head (needs the train extra)
implicit  a policy against its reference, by log-probabilities (needs the train extra)
ensemble  several of them, standardized, with mean, worst case or uncertainty-weighted score
...       anything else names the module that loads it, in its reward_model.json
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from rmkit import paths
from rmkit.errors import ModelError, RmkitError, UsageError
from rmkit.models.artifact.folder import CARD, open_artifact
from rmkit.models.artifact.model_card import CALIBRATION
from rmkit.models.wrappers.calibrated import CalibratedModel, read_calibration
from rmkit.plugins import upper
from rmkit.types import RewardModel

LOADERS = {
    "lexical": "rmkit.models.small.lexical:load",
    "frozen": "rmkit.models.small.frozen:load",
    "pairwise": "rmkit.models.small.pairwise:load",
    "explicit": "rmkit.models.transformer.explicit:load",
    "process": "rmkit.models.transformer.process:load",
    "process-frozen": "rmkit.models.small.process_frozen:load",
    "implicit": "rmkit.models.transformer.implicit:load",
    "ensemble": "rmkit.models.wrappers.ensemble:load",
}


def load_model(name: str | Path, *, check: bool = True, **options: Any) -> RewardModel:
    """The reward model that `name` is (see `find_model`), a judge's .toml, the URL of a running reward service, or the
    built-in baseline `length`.

    Where calibration.json lies beside it, its mappings apply. `options` go to the kind of model that takes them
    (transformers: precision, max_tokens, device; frozen ones: precision); UsageError where it takes none, but for fp32,
    which is what all models compute in unless told otherwise. Raises ModelError where files are missing or changed, the
    fingerprint differs, or the golden scores do not come out again (unless `check` is False); MissingExtraError where
    the model needs a package that is not installed.
    """
    if str(name) == "length":
        from rmkit.models.small.length import LengthModel

        return LengthModel()
    if str(name).endswith(".toml"):
        return _judge_of(Path(name))
    if str(name).startswith(("http://", "https://")):
        from rmkit.serve.clients.reward_client import client_named

        return client_named(str(name))
    return load_stored(find_model(name), check=check, **options)


def load_stored(folder: Path, *, check: bool = True, **options: Any) -> RewardModel:
    """The model in an artifact folder, and never what a name might mean besides; otherwise as `load_model`."""
    loaded = load_raw(folder, check=check, **options)
    if not (folder / CALIBRATION).is_file():
        return loaded
    return CalibratedModel(loaded, read_calibration(folder, loaded.info.fingerprint))


def load_raw(folder: Path, *, check: bool = True, **options: Any) -> RewardModel:
    """The model in an artifact folder without what calibration.json lays over it; otherwise as `load_model`."""
    model = open_artifact(folder).card.get("model")
    if model not in LOADERS:
        raise ModelError(f"{folder}: unknown model {model!r}; this rmkit loads {', '.join(LOADERS)}; upgrade rmkit")
    module, function = LOADERS[model].split(":")
    load = getattr(importlib.import_module(module), function)
    parameters = inspect.signature(load).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        unknown = {name: value for name, value in options.items() if name not in parameters}
        if unknown.pop("precision", "fp32") != "fp32":
            raise UsageError(f"{folder} is a {model} model, which takes no precision: it computes in fp32 or finer")
        if unknown:
            raise UsageError(f"{folder} is a {model} model, which takes no {', '.join(sorted(unknown))}")
        options = {name: value for name, value in options.items() if name in parameters}
    try:
        loaded: RewardModel = load(folder, check=check, **options)
    except (RmkitError, NotImplementedError):
        raise
    except Exception as error:  # anybody's folder, read by many libraries: whatever they raise, it is no usable model
        raise ModelError(f"{folder} cannot be used: {type(error).__name__}: {error}") from error
    return loaded


def _judge_of(path: Path) -> RewardModel:
    """The judge of a TOML, or what its table [writer] or [rubric] makes of it."""
    from rmkit.judge.config import THIRD_TABLES, third_table
    from rmkit.judge.model import load_judge

    if (table := third_table(path)) is None:
        return load_judge(path)
    loaded: RewardModel = upper(THIRD_TABLES[table])(path)
    return loaded


def find_model(name: str | Path) -> Path:
    """The artifact folder of a path, of a name under $RMKIT_HOME/models, or of an alias NAME@ALIAS.

    A path that exists wins. Raises ModelError where there is no such model, or where an alias points to one that is
    no longer there.
    """
    path, stored = Path(name), paths.home() / "models" / str(name)
    for folder in (path, stored):
        if (folder / CARD).is_file():
            return folder
    if "@" in str(name) and not path.exists():
        from rmkit.models.artifact.aliases import resolve

        return resolve(str(name))
    if path.exists():
        return path  # opening it says what is missing
    raise ModelError(
        f"no model {name}: not a folder, not a name under {stored.parent}, not an alias; see: rmkit models"
    )
