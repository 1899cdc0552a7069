"""Shared-prompt attention as one kernel: PyTorch's flex attention under a block mask over the whole packed sequence.

On a GPU the form of `shared_attention` that goes row by row starts many small kernels; here the packed sequence of T
tokens is one call. Token q sees token k where both are of the same row, k does not come later, k is of the prompt or of
q's own completion, and q's place in its completion is less than the window away from k's. Blocks of 128 x 128 that no
pair satisfies are skipped, so the arithmetic is that of the rows (Dong et al., "Flex Attention", arXiv 2412.05496).

Compiled on CUDA; elsewhere it runs uncompiled, slow but exact, which is what the tests compare (PyTorch 2.13 has no
backward pass of it on CPUs). `refused` tries it against the row-by-row form, gradients too where there are any, before
anyone relies on it. Flex attention has no dropout.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rmkit.models.transformer.packing import Layout, Segment

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

log = logging.getLogger(__name__)

Attend = Callable[..., Tensor]

FORWARD_ONLY = frozenset({"cpu"})


def flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scaling: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """[1, heads, T, d] queries and [1, key heads, T, d] keys and values to [1, heads, T, d]."""
    mask: Any = layout.masks.get((-1, "flex", window))  # -1: of all segments together; layers share it
    if mask is None:
        mask = _block_mask(layout, window=window, device=query.device)
        layout.masks[-1, "flex", window] = mask
    score_mod = None if softcap is None else _capped(softcap)
    attended: Tensor = _kernel(query.device.type)(
        query,
        key,
        value,
        score_mod=score_mod,
        block_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended


@functools.cache
def _kernel(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


@functools.cache
def _capped(softcap: float) -> Callable[..., Tensor]:
    def score_mod(score: Tensor, *_: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return score_mod


def _block_mask(layout: Layout, *, window: int | None, device: torch.device) -> BlockMask:
    from torch.nn.attention.flex_attention import create_block_mask

    row_T, tail_T, place_T = (x.to(device) for x in token_places(layout.segments))
    total = len(row_T)
    reach = total if window is None else window  # no place is `total` or more, so this is no window

    # q >= k is about places in the packed sequence: within the prompt and within a completion they grow with the
    # positions, and a completion lies behind its prompt. `place_T` counts as if it followed the prompt directly.

    def sees(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        own = (tail_T[k] == -1) | (tail_T[k] == tail_T[q])
        return (row_T[q] == row_T[k]) & own & (q >= k) & (place_T[q] - place_T[k] < reach)

    return create_block_mask(sees, None, None, total, total, device=device)


def token_places(segments: tuple[Segment, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """[T] each: the row of a token, its completion within the row (-1 in the prompt), its place in the completion."""
    row: list[int] = []
    tail: list[int] = []
    place: list[int] = []
    for number, segment in enumerate(segments):
        row += [number] * (segment.end - segment.start)
        tail += [-1] * segment.prefix
        place += range(segment.prefix)
        for which, length in enumerate(segment.tails):
            tail += [which] * length
            place += range(segment.prefix, segment.prefix + length)
    return torch.tensor(row), torch.tensor(tail), torch.tensor(place)


@functools.cache
def refused(by_rows: Attend, device: str, dtype: torch.dtype, heads: int, key_heads: int, width: int) -> str | None:
    """Why flex attention cannot be used for such tensors, found by trying it once; None where it agrees with `by_rows`.

    A reason is logged, and the caller goes row by row.
    """
    try:
        # own hooks: inside a checkpointed layer nothing of the trial may be kept for its second run
        with (
            torch.set_grad_enabled(device not in FORWARD_ONLY),
            torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x),
        ):
            gap = _gap(by_rows, torch.device(device), dtype, heads=heads, key_heads=key_heads, width=width)
    except Exception as error:  # no compiler, no kernel for the shape, an old GPU: each a reason to go the other way
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    else:
        limit = 1e-4 if dtype == torch.float32 and device == "cpu" else 3e-2  # GPUs multiply fp32 in tf32
        if gap <= limit:
            return None
        reason = f"results differ by {gap:.1e}"
    log.warning("flex attention is not used on %s (%s); prompts are shared row by row", device, reason)
    return reason


def _gap(by_rows: Attend, device: torch.device, dtype: torch.dtype, *, heads: int, key_heads: int, width: int) -> float:
    """Largest relative difference of outputs and gradients on a packed sequence that fills more than one block."""
    segments, start = [], 0
    for prefix, tails in ((90, (20, 7)), (5, ()), (30, (3, 1, 4, 1, 5, 9, 2, 6))):
        segments.append(Segment(start, prefix, tails))
        start = segments[-1].end
    generator = torch.Generator().manual_seed(0)
    # queries, keys, values [1, n, T, d], and weights of the outputs, which make the loss that is differentiated
    drawn = [torch.randn(1, n, start, width, generator=generator) for n in (heads, key_heads, key_heads, heads)]
    *inputs, weight = (x.to(device, dtype) for x in drawn)
    results: list[list[Tensor]] = []
    for attend in (by_rows, flex):
        q, k, v = (x.clone().requires_grad_(torch.is_grad_enabled()) for x in inputs)
        out = attend(q, k, v, Layout(tuple(segments)))
        gradients = torch.autograd.grad((out * weight).sum(), (q, k, v)) if out.requires_grad else ()
        results.append([out.detach(), *gradients])
    gaps = [(one - other).abs().max() / one.abs().max() for one, other in zip(*results, strict=True)]
    return float(torch.stack(gaps).max())
