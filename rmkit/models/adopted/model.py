"""The artifact of an adopted model, whose weights stay where their author put them.

    reward_model.json   source (path or Hub id with revision), profile, SHA-256 of every file that a score depends on
    golden.jsonl        what it gave to rmkit's probes when it was adopted
    README.md           model card

Loading holds every file of the source against its hash, opens it by the recorded profile, and replays the golden ids
and scores; a folder that was changed since no longer loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmkit import plugins
from rmkit.errors import ModelError
from rmkit.ids import file_sha256
from rmkit.models.adopted.headed import Opening
from rmkit.models.adopted.judge_profile import judge_settings
from rmkit.models.adopted.profile import Profile, profile_of
from rmkit.models.adopted.source import Source, beside, is_adapter, open_source
from rmkit.models.artifact import golden
from rmkit.models.artifact.folder import CARD, Artifact, open_artifact
from rmkit.models.transformer.artifact import verify_ids
from rmkit.types import ModelInfo, ModelKind, RewardModel, Scale

WEIGHTS = "weights"  # the folder of a copy inside the artifact


def load(folder: str | Path, *, check: bool = True, device: str | None = None, **options: Any) -> RewardModel:
    """The model in an artifact folder, files held against their hashes, golden scores replayed unless told otherwise.

    `options` go to the model (max_batch_tokens, precision); `device` defaults to a GPU where there is one.
    """
    opened = open_artifact(Path(folder))
    source = source_of(opened)
    where, config = str(opened.folder / CARD), opened.card["config"]
    check_files(source, config["files"], where=where)
    profile = profile_in(opened)
    for role, linked in linked_sources(source, profile).items():
        check_files(linked, config["linked"][role], where=where)
    model = open_model(source, profile, opened.info, card=opened.card, device=device, options=options)
    if check and hasattr(model, "chat"):
        verify_ids(opened.folder, model)
    verified: RewardModel = golden.verified(opened, model, check=check)
    return verified


def open_model(
    source: Source,
    profile: Profile,
    info: ModelInfo,
    *,
    card: Mapping[str, Any],
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    module: Any = None,
) -> Any:
    """What the profile's reader makes of the source, with the network in `module` where one is given."""
    reader: Callable[[Opening], Any] = plugins.resolve("readers", profile.read.kind)
    temperature = float(card.get("temperature", 1.0))
    opening = Opening(
        source=source,
        profile=profile,
        info=info,
        temperature=temperature,
        device=device,
        options=options or {},
        module=module,
    )
    return reader(opening)


def profile_in(opened: Artifact) -> Profile:
    """The profile that an artifact records."""
    profile = profile_of(opened.card["config"]["profile"], where=str(opened.folder / CARD))
    return at_places(profile, opened.card["source"].get("linked", {}))


def at_places(profile: Profile, linked: Mapping[str, str]) -> Profile:
    """The profile with where its base and its reference lie."""
    return replace(profile, model=replace(profile.model, **linked))


def linked_sources(source: Source, profile: Profile) -> dict[str, Source]:
    """The other models that a model needs, by their roles: an adapter's base, a policy's reference.

    Raises ConfigError where the profile names none.
    """
    linked = {}
    if is_adapter(source):
        linked["base"] = beside(profile.model.base, source, role="base")
    if profile.read.kind == "ratio":
        linked["reference"] = beside(profile.model.reference, source, role="reference")
    return linked


def source_of(opened: Artifact) -> Source:
    """Where an artifact's weights lie: a copy inside it, the recorded folder, or the Hub at the recorded revision."""
    if (opened.folder / WEIGHTS).is_dir():
        return open_source(opened.folder / WEIGHTS)
    stored = opened.card["source"]
    if stored.get("hub"):
        return open_source(f"{stored['hub']}@{stored['revision']}")
    if not Path(stored["path"]).is_dir():
        raise ModelError(
            f"{opened.folder} was adopted from {stored['path']}, which is no longer there; bring the folder back, or "
            "adopt the model again (--copy keeps the weights inside the artifact)"
        )
    return open_source(stored["path"])


def check_files(source: Source, files: Mapping[str, Mapping[str, Any]], *, where: str) -> None:
    """Raises ModelError where a recorded file is missing or another one, or a new one lies beside them."""
    there = {path.name: path for path in source.files()}
    for name, recorded in files.items():
        if name not in there:
            raise ModelError(f"{source.folder / name} is missing, and {where} names it; bring it back or adopt again")
        if (got := file_sha256(there[name])) != recorded["sha256"]:
            raise ModelError(
                f"{there[name]} was changed since the model was adopted: sha256 is {got[:12]}..., {where} says "
                f"{str(recorded['sha256'])[:12]}...; adopt the model again"
            )
    if added := sorted(set(there) - set(files)):
        raise ModelError(
            f"{source.folder} holds {added[0]}, which was not there when the model was adopted; adopt it again"
        )


def meaning(profile: Profile) -> tuple[ModelKind, Scale, bool]:
    """Kind, scale and whether a score stands for itself, of the models that a profile describes."""
    if profile.read.kind == "judge":
        config = judge_settings(profile, "judge")
        return "generative", config.scale, config.pointwise
    kind: ModelKind = "process" if profile.in_steps else "explicit"
    match profile.read.kind:
        case "ratio":
            return "implicit", "log_ratio", True
        case "pair":
            return "explicit", "win_logit", False
    bounded = profile.scale.of == "sigmoid" or (profile.read.softmax is not None and profile.read.minus is None)
    scale: Scale = "probability" if bounded else ("rating" if profile.in_steps else "logit")
    return kind, scale, True
