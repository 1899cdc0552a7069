"""Implicit reward models: what a policy has learned to prefer, measured against where it started.

    r(x, y)  = beta * (log pi(y | x) - log pi_ref(y | x))        summed over the tokens of y, prompt masked
             = the same divided by the number of tokens          where the model was trained so (`per_token`)

Rafailov et al., Direct preference optimization, arXiv:2305.18290, eq. 5. With a reference that was itself trained on
the swapped pairs this is the contrastive reward of AlignDistil (arXiv:2503.02832): the difference of the two models'
implicit rewards. `Score.aspects` keep the parts: `sum`, `per_token`, `policy` and `reference` log-probabilities,
`tokens`; `implicit_tokens.token_rewards` gives the terms of the sum with their places in the text.

A text that had to be shortened is unscored, and so is one to which a model gives no probability at all.

    config.json, model.safetensors, tokenizer files   the policy, as `AutoModelForCausalLM` loads it
    reference/          the model that it is measured against, as it was before training (or a reverse policy)
    reward_model.json   as every transformer's (`transformer_artifact`), with beta and whether it is per token
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmkit.chat.encode import Chat, Encoded
from rmkit.errors import DataError, ModelError
from rmkit.models.transformer.artifact import open_with_chat, store, verified
from rmkit.models.transformer.engine import TransformerModel
from rmkit.models.transformer.policy import PolicyModule
from rmkit.models.transformer.pretrained import complete
from rmkit.types import Candidates, Completion, ModelInfo, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REFERENCE = "reference"


class LogProbs(NamedTuple):
    """[T] log-probabilities of one response's tokens under both models."""

    policy: Sequence[float]
    reference: Sequence[float]


class ImplicitRewardModel(TransformerModel):
    """A policy and its reference with one chat; `options` are those of TransformerModel.

    Raises ModelError where the two do not share a vocabulary.
    """

    def __init__(
        self,
        policy: PolicyModule,
        reference: PolicyModule,
        chat: Chat,
        info: ModelInfo,
        *,
        beta: float,
        per_token: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(chat, info, **options)
        sizes = [module.classifier.get_output_embeddings().weight.shape[0] for module in (policy, reference)]
        if sizes[0] != sizes[1]:
            raise ModelError(
                f"policy and reference have vocabularies of {sizes[0]} and {sizes[1]} tokens; the reference "
                "must be the model that training started from"
            )
        self.policy = policy.eval()
        self.reference = reference.eval()
        self.beta = beta
        self.per_token = per_token

    def place(self, item: Candidates, completion: Completion) -> Encoded:
        encoded = super().place(item, completion)
        if encoded.prompt_truncated or encoded.response_truncated:
            raise DataError("truncated: a shortened text's log-probabilities compare with no others; raise max_length")
        return encoded

    def outputs(self, rows: Sequence[Sequence[Encoded]]) -> list[list[LogProbs]]:
        """[P][N] token log-probabilities."""
        ids = [[one.ids for one in row] for row in rows]
        starts = [[one.prompt_tokens for one in row] for row in rows]
        policy, reference = (
            module.token_log_probs(ids, starts, max_batch_tokens=self.max_batch_tokens, precision=self.precision)
            for module in (self.policy, self.reference)
        )
        return [[LogProbs(*both) for both in zip(*row, strict=True)] for row in zip(policy, reference, strict=True)]

    def read(self, output: LogProbs, encoded: Encoded) -> Score:
        policy, reference, tokens = math.fsum(output.policy), math.fsum(output.reference), len(output.policy)
        for name, value in (("policy", policy), ("reference", reference)):
            if not math.isfinite(value):
                return Score.failed(f"the {name}'s log-probability is {value}, not a finite number")
        total = self.beta * (policy - reference)
        aspects = {"sum": total, "per_token": total / tokens}
        parts = {"policy": policy, "reference": reference, "tokens": float(tokens)}
        return Score(aspects["per_token" if self.per_token else "sum"], aspects=aspects | parts)


def save(
    folder: Path, *, policy: Any, reference: Any, chat: Chat, facts: Mapping[str, Any], beta: float, per_token: bool
) -> None:
    """Write two causal models (not wrapped by peft) into an existing empty folder, with their golden scores."""
    store(
        folder,
        {"": policy, REFERENCE: reference},
        chat,
        kind="implicit",
        scale="log_ratio",
        values={"beta": beta, "per_token": per_token},
        facts=facts,
        load=load,
    )


def load(folder: str | Path, *, check: bool = True, device: str | None = None, **options: Any) -> ImplicitRewardModel:
    """The model in an artifact folder, its golden scores replayed unless told otherwise (see `transformer_artifact`).

    `options` go to the model (max_batch_tokens, precision); `device` defaults to a GPU where there is one.
    """
    opened, chat = open_with_chat(Path(folder))
    config = opened.card["config"]
    policy, reference = (PolicyModule(causal(place, device=device)) for place in (folder, Path(folder) / REFERENCE))
    model = ImplicitRewardModel(
        policy,
        reference,
        chat,
        opened.info,
        beta=config["beta"],
        per_token=config["per_token"],
        temperature=opened.card.get("temperature", 1.0),
        **options,
    )
    return verified(opened, model, check=check)


def causal(source: str | Path, *, device: str | None = "cpu", **options: Any) -> PreTrainedModel:
    """`AutoModelForCausalLM` in fp32 and eval mode. Raises ModelError where it is none or lacks weights."""
    return complete("AutoModelForCausalLM", source, device=device, dtype="float32", **options)
