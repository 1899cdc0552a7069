"""Which texts a model reads with the same rotary frequencies, and how it forgets those of the texts before.

Two kinds of rotary embedding in transformers look at the longest text of a pass and turn all texts of it by one set of
frequencies, so that a score would depend on its batch mates, and with dynamic NTK on earlier passes too:

    longrope (Phi-3)   the short or the long factors, by whether the longest text has more tokens than the model was
                       first trained with (`original_max_position_embeddings`)
    dynamic NTK        a base that grows with the longest text, from `max_position_embeddings` tokens on, and shrinks
                       again only when a pass is shorter than that

The others (default, linear, yarn, llama3, proportional) are fixed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class FrequencyBorders:
    """Text lengths in tokens beyond which frequencies change: once (`switch`), or with every length (`grow`)."""

    switch: tuple[int, ...]
    grow: tuple[int, ...]

    def key(self, length: int) -> Hashable:
        """Texts of equal keys are read with the same frequencies."""
        return *(length > border for border in self.switch), *(max(length, border) for border in self.grow)


def frequency_borders(config: Any) -> FrequencyBorders | None:
    """Those of a text config; None where its frequencies are fixed."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]  # one for each type of layer
    switch, grow = set(), set()
    for one in nested or [parameters]:
        kind = str(one.get("rope_type", one.get("type", "default")))
        if kind in ("longrope", "su"):
            original = one.get("original_max_position_embeddings")
            switch.add(original or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))
        elif "dynamic" in kind:
            grow.add(config.max_position_embeddings)
    return FrequencyBorders(tuple(sorted(switch)), tuple(sorted(grow))) if switch or grow else None


@contextlib.contextmanager
def fresh_frequencies(model: nn.Module) -> Iterator[None]:
    """The block begins with the frequencies of short texts, and so does whatever comes after it."""
    _forget(model)
    try:
        yield
    finally:
        _forget(model)


def _forget(model: nn.Module) -> None:
    """Undo what `dynamic_rope_update` of transformers stores when it meets a long text."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        if kinds is None or not hasattr(module, "original_max_seq_len"):
            continue
        by_prefix = {f"{layer}_": kind for layer, kind in kinds.items()} if isinstance(kinds, dict) else {"": kinds}
        for prefix, kind in by_prefix.items():
            if "dynamic" in kind:
                original = getattr(module, f"{prefix}original_inv_freq")
                current = getattr(module, f"{prefix}inv_freq")
                module.register_buffer(f"{prefix}inv_freq", original.to(current.device), persistent=False)
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
