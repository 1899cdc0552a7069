"""A causal language model that reads the log-probabilities of responses, and nothing else.

    log pi(y | x) = sum over response tokens t of log softmax(logits[t - 1])[y_t]

Rows are packed behind shared prompts and cut by token budget like those of explicit models. The vocabulary head runs in
fp32 at the states that predict response tokens only, a block of them at a time, so that no table of all logits exists.
That this head is the model's own (some cap or scale their logits) is shown on a few tokens before anyone relies on it.

Axes: R response tokens of all completions together, K completions, V the vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from rmkit.errors import ModelError
from rmkit.models.artifact.folder import Precision
from rmkit.models.transformer.packing import Batch, Ids, Packed, Padded
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.models.transformer.shared_attention import without_masks

BLOCK_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class ResponseBatch:
    """Rows as tensors, the ids [R] that follow the tokens read, how many of them each completion has [K], and where
    rewards are wanted the log-probabilities of the reference [K]."""

    tokens: Batch
    labels: Tensor
    sizes: tuple[int, ...]
    reference: Tensor | None = None


class PolicyModule(RewardModule):
    """`model` is a causal language model, plain or wrapped by peft. Raises ModelError where its logits are not those of
    its head (capped ones excepted)."""

    def __init__(self, model: Any, *, packed: bool = True, share: bool = True) -> None:
        super().__init__(model, packed=packed, share=share)
        self._check_logits()

    def collate(self, rows: Sequence[Sequence[Ids]], *, reads: Sequence[Sequence[Ids]] | None = None) -> Any:
        """[B][N] id sequences as one ResponseBatch; `reads` [B][N] are those of `response_reads`."""
        assert reads is not None
        flat = [(ids, of) for row, read in zip(rows, reads, strict=True) for ids, of in zip(row, read, strict=True)]
        labels = torch.tensor([ids[at + 1] for ids, of in flat for at in of], device=self.classifier.device)
        sizes = tuple(len(of) for _, of in flat)
        return ResponseBatch(super().collate(rows, reads=reads), labels, sizes)

    def token_log_probs(
        self,
        rows: Sequence[Sequence[Ids]],
        starts: Sequence[Sequence[int]],
        *,
        max_batch_tokens: int,
        precision: Precision = "fp32",
    ) -> list[list[list[float]]]:
        """[B][N][T] log-probabilities of the tokens of every response, which begins at the token `starts` [B][N]."""
        return self.outputs(
            rows, reads=response_reads(rows, starts), max_batch_tokens=max_batch_tokens, precision=precision
        )

    def forward(self, batch: Any) -> Tensor:
        """[R] fp32 log-probabilities of the response tokens, in order."""
        states_R = self._states(batch.tokens)
        blocks = zip(torch.split(states_R, BLOCK_TOKENS), torch.split(batch.labels, BLOCK_TOKENS), strict=True)
        if torch.is_grad_enabled():  # the backward pass makes each block's logits again
            return torch.cat([checkpoint(self._block, s, y, use_reentrant=False) for s, y in blocks])
        return torch.cat([self._block(states, labels) for states, labels in blocks])

    def _block(self, states_R: Tensor, label_R: Tensor) -> Tensor:
        return -cross_entropy(self._logits(states_R), label_R, reduction="none")

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.classifier.get_output_embeddings()(states).float()
        cap = getattr(self.classifier.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @torch.no_grad()
    def _check_logits(self) -> None:
        """On a few tokens: are these the logits that the model itself gives?"""
        was_training, ids = self.training, (1, 2, 3, 4, 5)
        self.eval()
        batch = PolicyModule.collate(self, [[ids]], reads=response_reads([[ids]], [[1]]))
        mask = {"attention_mask": batch.tokens.attention_mask} if isinstance(batch.tokens, Padded) else {}
        layout = {"layout": batch.tokens.layout} if isinstance(batch.tokens, Packed) else {}
        with without_masks() if layout else contextlib.nullcontext():
            own = self.classifier(input_ids=batch.tokens.input_ids, use_cache=False, **mask, **layout).logits[0, :-1]
        expected = torch.log_softmax(own.float(), -1).gather(1, batch.labels[:, None])[:, 0]
        gap = float((expected - PolicyModule.forward(self, batch)).abs().max())
        self.train(was_training)
        if not gap < (1e-3 if own.dtype == torch.float32 else 5e-2):
            raise ModelError(
                f"{type(self.classifier).__name__} changes its logits behind the vocabulary head (log-probabilities "
                f"differ by {gap:.1e}), which implicit rewards cannot follow yet; take another base model"
            )


def response_reads(rows: Sequence[Sequence[Ids]], starts: Sequence[Sequence[int]]) -> list[list[Ids]]:
    """[B][N] the tokens whose logits predict the response's, which begins at the token `starts` [B][N]."""
    return [
        [tuple(range(max(1, start) - 1, len(ids) - 1)) for ids, start in zip(row, begin, strict=True)]
        for row, begin in zip(rows, starts, strict=True)
    ]


def response_sums(token_R: Tensor, sizes: Sequence[int]) -> Tensor:
    """[K] sums over each completion's tokens."""
    return torch.stack([part.sum() for part in token_R.split_with_sizes(list(sizes))])
