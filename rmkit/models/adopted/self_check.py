"""An adopted model held against the library's own forward: alone, and padded at either side in one batch.

The outputs compared are those that the head gives at the token read, before they are made one number. A difference is
no fault of the model: it says which number another server will give for the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from rmkit.chat.encode import Encoded
from rmkit.models.adopted.headed import HeadedModel
from rmkit.models.adopted.network import HeadedTrunk
from rmkit.models.adopted.text import AdoptedChat
from rmkit.types import Candidates

SAME = 1e-4


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """Largest differences over `n` probes between the head's outputs here and in transformers' own forward.

    `last_token` is the same for a server that reads the last token, whatever the model's rule.
    """

    n: int
    alone: float
    padded_right: float
    padded_left: float
    last_token: float
    largest_output: float

    def as_json(self) -> dict[str, float | int]:
        """JSON-ready."""
        return {key: value for key, value in asdict(self).items() if value == value}

    def sentences(self) -> list[str]:
        """What a user should know about other servers, one line each."""
        allowed = SAME * max(1.0, self.largest_output)
        ways = {
            "transformers, one text at a time": self.alone,
            "transformers, a batch padded at the right": self.padded_right,
            "transformers, a batch padded at the left": self.padded_left,
            "a server that reads the last token": self.last_token,
        }
        return [
            f"{way}: other numbers, up to {gap:.3g} away; rmkit's is the one that the model's rule reads"
            for way, gap in ways.items()
            if gap > allowed
        ]


@torch.no_grad()
def self_check(model: Any, probes: Sequence[Candidates]) -> SelfCheck | None:
    """The check on texts that the model can take; None for readers whose reading is the library's own forward."""
    if not isinstance(model, HeadedModel):
        return None
    encoded = [model.encode(item, item.completions[0]) for item in probes]
    texts = [one for one in encoded if isinstance(one, Encoded)]
    if not texts:
        return None
    ours = _ours(model, texts)
    classifier = model.module.classifier
    before = classifier.config.get_text_config()._attn_implementation
    packed = model.module.padded_because is None
    if packed:
        classifier.set_attn_implementation("eager")  # the one that every architecture has
    try:
        alone = [_forward(model, [one], left=False) for one in texts]
        right, left = (_forward(model, texts, left=side) for side in (False, True))
    finally:
        if packed:
            classifier.set_attn_implementation(before)
    last = [Encoded(one.ids, one.prompt_tokens, (len(one.ids) - 1,)) for one in texts]
    head = model.profile.head
    one_place = not model.profile.in_steps and head.gate is None and head.pooling == "token"
    at_last = _ours(model, last) if one_place else ours
    flat = torch.cat(ours)
    return SelfCheck(
        len(texts),
        _gap(ours, [rows for [rows] in alone]),
        _gap(ours, right),
        _gap(ours, left),
        _gap(ours, at_last),
        float(flat.abs().max()),
    )


def _ours(model: HeadedModel, texts: Sequence[Encoded]) -> list[Tensor]:
    """Per text the outputs [S, A] at its S tokens read."""
    return [torch.tensor(output) for row in model.outputs([[one] for one in texts]) for output in row]


def _forward(model: HeadedModel, texts: Sequence[Encoded], *, left: bool) -> list[Tensor]:
    """The same by the library's own forward over one padded batch."""
    classifier = model.module.classifier
    longest = max(len(one.ids) for one in texts)
    pad = cast(AdoptedChat, model.chat).pad_id or 0
    ids = torch.full((len(texts), longest), pad)
    mask = torch.zeros_like(ids)
    starts = [longest - len(one.ids) if left else 0 for one in texts]
    for line, (one, start) in enumerate(zip(texts, starts, strict=True)):
        ids[line, start : start + len(one.ids)] = torch.tensor(one.ids)
        mask[line, start : start + len(one.ids)] = 1
    inputs = {"input_ids": ids.to(classifier.device), "attention_mask": mask.to(classifier.device)}
    reads = [[start + at for at in one.step_index] for one, start in zip(texts, starts, strict=True)]
    if isinstance(classifier, HeadedTrunk):
        states = classifier.model(**inputs, use_cache=False).last_hidden_state
        return [classifier.score(states[line, at].float()).cpu() for line, at in enumerate(reads)]
    logits = classifier(**inputs).logits.float().cpu()
    if logits.ndim == 3:
        return [logits[line, at] for line, at in enumerate(reads)]
    return [logits[line][None] for line in range(len(texts))]


def _gap(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return max(float((a - b.reshape(a.shape)).abs().max()) for a, b in zip(one, other, strict=True))
