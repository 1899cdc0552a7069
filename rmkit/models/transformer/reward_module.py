"""A Hugging Face classifier of texts or of tokens, run so that its reward is exact and nothing is computed in vain.

The trunk runs without any vocabulary head; the score head runs in fp32, outside autocast, at the reward tokens only.
Causal models read packed rows with shared prompts where `shared_attention` can show that this is exact, else padded
ones, with the reason logged. Encoders, whose head pools the whole text, go padded through their own forward with the
head in fp32. The wrapped model stays what `AutoModelForSequenceClassification` (or, for rewards of steps,
`AutoModelForTokenClassification`) saves, loads and runs.

A text is scored as if it were alone. Texts that a model would read with other rotary frequencies than alone (`rope`),
or whose head reads the padding behind them, never share a pass; where a score depends on its batch mates even so, the
model is refused.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rmkit.errors import ModelError
from rmkit.models.artifact.folder import Precision
from rmkit.models.transformer.batching import micro_batches
from rmkit.models.transformer.packing import (
    Batch,
    Ids,
    Packed,
    Padded,
    Parts,
    in_parts,
    pack,
    packed_tokens,
    pad,
    split_row,
)
from rmkit.models.transformer.rope import frequency_borders, fresh_frequencies
from rmkit.models.transformer.shared_attention import unsupported, without_masks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
        self.loading: dict[str, Any] = {}  # what the card says of the checkpoint that training began with
        self.padded_because: str | None = unsupported(self.classifier) if packed else f"attention is {self.attention}"
        if self.padded_because is not None and packed:
            log.warning("prompts are not shared: %s", self.padded_because)
        for name, child in self.classifier.named_children():
            if child is not self.classifier.base_model:
                _run_in_fp32(child, name=name)
        self.borders = frequency_borders(self.classifier.config.get_text_config())
        self.equal_lengths = self.padded_because is not None and self._reads_padding()

    @property
    def classifier(self) -> PreTrainedModel:
        """The sequence classifier under an eventual peft wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def attention(self) -> str:
        """The implementation of attention, by its name in transformers."""
        name: str = self.classifier.config.get_text_config()._attn_implementation
        return name

    @property
    def _no_split_modules(self) -> Any:
        """The layer classes that sharding (FSDP) wraps one by one, as transformers names them."""
        return self.classifier._no_split_modules

    def plan(self, rows: Sequence[Sequence[Ids]], *, max_batch_tokens: int) -> list[list[int]]:
        """Row numbers in micro-batches that take at most `max_batch_tokens` tokens, padding included."""
        if self.padded_because is None:
            return micro_batches(
                [self._packed_tokens(row) for row in rows], max_batch_tokens=max_batch_tokens, padded=False
            )
        lengths = [len(row) * max(len(ids) for ids in row) for row in rows]
        return micro_batches(lengths, max_batch_tokens=max_batch_tokens, padded=True)

    def collate(self, rows: Sequence[Sequence[Ids]], *, reads: Sequence[Sequence[Ids]] | None = None) -> Batch:
        """Rows of N id sequences as one batch on the model's device; `reads` are the tokens of each sequence at which
        rewards are read, by default its last."""
        return in_parts(rows, reads, key=self.pass_key, collate=self._collate).to(self.classifier.device)

    def _collate(self, rows: Sequence[Sequence[Ids]], reads: Sequence[Sequence[Ids]]) -> Packed | Padded:
        if self.padded_because is None:
            return pack(rows, share=self.share, reads=reads)
        return pad(rows, pad_id=self.classifier.config.get_text_config().pad_token_id, reads=reads)

    def pass_key(self, length: int) -> Hashable:
        """Only texts of equal keys may go through the model together."""
        if self.equal_lengths:
            return length
        return None if self.borders is None else self.borders.key(length)

    def _packed_tokens(self, row: Sequence[Ids]) -> int:
        parts = split_row(row, self.pass_key).values()
        return sum(packed_tokens([row[number] for number in numbers], share=self.share) for numbers in parts)

    @torch.inference_mode()
    def outputs(
        self,
        rows: Sequence[Sequence[Ids]],
        *,
        max_batch_tokens: int,
        reads: Sequence[Sequence[Ids]] | None = None,
        precision: Precision = "fp32",
    ) -> list[list[list[Any]]]:
        """[P][N] per sequence what stands at the tokens read, by default its last alone: fp32 numbers, or a list of
        them from a head with A > 1 labels. At most `max_batch_tokens` tokens go through together, padding included."""
        results: list[list[list[Any]]] = [[] for _ in rows]
        device = self.classifier.device.type
        for numbers in self.plan(rows, max_batch_tokens=max_batch_tokens):
            read = None if reads is None else [reads[number] for number in numbers]
            batch = self.collate([rows[number] for number in numbers], reads=read)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
                values = iter(self(batch).tolist())
            for number in numbers:
                sizes = [1] * len(rows[number]) if reads is None else map(len, reads[number])
                results[number] = [list(islice(values, size)) for size in sizes]
        return results

    def forward(self, batch: Batch) -> Tensor:
        """[R] fp32 rewards at all tokens read, in order; [R, A] from a head with A > 1 labels."""
        if self.padded_because is not None and not hasattr(self.classifier, "score"):
            logits = _in_order(batch, self._own_logits)
        else:
            logits = self.classifier.score(self._states(batch))
        return logits[:, 0] if logits.shape[-1] == 1 else logits

    def _states(self, batch: Batch) -> Tensor:
        """[R, hidden] final states at the tokens read."""
        return _in_order(batch, self._trunk_states)

    def _own_logits(self, batch: Any) -> Tensor:
        """[R, A] from the model's own forward, padded."""
        with self._frequencies():
            logits: Tensor = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return logits[batch.line, batch.reward_index] if logits.ndim == 3 else logits  # 3: a label per token

    def _trunk_states(self, batch: Packed | Padded) -> Tensor:
        trunk = self.classifier.base_model
        with self._frequencies():
            if isinstance(batch, Packed):
                with without_masks():
                    states: Tensor = trunk(
                        input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, layout=batch.layout
                    ).last_hidden_state
                return states[0, batch.reward_index]
            states = trunk(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).last_hidden_state
        return states[batch.line, batch.reward_index]

    def _frequencies(self) -> contextlib.AbstractContextManager[None]:
        grows = self.borders is not None and self.borders.grow
        return fresh_frequencies(self.classifier) if grows else contextlib.nullcontext()

    @torch.no_grad()
    def _reads_padding(self) -> bool:
        """Whether a padded text's output changes beside a longer text, as where a head reads the end of the padded
        line (XLNet). Raises ModelError where it changes beside one of its own length."""
        config = self.classifier.config.get_text_config()
        ends = [
            token for token in np.ravel(cast(Any, getattr(config, "eos_token_id", None))).tolist() if token is not None
        ]
        vocabulary = getattr(config, "vocab_size", 32)
        end = next((token for token in ends if token < vocabulary), 1)  # BART reads its score there
        a, b, c, *_ = (token for token in range(2, 32) if token not in (*ends, config.pad_token_id))
        text, equal, longer = (a, b, c, b, end), (c, a, a, b, end), (b, b, c, a, c, c, a, b, a, end)
        probes: list[list[list[Ids]]] = [[[text]], [[text], [equal]], [[text], [longer]]]
        was_training = self.model.training
        self.model.eval()
        try:
            alone, beside_equal, beside_longer = (
                RewardModule.forward(self, pad(rows, pad_id=config.pad_token_id or 0).to(self.classifier.device))[0]
                for rows in probes
            )
        except Exception as error:  # texts that are too strange for it: nothing is known
            log.warning("not checked whether scores depend on their batch: %s: %s", type(error).__name__, error)
            return False
        finally:
            self.model.train(was_training)
        limit = 1e-4 if self.classifier.dtype == torch.float32 else 5e-2
        gaps = [
            float((one - alone).float().abs().max() / alone.float().abs().max().clamp(min=1))
            for one in (beside_equal, beside_longer)
        ]
        if gaps[0] > limit:
            raise ModelError(
                f"{type(self.classifier).__name__}: a text's score changes by {gaps[0]:.1e} with what else is in its "
                "batch, even beside a text of its own length; such a model cannot give exact scores"
            )
        if gaps[1] > limit:
            log.warning("%s reads padding: only texts of one length go together", type(self.classifier).__name__)
        return gaps[1] > limit


def _in_order(batch: Batch, outputs: Callable[[Any], Tensor]) -> Tensor:
    """The outputs of a batch, or of each of its parts, as [R, ...] in the order of the rows."""
    if not isinstance(batch, Parts):
        return outputs(batch)
    return torch.cat([outputs(part) for part in batch.parts])[batch.order]


def _run_in_fp32(head: nn.Module, *, name: str) -> None:
    """Make a head keep fp32 weights, take its inputs as fp32 and ignore autocast."""
    head.float()
    head.forward = partial(_fp32_forward, head.forward)  # unlike a closure's, its copy runs the copied head's weights
    log.debug("head %s runs in fp32", name)


def _fp32_forward(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    device = next((x.device.type for x in inputs if isinstance(x, Tensor)), "cpu")
    with torch.autocast(device, enabled=False):
        return forward(*(_as_float(x) for x in inputs), **{key: _as_float(x) for key, x in named.items()})


def _as_float(x: Any) -> object:
    return x.float() if isinstance(x, Tensor) and x.is_floating_point() else x
