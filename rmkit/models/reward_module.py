"""A Hugging Face classifier of texts or of tokens, run so that its reward is exact and nothing is computed in vain.

The trunk runs without any vocabulary head; the score head runs in fp32, outside autocast, at the reward tokens only.
Causal models read packed rows with shared prompts where `shared_attention` can show that this is exact, else padded
ones, with the reason logged. Encoders, whose head pools the whole text, go padded through their own forward with the
head in fp32. The wrapped model stays what `AutoModelForSequenceClassification` (or, for rewards of steps,
`AutoModelForTokenClassification`) saves and loads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from rmkit.models.artefact import Precision
from rmkit.models.batching import micro_batches
from rmkit.models.packing import Ids, Packed, Padded, pack, packed_tokens, pad
from rmkit.models.shared_attention import unsupported

log = logging.getLogger(__name__)


class RewardModule(nn.Module):
    """`model` is a classifier, plain or wrapped by peft: of sequences with a label per aspect, or of tokens with one.

    `padded_because` says why rows are padded; None means packed. `share=False` packs without sharing prompts,
    `packed=False` pads (for comparison).
    """

    def __init__(self, model: Any, *, packed: bool = True, share: bool = True) -> None:
        super().__init__()
        self.model = model
        self.share = share
        self.padded_because: str | None = unsupported(self.classifier) if packed else "asked for"
        if self.padded_because is not None and packed:
            log.warning("prompts are not shared: %s", self.padded_because)
        for name, child in self.classifier.named_children():
            if child is not self.classifier.base_model:
                _run_in_fp32(child, name=name)

    @property
    def classifier(self) -> Any:
        """The sequence classifier under an eventual peft wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def _no_split_modules(self) -> Any:
        """The layer classes that sharding (FSDP) wraps one by one, as transformers names them."""
        return self.classifier._no_split_modules

    def plan(self, rows: Sequence[Sequence[Ids]], *, max_tokens: int) -> list[list[int]]:
        """Row numbers in micro-batches that take at most `max_tokens` tokens, padding included."""
        if self.padded_because is None:
            return micro_batches(
                [packed_tokens(row, share=self.share) for row in rows], max_tokens=max_tokens, padded=False
            )
        lengths = [len(row) * max(len(ids) for ids in row) for row in rows]
        return micro_batches(lengths, max_tokens=max_tokens, padded=True)

    def collate(
        self, rows: Sequence[Sequence[Ids]], *, reads: Sequence[Sequence[Ids]] | None = None
    ) -> Packed | Padded:
        """Rows of N id sequences as one batch on the model's device; `reads` are the tokens of each sequence at which
        rewards are read, by default its last."""
        if self.padded_because is None:
            return pack(rows, share=self.share, reads=reads).to(self.classifier.device)
        pad_id = self.classifier.config.get_text_config().pad_token_id
        return pad(rows, pad_id=pad_id, reads=reads).to(self.classifier.device)

    @torch.inference_mode()
    def outputs(
        self,
        rows: Sequence[Sequence[Ids]],
        *,
        max_tokens: int,
        reads: Sequence[Sequence[Ids]] | None = None,
        precision: Precision = "fp32",
    ) -> list[list[list[Any]]]:
        """[P][N] per sequence what stands at the tokens read, by default its last alone: fp32 numbers, or a list of
        them from a head with A > 1 labels. At most `max_tokens` tokens go through together, padding included."""
        found: list[list[list[Any]]] = [[] for _ in rows]
        device = self.classifier.device.type
        for numbers in self.plan(rows, max_tokens=max_tokens):
            read = None if reads is None else [reads[number] for number in numbers]
            batch = self.collate([rows[number] for number in numbers], reads=read)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
                values = iter(self(batch).tolist())
            for number in numbers:
                sizes = [1] * len(rows[number]) if reads is None else map(len, reads[number])
                found[number] = [list(islice(values, size)) for size in sizes]
        return found

    def forward(self, batch: Packed | Padded) -> Tensor:
        """[R] fp32 rewards at all tokens read, in order; [R, A] from a head with A > 1 labels."""
        if isinstance(batch, Padded) and not hasattr(self.classifier, "score"):
            logits: Tensor = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            if logits.ndim == 3:  # a label per token
                logits = logits[batch.line, batch.reward_index]
        else:
            logits = self.classifier.score(self._states(batch))
        outputs = logits[:, 0] if logits.shape[-1] == 1 else logits
        for beside in self.parameters(recurse=False):  # a tie width, cut points: the loss reads them, DDP looks here
            outputs = outputs + 0 * beside.sum()
        return outputs

    def _states(self, batch: Packed | Padded) -> Tensor:
        """[R, hidden] final states at the tokens read."""
        trunk = self.classifier.base_model
        if isinstance(batch, Packed):
            states: Tensor = trunk(
                input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, layout=batch.layout
            ).last_hidden_state
            return states[0, batch.reward_index]
        states = trunk(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state
        return states[batch.line, batch.reward_index]


def _run_in_fp32(head: nn.Module, *, name: str) -> None:
    """Make a head keep fp32 weights, take its inputs as fp32 and ignore autocast."""
    head.float()
    head.forward = partial(_fp32_forward, head.forward)  # unlike a closure's, its copy runs the copied head's weights
    log.debug("head %s runs in fp32", name)


def _fp32_forward(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    device = next((x.device.type for x in inputs if isinstance(x, Tensor)), "cpu")
    with torch.autocast(device, enabled=False):
        return forward(*(_as_float(x) for x in inputs), **{key: _as_float(x) for key, x in named.items()})


def _as_float(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.is_floating_point() else x
