"""Reader `ratio`: how much likelier a policy finds a response than the model that it was trained from.

As rmkit's own implicit models, with the text of the policy's authors. With `cumulative` each step of a solution gets
the sum up to its end (EurusPRM).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from rmkit.chat.encode import Encoded
from rmkit.devices import chosen
from rmkit.models.adopted.headed import Opening, open_chat, score_of_steps
from rmkit.models.adopted.network import CAUSAL
from rmkit.models.adopted.source import Source, beside
from rmkit.models.transformer.checkpoint import Checkpoint, load_strictly
from rmkit.models.transformer.implicit import ImplicitRewardModel, LogProbs
from rmkit.models.transformer.policy import PolicyModule
from rmkit.types import Score


class RatioModel(ImplicitRewardModel):
    """A policy and its reference; steps get cumulative log-ratios where the profile says so."""

    def __init__(self, opening: Opening) -> None:
        profile, source = opening.profile, opening.source
        policy, reference = (
            _causal(one, opening.device) for one in (source, beside(profile.model.reference, source, role="reference"))
        )
        super().__init__(
            PolicyModule(policy),
            PolicyModule(reference),
            open_chat(source, profile),
            opening.info,
            beta=profile.read.beta,
            temperature=opening.temperature,
            **opening.options,
        )
        self.profile = profile

    def read(self, output: LogProbs, encoded: Encoded) -> Score:
        score = super().read(output, encoded)
        if score.unscored is not None or not self.profile.in_steps:
            return score
        first = len(encoded.ids) - len(output.policy)
        values = [self._until(output, step - first + 1) for step in encoded.step_index]
        by_step = score_of_steps(values, self.profile)
        return replace(score, value=by_step.value, steps=by_step.steps, aspects={**score.aspects, **by_step.aspects})

    def _until(self, output: LogProbs, n: int) -> float:
        """beta times the log-ratio of the first n response tokens."""
        return self.beta * (math.fsum(output.policy[:n]) - math.fsum(output.reference[:n]))


def open_model(opening: Opening) -> RatioModel:
    """The model. Raises ConfigError without a reference, ModelError where the two do not fit together."""
    return RatioModel(opening)


def _causal(source: Source, device: str | None) -> Any:
    import torch
    import transformers

    names = Checkpoint.of(source.folder).tensors
    model, _ = load_strictly(getattr(transformers, CAUSAL), source.folder, names=names, dtype=torch.float32)
    return model.eval().to(chosen(device))
