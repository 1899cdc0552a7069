"""K small reward heads on frozen features, computed at once: two peers, five folds or a whole ensemble cost little more
than their arithmetic.

    r_k(x, y) = out_k . relu(Wp_k p + Wr_k [y, p * y] + b_k)        p, y: features times sqrt(D)

The weights carry a leading axis K and every product is one batched matrix product; a prompt's part is computed once for
both responses. Heads never mix: each equals the same head trained alone, up to rounding. Margins are fp32.

Axes: K heads, B pairs of a batch, D feature width, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmkit.errors import DataError
from rmkit.reliability.feature_pairs import FeaturePairs

SCORED_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class StackedHeads:
    """fp32 weights: `prompt` [K, D, H], `response` [K, 2D, H], `bias` [K, 1, H], `out` [K, H, 1]."""

    prompt: Tensor
    response: Tensor
    bias: Tensor
    out: Tensor

    @property
    def k(self) -> int:
        return len(self.out)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.__slots__}

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The weights as numpy, for saving; `from_arrays` reads them back."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self.tensors.items()}

    def only(self, heads: Sequence[int]) -> StackedHeads:
        """The chosen heads, without gradients."""
        return StackedHeads(**{name: tensor.detach()[list(heads)].clone() for name, tensor in self.tensors.items()})


def from_arrays(arrays: dict[str, NDArray[np.float32]]) -> StackedHeads:
    return StackedHeads(**{name: torch.from_numpy(arrays[name].copy()) for name in StackedHeads.__slots__})


def initial(seeds: Sequence[int], *, width: int, hidden: int) -> StackedHeads:
    """Heads with variance 1 / inputs, each from its own seed."""
    result = [_initial(torch.Generator().manual_seed(seed), width, hidden) for seed in seeds]
    return StackedHeads(*(torch.stack(parts).requires_grad_() for parts in zip(*result, strict=True)))


def _initial(generator: torch.Generator, width: int, hidden: int) -> tuple[Tensor, ...]:
    inputs = torch.randn(3 * width, hidden, generator=generator) / (3 * width) ** 0.5
    out = torch.randn(hidden, 1, generator=generator) / hidden**0.5
    return inputs[:width], inputs[width:], torch.zeros(1, hidden), out


class Table:
    """The features of pairs as tensors, gathered a batch at a time."""

    def __init__(self, pairs: FeaturePairs) -> None:
        if not pairs.finite.all():
            raise DataError(
                f"{int((~pairs.finite).sum())} pairs have features that are not finite; leave them out first"
            )
        self.vectors = torch.from_numpy(np.ascontiguousarray(pairs.vectors))
        self.rows = torch.from_numpy(pairs.rows)
        self.scale = float(pairs.width) ** 0.5

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Prompt [*index, D] and, chosen above rejected, response inputs [2, *index, 2D]."""
        rows = self.rows[index]
        prompt = self._features(rows[..., 0])
        responses = self._features(torch.stack([rows[..., 1], rows[..., 2]]))
        return prompt, torch.cat([responses, prompt * responses], dim=-1)

    def _features(self, rows: Tensor) -> Tensor:
        gathered = self.vectors.index_select(0, rows.flatten()).float().mul_(self.scale)
        return gathered.view(*rows.shape, -1)


def margins(heads: StackedHeads, prompt_KBD: Tensor, responses: Tensor, *, keep_hidden: Tensor | None = None) -> Tensor:
    """[K, B] margins of batches that differ by head: `responses` [2, K, B, 2D]; `keep_hidden` [K, 1 or 2B, H] is a
    dropout mask, already divided by the share it keeps."""
    k, b = prompt_KBD.shape[:2]
    both = torch.cat([responses[0], responses[1]], dim=1)  # [K, 2B, 2D]: all chosen, then all rejected
    shared = torch.baddbmm(heads.bias, prompt_KBD, heads.prompt)  # [K, B, H], the same for both responses of a pair
    # viewed as [K, 2, B, H] so that a prompt's part is added to its chosen and its rejected response
    hidden = torch.relu(torch.bmm(both, heads.response).view(k, 2, b, -1) + shared[:, None]).view(k, 2 * b, -1)
    if keep_hidden is not None:
        hidden = hidden * keep_hidden
    reward = torch.bmm(hidden, heads.out)[..., 0]  # [K, 2B], in the order of `both`
    return reward[:, :b] - reward[:, b:]


def score(heads: StackedHeads, table: Table) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rewards [K, n] of the chosen and of the rejected responses, in eval mode: all heads read each row once."""
    chosen, rejected = (np.empty((heads.k, len(table)), dtype=np.float32) for _ in range(2))
    with torch.no_grad():
        # all heads read the same rows here (in `margins` each has its own batch), so their columns stand side by side
        w_prompt, w_response = (_side_by_side(part) for part in (heads.prompt, heads.response))
        out, bias = heads.out[..., 0], heads.bias.reshape(-1)  # [K, H], [K * H] in the order of the columns
        for index in torch.split(torch.arange(len(table)), SCORED_AT_ONCE):
            prompt, responses = table.gather(index)  # [B, D], [2, B, 2D]
            shared = torch.addmm(bias, prompt, w_prompt)  # [B, K * H]
            for side, into in zip(responses, (chosen, rejected), strict=True):
                hidden = torch.addmm(shared, side, w_response).relu_().view(len(index), heads.k, -1)
                into[:, index.numpy()] = torch.einsum("bkh,kh->kb", hidden, out).numpy()
    return chosen, rejected


def score_margins(heads: StackedHeads, table: Table) -> NDArray[np.float32]:
    """[K, n] margins of the labeled order."""
    chosen, rejected = score(heads, table)
    return chosen - rejected


def _side_by_side(weight: Tensor) -> Tensor:
    """[K, inputs, H] -> [inputs, K * H]: one wide product instead of K."""
    return weight.permute(1, 0, 2).reshape(weight.shape[1], -1).contiguous()
