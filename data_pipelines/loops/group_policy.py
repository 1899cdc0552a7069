"""Training a policy on groups: GRPO over the scored replies of each prompt, in this process.

    A_i   = (r_i - mean r) / (std r + 1e-6)      over the replies of a prompt (the chain `grpo`)
    w_it  = pi(y_it) / pi_old(y_it)              pi_old: the policy that training begins with
    loss  = - mean_i (1 / |y_i|) sum_t min(w_it A_i, clip(w_it, 1 - clip, 1 + clip) A_i)

Shao et al., arXiv:2402.03300, without its KL term. Replies come as a dataset keeps them, each text once, where the
paper counts every sample. Groups whose rewards are all equal teach nothing and are counted; texts longer than
`max_length` take their group with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipelines.loops.policy import Encoded, PolicyConfig, encoded, token_logps
from rmkit.errors import DataError
from rmkit.heads.loop import descend
from rmkit.shaping import Group, chain
from rmkit.types import Conversation


class PolicyGroup(NamedTuple):
    """Replies to a prompt with their rewards."""

    prompt: Conversation
    replies: tuple[str, ...]
    rewards: tuple[float, ...]


def advantages(rewards: Sequence[float]) -> list[float]:
    """See the module; all 0 where the rewards are equal."""
    shaped = chain(["grpo"]).apply(Group.of(reward=list(rewards)))["reward"]
    return [float(one) for one in shaped]


def group_loss(logp_NT: Tensor, old_NT: Tensor, mask_NT: Tensor, advantage_N: Tensor, *, clip: float) -> Tensor:
    """See the module; log-probabilities count where `mask_NT` is true."""
    ratio = torch.exp((logp_NT - old_NT) * mask_NT)
    signal = advantage_N[:, None]
    gain = torch.minimum(ratio * signal, ratio.clamp(1 - clip, 1 + clip) * signal) * mask_NT
    result: Tensor = -(gain.sum(dim=1) / mask_NT.sum(dim=1)).mean()
    return result


def train_groups(
    model: Any, tokenizer: Any, groups: Sequence[PolicyGroup], *, config: PolicyConfig, seed: int = 0
) -> dict[str, float]:
    """Train `model` in place, `batch_pairs` groups a step; loss, groups used and left out, and `rises`: the share of
    the replies whose likelihood moved as their advantage says.

    Raises DataError where no group can be learned from or a loss is not finite.
    """
    mixed = [one for one in groups if len(set(one.rewards)) > 1]
    parts = [(one, encoded(tokenizer, one.prompt, one.replies, config.max_length)) for one in mixed]
    items: list[tuple[Encoded, list[float]]] = [(part, advantages(one.rewards)) for one, part in parts if part]
    if not items:
        raise DataError(
            f"none of {len(groups)} groups can be learned from: in {len(groups) - len(mixed)} all rewards are equal, "
            f"{len(mixed)} do not fit into {config.max_length} tokens"
        )
    model.eval()  # no dropout: the round depends on data and seed alone
    old = [_scored(model, [item], grad=False) for item in items]
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.0)

    def losses() -> Iterator[Tensor]:
        for epoch in range(config.epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(items))
            for at in range(0, len(order), config.batch_pairs):
                index = order[at : at + config.batch_pairs].tolist()
                each = [_loss(_scored(model, [items[i]], grad=True), old[i], items[i][1], config.clip) for i in index]
                yield torch.stack(each).mean()

    clip = partial(torch.nn.utils.clip_grad_norm_, list(model.parameters()), 1.0)
    values = descend(optimizer, losses(), clip=clip)
    moved = []
    for item, before in zip(items, old, strict=True):
        after, mask = _scored(model, [item], grad=False)
        change = ((after - before[0]) * mask).sum(dim=1).tolist()
        moved += [(one > 0) == (gain > 0) for one, gain in zip(change, item[1], strict=True) if gain]
    return {
        "loss": float(np.mean(values)),
        "groups": len(items),
        "equal_rewards": len(groups) - len(mixed),
        "too_long": len(mixed) - len(items),
        "rises": float(np.mean(moved)),
    }


def _loss(now: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor], advantage: Sequence[float], clip: float) -> Tensor:
    return group_loss(now[0], old[0], now[1], now[0].new_tensor(advantage), clip=clip)


def _scored(model: Any, items: Sequence[tuple[Encoded, list[float]]], *, grad: bool) -> tuple[Tensor, Tensor]:
    return token_logps(model, [part for part, _ in items], grad=grad)
