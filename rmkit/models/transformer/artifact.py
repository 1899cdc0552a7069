"""The artifact folder of a reward model that is a transformer.

    config.json, model.safetensors, tokenizer files   what transformers itself loads, to the same scores
    reward_model.json   kind, scale, truncation, template hash, dataset, resolved config, revision
    golden.jsonl        probe texts with their ids, fp32 scores and bf16 scores, and where steps are scored those
    README.md           model card

Weights and tokenizer are bound by SHA-256; loading recomputes the fingerprint and replays the golden ids and scores.
Weights that are missing (a score head above all) are an error, never a silent re-initialization.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rmkit import config
from rmkit.chat.encode import Chat, Encoded, TruncationPolicy
from rmkit.errors import ModelError
from rmkit.models.artifact import golden
from rmkit.models.artifact.folder import CARD, Artifact, open_artifact, sign
from rmkit.models.transformer.engine import TransformerModel
from rmkit.models.transformer.pretrained import load_tokenizer, quiet, set_pad
from rmkit.types import Scale

SHARD = "5GB"  # of safetensors files: larger ones are awkward to send, and few readers map them as a whole

Model = TypeVar("Model", bound=TransformerModel)


def store(
    folder: Path,
    models: Mapping[str, Any],
    chat: Chat,
    *,
    kind: str,
    scale: Scale,
    values: Mapping[str, Any],
    facts: Mapping[str, Any],
    load: Callable[..., TransformerModel],
    probes: Sequence[tuple[str, str]] = golden.PROBES,
) -> None:
    """Write models (not wrapped by peft) by subfolder into an existing empty folder, with chat, card and golden scores.

    `values` are what the kind adds to the card's config, `facts` name, temperature, dataset, training, validation, seed
    ... as the card shall tell them; `load` gives the model back from the folder.
    """
    for place, model in models.items():
        set_pad(model.config, chat.tokenizer.pad_token_id)
        with quiet():
            model.save_pretrained(folder / place, max_shard_size=SHARD)
    chat.save(folder)
    reading = {
        "template_sha256": chat.template_hash,
        "truncation": asdict(chat.truncation),
        "reasoning": chat.reasoning,
        "system": chat.system,
    }
    reading["chat_fingerprint"] = stored_chat(folder, reading).fingerprint  # what a reader gets: the bytes may differ
    bound = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    card = {"model": kind, "kind": kind, "scale": scale, "pointwise": True, "temperature": 1.0, **facts}
    sign(folder, card | {"config": {**values, **reading}}, bound=bound)
    model = load(folder, check=False)
    golden.write(folder, [line for probe in probes if (line := golden_line(model, *probe, trained_with=chat))])


def open_with_chat(folder: Path) -> tuple[Artifact, Chat]:
    """The opened artifact with its chat. Raises ModelError where the chat is not the one trained with."""
    opened = open_artifact(folder)
    stored = opened.card["config"]
    chat = stored_chat(folder, stored)
    if chat.fingerprint != stored["chat_fingerprint"]:
        raise ModelError(
            f"{folder}: template, tokenizer or truncation differ from training: got {chat.fingerprint[:12]}, "
            f"expected {stored['chat_fingerprint'][:12]}; the installed tokenizers may be another version"
        )
    return opened, chat


def verified(opened: Artifact, model: Model, *, check: bool) -> Model:
    """The model; ModelError where (with `check`) fingerprint, golden ids or golden scores differ."""
    if check:
        verify_ids(opened.folder, model)
    return golden.verified(opened, model, check=check)


def verify_ids(folder: Path, model: TransformerModel) -> None:
    """Raises ModelError where the golden texts no longer become the golden ids, or steps end at other tokens."""
    for row in golden.rows_of(folder):
        result = _ids(model, row["prompt"], row["response"])
        if result != {"ids": row["ids"], "step_index": row.get("step_index", [])}:
            raise ModelError(f"{folder}: golden ids differ for {row['response'][:40]!r}: text is rendered differently")


def stored_chat(folder: Path, stored: Mapping[str, Any]) -> Chat:
    """The chat of an artifact whose card's config is `stored`, without a check that it is the one trained with."""
    truncation = config.build_stored(TruncationPolicy, stored["truncation"], where=f"{folder / CARD}")
    settings = {"reasoning": stored.get("reasoning", "keep"), "system": stored.get("system")}
    return Chat(load_tokenizer(folder), truncation, **settings)


def golden_line(model: TransformerModel, prompt: str, response: str, *, trained_with: Chat) -> dict[str, object] | None:
    """The golden line of a probe; None where the truncation policy refuses it."""
    item = golden.probe_item(prompt, response)
    [[score]], [[rough]] = model.golden_scores([item]), model.golden_scores([item], precision="bf16")
    trained = copy.copy(model)
    trained.chat = trained_with
    ids = _ids(model, prompt, response)
    if ids != _ids(trained, prompt, response):
        raise ModelError(f"the saved tokenizer gives other ids than the one trained with: {response[:40]!r}")
    if score.unscored is not None:
        return None
    line = {"prompt": prompt, "response": response, "score": score.value}
    line |= {} if rough.unscored else {"score_bf16": rough.value}
    line |= {"steps": score.steps} if score.steps else {}
    return line | {name: value for name, value in ids.items() if value}


def _ids(model: TransformerModel, prompt: str, response: str) -> dict[str, list[int]]:
    item = golden.probe_item(prompt, response)
    one = model.encode(item, item.completions[0])
    return {"ids": list(one.ids), "step_index": list(one.step_index)} if isinstance(one, Encoded) else {}
