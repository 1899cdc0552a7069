"""Adopting: from a Hub id or a folder to an artifact that is a reward model like any other.

What is named twice counts in this order: `--set`, the adoption file, the family named, what was detected.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rmkit import paths
from rmkit.chat.template import PINNED_DATE
from rmkit.errors import one_line
from rmkit.models.adopted import profile as profiles
from rmkit.models.adopted.detect import Detected, detect
from rmkit.models.adopted.judge_profile import with_judge
from rmkit.models.adopted.model import WEIGHTS, at_places, linked_sources, meaning, open_model
from rmkit.models.adopted.profile import Profile, merged, places, profile_of
from rmkit.models.adopted.self_check import SelfCheck, self_check
from rmkit.models.adopted.source import Source, open_source
from rmkit.models.artifact import golden
from rmkit.models.artifact.folder import CARD, building, open_artifact, sign
from rmkit.models.transformer.artifact import golden_line
from rmkit.models.transformer.process import probes
from rmkit.revision import versions
from rmkit.user import user_name

Tables = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Adoption:
    """An adopted model: where its artifact lies, how it is read, what was seen."""

    path: Path
    fingerprint: str
    source: Source
    profile: Profile
    because: str
    warnings: tuple[str, ...]
    card: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """What `rmkit adopt --json` prints: path, fingerprint, warnings, and the artifact's card."""
        return {"path": str(self.path), "fingerprint": self.fingerprint, "warnings": list(self.warnings), **self.card}


def adopt(
    model: str | Path,
    *,
    tables: Tables | None = None,
    family: str = "",
    output: Path | None = None,
    trust_remote_code: bool = False,
    copy: bool = False,
    device: str | None = None,
) -> Adoption:
    """Write the artifact of a Hub id or a folder (default $RMKIT_HOME/models/NAME), its weights left in place.

    `tables` are those of an adoption file. Raises ModelError where the number cannot be told from the files, weights
    are missing or left over, or custom code is not allowed; ConfigError for a wrong profile.
    """
    tables = tables or {}
    source = open_source(model or str(tables.get("model", {}).get("source", "")), revision=_revision(tables))
    target = output or paths.home() / "models" / source.name
    detected = resolved(source, tables, family=family, trust_remote_code=trust_remote_code)
    profile = with_judge(detected.profile)
    if trust_remote_code and profile.read.kind == "remote":
        profile = replace(profile, model=replace(profile.model, remote_code=f"sha256:{source.code_sha256()}"))
    linked = linked_sources(source, profile)
    profile = at_places(profile, {role: one.address for role, one in linked.items()})
    with building(target) as draft:
        files = _copied(source, draft / WEIGHTS) if copy else source
        result = _write(draft, files, detected, profile, linked, device, origin=source)
    return replace(result, path=target)


def adopted_folder(name: str | Path) -> Path:
    """The artifact of a Hub id or a folder under $RMKIT_HOME/adopted, adopted now where it was not before.

    Only what can be told from the files is adopted like this; otherwise as `adopt`.
    """
    source = open_source(name)
    target = paths.home() / "adopted" / f"{source.name}-{source.mark()}"
    if not (target / CARD).is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        adopt(name, output=target)
    return target


def _revision(tables: Tables) -> str:
    return str(tables.get("model", {}).get("revision", ""))


def resolved(source: Source, tables: Tables, *, family: str = "", trust_remote_code: bool = False) -> Detected:
    """The profile by what was named, else by what the files tell. Raises as `adopt`."""
    if family:
        known = profiles.family(family)
        named = merged({**known.as_json(), "model": places(known), "family": family, "note": known.note}, tables)
        return Detected(profile_of(named, where=f"family {family}"), because=f"the family {family}, as named")
    if "kind" in tables.get("read", {}):
        return Detected(profile_of(tables, where="the adoption file"), because="the adoption file")
    detected = detect(source, settings=tables, trust_remote_code=trust_remote_code)
    known = detected.profile
    tables = merged({**known.as_json(), "model": places(known), "family": known.family, "note": known.note}, tables)
    return replace(detected, profile=profile_of(tables, where="the adoption file"))


def _copied(source: Source, folder: Path) -> Source:
    folder.mkdir()
    for path in (*source.files(), source.folder / "README.md"):
        if path.is_file():
            shutil.copy2(path, folder / path.name)
    return replace(source, folder=folder)


def _write(
    folder: Path,
    source: Source,
    detected: Detected,
    profile: Profile,
    linked: Mapping[str, Source],
    device: str | None,
    *,
    origin: Source,
) -> Adoption:
    """The artifact in `folder` of the files in `source`, which came from `origin` where they were copied."""
    kind, scale, pointwise = meaning(profile)
    code = profile.model.remote_code
    card = {
        "model": "adopted",
        "kind": kind,
        "scale": scale,
        "pointwise": pointwise,
        "temperature": 1.0,
        "name": origin.name,
        "config": {"profile": profile.as_json(), "files": source.hashes()}
        | ({"linked": {role: one.hashes() for role, one in linked.items()}} if linked else {}),
        "source": {
            "path": str(origin.folder.resolve()),
            "hub": source.hub,
            "revision": source.revision,
            "license": profile.model.license or source.license,
            "base": profile.model.base or source.base,
            "linked": {role: one.address for role, one in linked.items()},
        },
        "family": profile.family,
        "because": detected.because,
        "architectures": source.config.get("architectures"),
        "consent": {"by": user_name(), "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "code": code} if code else None,
        "versions": versions("transformers", "tokenizers", "torch"),
        "expect": {"rewardbench": profile.expect.rewardbench} if profile.expect.rewardbench else None,
    }
    card = {key: value for key, value in card.items() if value not in (None, "", {})}
    sign(folder, card, bound=[])
    opened = open_artifact(folder)
    model = open_model(source, profile, opened.info, card=card, device=device, options={})
    card |= _seen(model)
    texts = probes(profile.text.separator) if profile.in_steps else list(golden.PROBES)
    lines = [line for probe in texts if (line := _line(model, *probe))]
    check = self_check(model, [golden.probe_item(*probe) for probe in texts])
    warnings = (*detected.warnings, *_warnings(model, profile, check))
    card |= {"self_check": check.as_json()} if check else {}
    card |= {"warnings": list(warnings)} if warnings else {}
    sign(folder, card, bound=[])
    golden.write(folder, lines)
    opened = open_artifact(folder)
    return Adoption(folder, opened.info.fingerprint, origin, profile, detected.because, warnings, opened.card)


def _seen(model: Any) -> dict[str, Any]:
    """What the opened model shows of itself: loading, tokens, template."""
    seen: dict[str, Any] = {}
    chat = getattr(model, "chat", None) or getattr(model, "text", None)
    if chat is not None:
        tokenizer = chat.tokenizer
        seen["text"] = {
            "template_sha256": chat.template_hash,
            "chat_fingerprint": chat.fingerprint,
            "pinned_date": f"{PINNED_DATE:%Y-%m-%d}",
            "max_tokens": chat.truncation.max_length,
            "bos": tokenizer.bos_token_id,
            "eos": tokenizer.eos_token_id,
            "pad": chat.pad_id,
        }
    loading = getattr(model, "loading", None)
    if loading is not None:
        seen["loading"] = {"tensors": loading.tensors, "bytes": loading.n_bytes, "left_aside": list(loading.left_aside)}
    module = getattr(model, "module", None)
    if module is not None:
        config = module.classifier.config.get_text_config()
        seen["runs"] = {"dtype": str(module.classifier.dtype), "attention": str(config._attn_implementation)}
    return seen


def _line(model: Any, prompt: str, response: str) -> dict[str, Any] | None:
    """The golden line of a probe; None where the model cannot take it."""
    if hasattr(model, "chat"):
        return golden_line(model, prompt, response, trained_with=model.chat)
    [[score]] = model.golden_scores([golden.probe_item(prompt, response)])
    return None if score.unscored else {"prompt": prompt, "response": response, "score": score.value}


def _warnings(model: Any, profile: Profile, check: SelfCheck | None) -> list[str]:
    warnings = check.sentences() if check else []
    if profile.note:
        warnings.append(f"family {profile.family}: {profile.note}")
    if note := profile.read.judge.get("note"):
        warnings.append(f"judge profile {profile.read.profile}: {note}")
    texts = [(str(prompt), str(response), float(score)) for prompt, response, score in profile.expect.texts]
    scores = model.score([golden.probe_item(prompt, response) for prompt, response, _ in texts]) if texts else []
    for (_, response, expected), [score] in zip(texts, scores, strict=True):
        if score.unscored or abs(score.value - expected) > profile.expect.tolerance:
            got = score.unscored or f"{score.value:.5g}"
            warnings.append(f"its card prints {expected:g} for {response[:40]!r}, here it is {one_line(str(got))}")
    return warnings
