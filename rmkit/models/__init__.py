"""Reward models that rmkit can load, behind one function.

Which kinds there are, and what loads each, is the group `models` of `rmkit.plugins`. An artifact's reward_model.json
names its kind; a kind that needs no folder (`length`, or a plug-in that says so) is loaded by its name alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rmkit import paths, plugins
from rmkit.errors import ModelError, RmkitError, UsageError, missing_extra
from rmkit.models.adopted.source import is_foreign, is_hub_id
from rmkit.models.artifact.folder import CARD, open_artifact
from rmkit.models.artifact.model_card import CALIBRATION
from rmkit.models.wrappers.calibrated import CalibratedModel, read_calibration
from rmkit.storage.address import is_address
from rmkit.storage.fetch import fetch
from rmkit.types import RewardModel


def load_model(name: str | Path | RewardModel, *, check: bool = True, **options: Any) -> RewardModel:
    """The reward model that `name` is; one that is already loaded is given back as it is.

    A name is, in this order: the .toml of a judge, or one in a line (judge:FOLDER?prompt=pairwise); the folder of an
    artifact, its name under $RMKIT_HOME/models, or an alias NAME@ALIAS; a kind that needs no folder (`length`, a
    plug-in's name, "module:object"); a verifier with its defaults (`exact_match`); the URL of a running reward service;
    a folder or a Hub id ORG/NAME[@REVISION] of somebody else's model, which is adopted. What lies at an address of
    object storage (s3://bucket/key) is fetched first.

    Where calibration.json lies beside an artifact, its mappings apply. `options` go to the kind of model that takes
    them (transformers: precision, max_batch_tokens, device; frozen ones: precision); UsageError where it takes none,
    but for fp32, which is what all models compute in unless told otherwise. Raises ModelError where there is no such
    model, files are missing or changed, the fingerprint differs, or the golden scores do not come out again (unless
    `check` is False); MissingExtraError where the model needs a package that is not installed.
    """
    if not isinstance(name, str | Path):
        return name
    if str(name).startswith(("http://", "https://")):
        from rmkit.serve.clients.reward_client import client_named

        return client_named(str(name))
    if is_address(str(name)):
        name = fetch(str(name))
    if str(name).endswith(".toml"):
        return _judge(Path(name))
    if str(name).startswith("judge:"):
        from rmkit.judge.one_line import load as load_judge_line

        return load_judge_line(str(name))
    if (load := _without_folder(str(name))) is not None:
        return _loaded(load, None, str(name), check=check, options=options)
    if str(name) in plugins.names("verifiers") and not Path(name).exists():
        from rmkit.verifiers.verifier import load_verifier

        return load_verifier(str(name))
    return load_stored(find_model(name), check=check, **options)


def load_stored(folder: Path, *, check: bool = True, **options: Any) -> RewardModel:
    """The model in an artifact folder, and never what a name might mean besides; otherwise as `load_model`."""
    model = load_raw(folder, check=check, **options)
    if not (folder / CALIBRATION).is_file():
        return model
    return CalibratedModel(model, read_calibration(folder, model.info.fingerprint))


def load_raw(folder: Path, *, check: bool = True, **options: Any) -> RewardModel:
    """The model in an artifact folder without what calibration.json lays over it; otherwise as `load_model`."""
    kind = open_artifact(folder).card.get("model")
    if kind not in plugins.names("models"):
        raise ModelError(
            f"{folder}: unknown model {kind!r}; this rmkit loads {', '.join(plugins.names('models'))}; upgrade it, or "
            "install the package that brings this kind"
        )
    return _loaded(plugins.resolve("models", kind), folder, kind, check=check, options=options)


def _loaded(
    load: Callable[..., RewardModel], folder: Path | None, kind: str, *, check: bool, options: dict[str, Any]
) -> RewardModel:
    parameters = inspect.signature(load).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        unknown = {name: value for name, value in options.items() if name not in parameters}
        if unknown.pop("precision", "fp32") != "fp32":
            raise UsageError(
                f"{folder or kind} is a {kind} model, which takes no precision: it computes in fp32 or finer"
            )
        if unknown:
            raise UsageError(f"{folder or kind} is a {kind} model, which takes no {', '.join(sorted(unknown))}")
        options = {name: value for name, value in options.items() if name in parameters}
    try:
        return load(folder, check=check, **options)
    except (RmkitError, NotImplementedError):
        raise
    except ModuleNotFoundError as error:
        raise missing_extra(error, prefer="train") or error from error
    except Exception as error:  # anybody's folder, read by many libraries: whatever they raise, it is no usable model
        raise ModelError(f"{folder or kind} cannot be used: {type(error).__name__}: {error}") from error


def _without_folder(name: str) -> Callable[..., RewardModel] | None:
    """What loads the kind of model that `name` is, where that kind needs no folder and no folder has the name."""
    if (Path(name) / CARD).is_file() or (paths.home() / "models" / name / CARD).is_file():
        return None
    if name not in plugins.names("models") and not (":" in name and "/" not in name):
        return None
    load: Callable[..., RewardModel] = plugins.resolve("models", name, trusted=True)
    folder = next(iter(inspect.signature(load).parameters.values()), None)
    return load if folder is not None and folder.default is not folder.empty else None


def _judge(path: Path) -> RewardModel:
    """The judge of a TOML, or what its table [writer], [rubric] or [jury] makes of it."""
    from rmkit.judge.config import third_table
    from rmkit.judge.model import load_judge

    if (table := third_table(path)) is None:
        return load_judge(path)
    model: RewardModel = plugins.upper(f"judge_{table}")(path)
    return model


def find_model(name: str | Path, *, adopt: bool = True) -> Path:
    """The artifact folder of a path, of a name under $RMKIT_HOME/models, or of an alias NAME@ALIAS; with `adopt` also
    what is fetched from an address (s3://bucket/key), and the one that is made, once, of somebody else's folder or Hub
    id.

    A path that exists wins. Raises ModelError where there is no such model, or where an alias points to one that is
    no longer there.
    """
    if adopt and is_address(str(name)):
        name = fetch(str(name))
    path, stored = Path(name), paths.home() / "models" / str(name)
    for folder in (path, stored):
        if (folder / CARD).is_file():
            return folder
    if adopt and (is_foreign(path) or (is_hub_id(str(name)) and not path.exists())):
        from rmkit.models.adopted.adopt import adopted_folder

        return adopted_folder(name)
    if "@" in str(name) and not path.exists():
        from rmkit.models.artifact.aliases import resolve

        return resolve(str(name))
    if path.exists():
        return path  # opening it says what is missing
    raise ModelError(
        f"no model {name}: not a folder, not a name under {stored.parent}, not an alias, no Hub id; see: rmkit models"
    )
