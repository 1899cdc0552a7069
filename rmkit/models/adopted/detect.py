"""Which profile a folder has, from what its files say.

In this order: an adapter, a value head in a file of its own, OpenRLHF's `value_head_prefix`, a shipped family, a class
of transformers with one label, a language model that a judge's profile is for, custom code. Whatever leaves open which
number is the reward is refused with the names and shapes that are there and what to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rmkit.errors import ModelError
from rmkit.judge.profile import detected as judge_detected
from rmkit.models.adopted.network import SEQUENCE, TOKENS, class_names, head_labels
from rmkit.models.adopted.profile import MatchTable, Profile, ReadTable, families, family
from rmkit.models.adopted.source import Source
from rmkit.models.transformer.checkpoint import Checkpoint

_SAY = "say how it is read: rmkit adopt MODEL --family NAME, --config FILE.toml or --set read.KEY=VALUE"


@dataclass(frozen=True, slots=True)
class Detected:
    """A profile, why it was taken, and what the user should know."""

    profile: Profile
    because: str
    warnings: tuple[str, ...] = ()


def detect(source: Source, *, settings: Mapping[str, Any], trust_remote_code: bool = False) -> Detected:
    """The profile of a folder. `settings` are tables that the user names over it: they may answer what the files leave
    open. Raises ModelError where it cannot be told."""
    if (source.folder / "adapter_config.json").is_file():
        return _adapter(source)
    raw = source.config
    checkpoint = Checkpoint.of(source.folder, more=value_head(source))
    for name, profile in families().items():
        if _matches(profile.match, source, raw, checkpoint):
            missing = _out_of_vocabulary(profile, raw)
            if missing is None:
                return Detected(profile, f"family {name}: {_reasons(profile.match)}")
    if raw.get("value_head_prefix"):
        known = family("openrlhf")
        head = replace(known.head, linear=str(raw["value_head_prefix"]))
        return Detected(replace(known, head=head), "OpenRLHF: config.json names value_head_prefix")
    if trust_remote_code and raw.get("auto_map"):
        return Detected(
            replace(family("ziya"), family="", title="", note="", match=MatchTable()), "custom code, as allowed"
        )
    return _by_class(source, raw, checkpoint, settings)


def value_head(source: Source) -> tuple[str, ...]:
    """The file of a value head beside a language model."""
    return tuple(one for one in ("value_head.safetensors", "value_head.bin") if (source.folder / one).is_file())[:1]


def _by_class(source: Source, raw: Mapping[str, Any], checkpoint: Checkpoint, settings: Mapping[str, Any]) -> Detected:
    architecture = str((raw.get("architectures") or [""])[0])
    labels = head_labels(checkpoint)
    if architecture in class_names(SEQUENCE) and labels is not None:
        known = family("scalar" if "score.weight" in checkpoint.tensors else "encoder")
        if (
            labels == 1
            or {"column", "softmax"} & set(settings.get("read", {}))
            or "weights" in settings.get("head", {})
        ):
            return Detected(known, f"{architecture} with a head of {labels} labels", _of_trainer(source, raw))
        names = [str(one) for one in (raw.get("id2label") or {}).values()] or [f"LABEL_{n}" for n in range(labels)]
        example = (
            "read.column=1 --set read.minus=0" if labels == 2 else "read.column=N, or head.weights = [...] in a file"
        )
        raise ModelError(
            f"{source.folder}: {architecture} has {labels} labels ({', '.join(names[:6])}), and nothing says which is "
            f"the reward; say it: rmkit adopt MODEL --set {example}"
        )
    if architecture in class_names(TOKENS) and labels is not None:
        tags = source.card.get("tags") or []
        if labels == 2 and {"prm", "prm-trainer", "stepwise-reward-trainer"} & set(map(str, tags)):
            return Detected(family("trl-prm"), f"{architecture} with 2 labels, and its card says TRL's PRM trainer")
        raise ModelError(
            f"{source.folder}: {architecture} with {labels} labels scores tokens, and nothing says at which; {_SAY}, "
            "for example --family trl-prm"
        )
    if architecture.endswith("ForCausalLM") and labels == 1 and "score.weight" in checkpoint.tensors:
        return Detected(family("nemo-rl"), f"{architecture} in config.json, but score.weight with one label beside it")
    if (
        architecture.endswith("ForCausalLM")
        and architecture not in ("", "None")
        and labels is None
        and _plain(checkpoint)
    ):
        if judge := judge_detected(hub=source.hub, folder=source.folder):
            profile = Profile(read=ReadTable(kind="judge", profile=judge.name))
            return Detected(profile, f"a language model that judges: profile {judge.name}")
        raise ModelError(
            f"{source.folder} is a language model without a reward head; measure it against its start (--set "
            "read.kind=ratio --set model.reference=MODEL), read its tokens (read.kind=token), or ask it as a judge "
            "(--set read.kind=judge --set read.profile=pairwise; in one line judge:FOLDER?prompt=pairwise)"
        )
    if raw.get("auto_map"):
        raise ModelError(
            f"{source.folder} brings custom code ({architecture}) and is of no family known here; read its code, then: "
            f"rmkit adopt MODEL --trust-remote-code; or {_SAY}. Its tensors: {checkpoint.summary()}"
        )
    near = _nearest(architecture, checkpoint)
    raise ModelError(
        f"{source.folder}: {architecture or 'no architecture'} is of no family known here{near}; transformers would "
        f"fill its head with random numbers. {_SAY}. Its tensors: {checkpoint.summary()}"
    )


def _adapter(source: Source) -> Detected:
    from rmkit import config

    settings = config.read_object(source.folder / "adapter_config.json", raises=ModelError, hint="download it again")
    task = settings.get("task_type")
    names = Checkpoint.of(source.folder).tensors
    heads = [name for name in names if name.endswith(("score.weight", "classifier.weight"))]
    base = settings.get("base_model_name_or_path")
    if task == "SEQ_CLS" and heads and base:
        profile = family("scalar")
        profile = replace(profile, model=replace(profile.model, base=str(base)))
        return Detected(profile, f"a LoRA adapter of a sequence classifier with its head ({heads[0]})")
    raise ModelError(
        f"{source.folder} is an adapter (task {task or 'not named'}) that stores no score head, so the head would be "
        f"random; train with task_type SEQ_CLS or modules_to_save = ['score'], or adopt the merged model. It holds "
        f"{', '.join(list(names)[-3:])}"
    )


def _matches(match: MatchTable, source: Source, raw: Mapping[str, Any], checkpoint: Checkpoint) -> bool:
    if match == MatchTable():
        return False
    architectures = raw.get("architectures") or []
    return (
        (not match.architectures or bool(set(match.architectures) & set(architectures)))
        and all(name in checkpoint.tensors for name in match.tensors)
        and all((source.folder / name).is_file() for name in match.files)
        and all((raw.get(key) == value) for key, value in match.config.items())
        and (not match.hub or any(source.hub.startswith(name) for name in match.hub))
    )


def _reasons(match: MatchTable) -> str:
    parts = [*match.architectures, *match.tensors, *match.files, *match.config, *match.hub]
    return ", ".join(parts[:4])


def _out_of_vocabulary(profile: Profile, raw: Mapping[str, Any]) -> int | None:
    """An id that a profile names and the model does not have."""
    at = profile.read.at
    ids = [profile.text.append, *(at.values() if isinstance(at, Mapping) else ())]
    size = raw.get("vocab_size") or (raw.get("text_config") or {}).get("vocab_size") or 1 << 40
    return next((one for one in ids if isinstance(one, int) and one >= size), None)


def _plain(checkpoint: Checkpoint) -> bool:
    """Whether nothing but trunk and vocabulary head is there."""
    return all(name.startswith(("model.", "transformer.", "gpt_neox.", "lm_head.")) for name in checkpoint.tensors)


def _nearest(architecture: str, checkpoint: Checkpoint) -> str:
    """The family that shares the most names, as a part of a sentence."""
    import difflib

    def likeness(profile: Profile) -> float:
        expected = profile.match.tensors
        share = sum(name in checkpoint.tensors for name in expected) / len(expected) if expected else 0.0
        names = max(
            (difflib.SequenceMatcher(None, architecture, one).ratio() for one in profile.match.architectures), default=0
        )
        return share + names / 2

    best = max(families().values(), key=likeness)
    return f" (the nearest is {best.family})" if likeness(best) > 0.5 else ""


def _of_trainer(source: Source, raw: Mapping[str, Any]) -> tuple[str, ...]:
    """What the trainer that left a folder did to texts, where rmkit's reading differs."""
    if (source.folder / "args.json").is_file():
        return (
            "ms-swift trained it on its own template and default system turn (args.json); the tokenizer's is used here",
        )
    return ()
