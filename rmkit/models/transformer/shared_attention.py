"""Attention over packed rows: each completion sees its prompt and itself, as if it stood alone behind it.

Registered with transformers' public AttentionInterface under `NAME`. Where a mask over the whole packed sequence would
spend work on pairs of tokens that never meet, this runs per row: the prompt is plain causal attention, the completions
attend to [prompt | themselves], either together under one block mask (few completions) or side by side, padded to the
longest (many). On a GPU the same is one call of flex attention (`flex_prefix`), where that works. Sliding windows and
soft-capped logits are honoured, counted in each completion's own positions.

Axes: T packed tokens, L tokens of a row's longest completion, N completions of a row, p tokens of its prompt, d the
width of a head. The packed sequence is row after row, each [prompt | completion 1 | ... | completion N]
(`packing.Segment`), and outputs are cut and joined in that very order, so that they need no index back.

Exact, not approximate: `unsupported` compares it with the plain way on a few tokens before anyone relies on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rmkit.models.transformer import flex_prefix
from rmkit.models.transformer.packing import Ids, Layout, Segment, pack, pad
from rmkit.models.transformer.rope import frequency_borders, fresh_frequencies

NAME = "rmkit_shared_prefix"
FLEX_DEVICES = frozenset({"cuda"})

_DENSE_OVERHEAD = 1.5  # how much more arithmetic one block mask may cost before the side-by-side form is taken


def register() -> None:
    """Make the attention known to transformers; repeating it is harmless."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, shared_prefix_attention)
    AttentionMaskInterface.register(NAME, _mask_unless_packed)


_PACKED: ContextVar[bool] = ContextVar("packed", default=False)


@contextlib.contextmanager
def without_masks() -> Iterator[None]:
    """For passes over packed rows: the layout says who sees whom, and transformers need not build a [T, T] mask."""
    token = _PACKED.set(True)
    try:
        yield
    finally:
        _PACKED.reset(token)


def _mask_unless_packed(*arguments: Any, **named: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    return None if _PACKED.get() else sdpa_mask(*arguments, **named)


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    layout: Layout | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """[1, heads, T, d] queries and [1, key heads, T, d] keys and values to [1, T, heads, d].

    Without a layout the model is run plainly, by anyone: [B, heads, L, d] under the mask, as transformers does it.
    """
    if layout is None:
        return _plain_attention(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, softcap=softcap, **more
        )
    layout.windows.add(sliding_window)
    if _takes_flex(query, key, dropout=dropout):
        out = flex_prefix.flex(
            query, key, value, layout, scaling=scaling, window=sliding_window or None, softcap=softcap
        )
    else:
        out = by_rows(
            query, key, value, layout, dropout=dropout, scaling=scaling, window=sliding_window, softcap=softcap
        )
    return out.transpose(1, 2).contiguous(), None


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    dropout: float,
    scaling: float | None,
    softcap: float | None,
    **more: Any,
) -> tuple[Tensor, None]:
    """[B, heads, L, d] to [B, L, heads, d]; `mask` is boolean (True = sees), None is causal."""
    if softcap is None:  # sliding windows are in the mask
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, mask, dropout=dropout, scaling=scaling, **more
        )
        return out
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    if mask is None and query.shape[2] == 1:  # one new token sees all before it
        mask = query.new_ones(1, key.shape[2], dtype=torch.bool)
    capped = _softcapped(query, key, value, mask=mask, scaling=scaling, softcap=softcap, dropout=dropout)
    return capped.transpose(1, 2).contiguous(), None


def _takes_flex(query: Tensor, key: Tensor, *, dropout: float) -> bool:
    """Whether this call goes through flex attention: on a GPU, without dropout, and where it gave the same results."""
    if query.device.type not in FLEX_DEVICES or dropout:
        return False
    heads, width = query.shape[1], query.shape[3]
    return flex_prefix.refused(by_rows, query.device.type, query.dtype, heads, key.shape[1], width) is None


def by_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """[1, heads, T, d] queries and [1, key heads, T, d] keys and values to [1, heads, T, d], row after row."""
    repeats = query.shape[1] // key.shape[1]  # grouped-query attention: each key head serves this many queries
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if softcap is not None:
            return _softcapped(q, k, v, mask=mask, scaling=scaling, softcap=softcap, dropout=dropout)
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling
        )

    # one split, not a slice per segment: each slice's gradient would be a tensor as long as the whole sequence
    sizes = [segment.end - segment.start for segment in layout.segments]
    parts = zip(*(torch.split_with_sizes(x, sizes, dim=2) for x in (query, key, value)), strict=True)
    pieces: list[Tensor] = []
    for number, (segment, (q, k, v)) in enumerate(zip(layout.segments, parts, strict=True)):
        p = segment.prefix
        # a window that reaches over the whole row changes nothing, and without one the prompt needs no mask at all
        reach = window if window and window < longest_position(segment) else None
        mask = _mask(layout, number, "prefix", reach, q.device) if reach else None
        pieces.append(attend(q[:, :, :p], k[:, :, :p], v[:, :, :p], mask))
        if not segment.tails:
            continue
        # both forms give [1, heads, sum of tails, d], completions one after the other
        if _dense_is_cheaper(segment):
            pieces.append(attend(q[:, :, p:], k, v, _mask(layout, number, "dense", reach, q.device)))
        else:
            mask = _mask(layout, number, "side_by_side", reach, q.device)
            pieces.append(_side_by_side(q, k, v, segment=segment, mask=mask, attend=attend))
    return torch.cat(pieces, dim=2)


def longest_position(segment: Segment) -> int:
    """Tokens of the row's longest completion with its prompt."""
    return segment.prefix + max(segment.tails, default=0)


def _dense_is_cheaper(segment: Segment) -> bool:
    """By pairs of tokens: all completions against all of the row under one mask, or each, padded, against its own."""
    tails, longest = sum(segment.tails), max(segment.tails)
    together = tails * (segment.prefix + tails)
    return together <= _DENSE_OVERHEAD * len(segment.tails) * longest * (segment.prefix + longest)


def _side_by_side(q: Tensor, k: Tensor, v: Tensor, *, segment: Segment, mask: Tensor, attend: Any) -> Tensor:
    """Completions as a batch of N, padded to the longest, each behind its own view of the prompt.

    [1, heads, p + sum of tails, d] of one row to [1, heads, sum of tails, d].
    """
    n, longest, p = len(segment.tails), max(segment.tails), segment.prefix
    tail_N = torch.tensor(segment.tails, device=q.device)
    offset_NL = torch.arange(longest, device=q.device).expand(n, longest)
    real_NL = offset_NL < tail_N[:, None]
    # place in the row of each completion's tokens; padding repeats its last token, whose outputs are thrown away, and
    # stands behind all real ones, so that causal attention keeps it from being seen
    index_NL = p + (tail_N.cumsum(0) - tail_N)[:, None] + torch.minimum(offset_NL, tail_N[:, None] - 1)

    def spread(x: Tensor) -> Tensor:  # [1, heads, T, d] -> [N, heads, L, d]
        return x[0][:, index_NL].transpose(0, 1)

    def behind_prompt(x: Tensor) -> Tensor:  # [1, heads, T, d] -> [N, heads, p + L, d]
        return torch.cat([x[:, :, :p].expand(n, -1, -1, -1), spread(x)], dim=2)

    out: Tensor = attend(spread(q), behind_prompt(k), behind_prompt(v), mask)
    return out.transpose(0, 1)[:, real_NL][None]  # row-major over [N, L]: completions in order, padding dropped


def _mask(layout: Layout, number: int, form: str, window: int | None, device: torch.device) -> Tensor:
    """Boolean, True = sees: built on first use, shared by all layers."""
    key = (number, form, window)
    if key not in layout.masks:
        layout.masks[key] = _build_mask(layout.segments[number], form=form, window=window).to(device)
    return layout.masks[key]


def _build_mask(segment: Segment, *, form: str, window: int | None) -> Tensor:
    """[p, p] of the prompt alone; side by side [L, p + L], the same for all completions; dense [S, p + S], S tokens of
    all completions. Distances are counted in positions, which for every completion go on from the prompt's."""
    p, longest = segment.prefix, max(segment.tails, default=0)
    if form == "prefix":
        return _causal(torch.arange(p), torch.arange(p), window)
    if form == "side_by_side":
        return _causal(torch.arange(p, p + longest), torch.arange(p + longest), window)
    # the completion that each token of the row belongs to, -1 in the prompt, which all see; of plain numbers, so that
    # its shape is known where tensors have no contents (rmkit.training.plan)
    owner = torch.tensor([-1] * p + [number for number, length in enumerate(segment.tails) for _ in range(length)])
    position = torch.cat([torch.arange(p), *(torch.arange(p, p + length) for length in segment.tails)])
    own = (owner[None, :] == owner[p:, None]) | (owner[None, :] == -1)
    return own & _causal(position[p:], position, window)


def _causal(query_position: Tensor, key_position: Tensor, window: int | None) -> Tensor:
    distance = query_position[:, None] - key_position[None, :]
    return (distance >= 0) & (distance < window) if window else distance >= 0


def _softcapped(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, scaling: float | None, softcap: float, dropout: float
) -> Tensor:
    """Logits capped to cap * tanh(logit / cap) before the softmax, which runs in fp32 (Gemma 2)."""
    logits = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    logits = softcap * torch.tanh(logits / softcap)
    if mask is None:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
    weights = torch.softmax(logits.masked_fill(~mask, torch.finfo(logits.dtype).min), dim=-1, dtype=torch.float32)
    return nn.functional.dropout(weights.to(q.dtype), p=dropout) @ v


def unsupported(model: Any) -> str | None:
    """Why this model cannot share prompts, found by trying; None where packed and plain states agree.

    Leaves the model with the shared attention switched on where it is supported, and as it was where not.
    """
    config = model.config.get_text_config()
    if not (hasattr(model, "score") or hasattr(model, "lm_head")):
        return f"{type(model).__name__} has no causal score head; an encoder's prompt states depend on what follows"
    if getattr(config, "attention_chunk_size", None):
        return "attention in chunks"
    before = config._attn_implementation
    reason = _probe(model, window=_active_window(config))
    if reason is not None:
        model.set_attn_implementation(before)
    return reason


def _active_window(config: Any) -> int | None:
    if getattr(config, "use_sliding_window", True) is False:
        return None
    layers = getattr(config, "layer_types", None)
    if layers is not None and "sliding_attention" not in layers:
        return None
    window: int | None = getattr(config, "sliding_window", None)
    return window


@torch.no_grad()
def _probe(model: Any, *, window: int | None) -> str | None:
    """Why packed and plain states differ, or the model refuses; leaves the shared attention switched on.

    Where rotary frequencies change with length, texts on both sides of the border are read, in turn: a few tokens, the
    long ones by their positions.
    """
    borders = frequency_borders(model.config.get_text_config())
    was_training, before = model.training, model.config.get_text_config()._attn_implementation
    model.eval()
    windows: set[int | None] = set()
    try:
        if before == NAME:
            model.set_attn_implementation("sdpa")
        places = [0] if borders is None else [0, *(border - 4 for border in (*borders.switch, *borders.grow)), 0]
        plain = [_plain_states(model, at) for at in places]
        register()
        model.set_attn_implementation(NAME)
        shared = [_shared_states(model, at, windows) for at in places]
    except Exception as error:  # any refusal of the architecture is a reason to go the plain way
        return f"{type(model).__name__}: {type(error).__name__}: {error}"
    finally:
        model.train(was_training)
    if window and window not in windows:
        return f"{type(model).__name__} does not tell its attention about the sliding window"
    limit = 1e-4 if plain[0].dtype == torch.float32 else 5e-2
    gap = max(
        float((a.float() - b.float()).abs().max() / a.float().abs().max().clamp(min=1e-6))
        for a, b in zip(plain, shared, strict=True)
    )
    return None if gap <= limit else f"{type(model).__name__}: states differ by {gap:.1e} when prompts are shared"


_SHORT: list[list[Ids]] = [
    [(1, 2, 3, 4, 5, 6), (1, 2, 3, 7, 8)],
    [(3, 2, 2, 1)],
    [(2, 5, *[4] * n) for n in range(1, 9)],
]
_LONG: list[list[Ids]] = [[(1, 2, 3, 4, 5, 6), (1, 2, 3, 7, 8, 2)], [(3, 2, 2, 1, 7, 4)]]  # of one length


def _plain_states(model: Any, at: int) -> Tensor:
    """[K, hidden] last states of the probe texts, alone where they begin at a position `at` > 0, else padded."""
    trunk, device = model.base_model, model.device
    if not at:
        padded = pad(_SHORT, pad_id=0).to(device)
        states: Tensor = trunk(input_ids=padded.input_ids, attention_mask=padded.attention_mask, use_cache=False)[0]
        return states[padded.line, padded.reward_index]
    last = []
    for text in (text for row in _LONG for text in row):
        ids = torch.tensor([text], device=device)
        positions = torch.arange(at, at + len(text), device=device)[None]
        with fresh_frequencies(model):
            last.append(trunk(input_ids=ids, position_ids=positions, use_cache=False)[0][:, -1])
    return torch.cat(last)


def _shared_states(model: Any, at: int, windows: set[int | None]) -> Tensor:
    """The same of the packed texts; `windows` collects what layers asked for."""
    packed = pack(_LONG if at else _SHORT)
    packed = replace(packed, position_ids=packed.position_ids + at).to(model.device)
    with fresh_frequencies(model), without_masks():
        states: Tensor = model.base_model(
            input_ids=packed.input_ids, position_ids=packed.position_ids, use_cache=False, layout=packed.layout
        )[0]
    windows |= packed.layout.windows
    return states[0, packed.reward_index]
