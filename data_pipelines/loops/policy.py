"""Training a policy in this process: DPO with smoothed labels and the winner's likelihood, or imitation.

    dpo   h     = [log pi(yw) - log ref(yw)] - [log pi(yl) - log ref(yl)]      sums over the tokens of the response
          loss  = -(1 - a) log sigmoid(beta h) - a log sigmoid(-beta h) - nll_weight * log pi(yw) / |yw|
    nll   loss  = -log pi(yw) / |yw|

`a` is each pair's smoothing (UPO, Sun et al., arXiv:2409.11212: the sign of its last term and the length are
corrected). SPIN's loss is `dpo` against the policy before. A small loop in fp32, for policies that fit one device: the
same seed gives the same weights. Texts longer than `max_length` are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rmkit.chat.template import as_template_dict
from rmkit.errors import ConfigError, DataError
from rmkit.heads.loop import descend
from rmkit.types import Conversation


class PolicyPair(NamedTuple):
    """A better and a worse reply with the smoothing of their label; `rejected` None where there is one to imitate."""

    prompt: Conversation
    chosen: str
    rejected: str | None
    alpha: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Defaults are UPO's, for large models; small ones want a higher learning rate."""

    loss: Annotated[
        Literal["dpo", "nll", "grpo"], "learn from both replies, imitate the better one, or learn from all scored ones"
    ] = "dpo"
    beta: Annotated[float, "reward per unit of the log-ratio"] = 0.1
    nll_weight: Annotated[float, "weight of the winner's mean negative log-likelihood"] = 0.1
    lr: Annotated[float, "learning rate of AdamW"] = 5e-6
    epochs: Annotated[int, "passes over the pairs of a round"] = 1
    batch_pairs: Annotated[int, "pairs of one step"] = 8
    max_length: Annotated[int, "longest text in tokens; longer pairs are left out and counted"] = 1024
    clip: Annotated[float, "of grpo: how far the ratio to the policy before counts"] = 0.2

    def __post_init__(self) -> None:
        positive = min(self.beta, self.lr, self.clip) > 0 and min(self.epochs, self.batch_pairs, self.max_length) >= 1
        if not positive or self.nll_weight < 0:
            raise ConfigError(
                "beta, lr, clip, epochs, batch_pairs and max_length must be positive, nll_weight at least 0"
            )


def train_policy(
    model: Any, reference: Any, tokenizer: Any, pairs: Sequence[PolicyPair], *, config: PolicyConfig, seed: int = 0
) -> dict[str, float]:
    """Train `model` in place; loss, rows used and too long, and of dpo `agrees`: the share of pairs whose implicit
    reward is as the label says afterwards. `reference` is read by dpo alone.

    Raises DataError where no pair fits or a loss is not finite.
    """
    rows = [one for pair in pairs if (one := _encoded(tokenizer, pair, config)) is not None]
    if not rows:
        raise DataError(f"none of {len(pairs)} pairs fits into {config.max_length} tokens; raise max_length")
    imitates = config.loss == "nll"
    parts = [] if imitates else _parts(rows, config.batch_pairs)
    base = torch.cat([_logps(reference.eval(), part, grad=False) for part in parts]) if parts else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.0)
    model.eval()  # no dropout: the round depends on data and seed alone

    def losses() -> Iterator[Tensor]:
        for epoch in range(config.epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(rows))
            for at in range(0, len(order), config.batch_pairs):
                index = order[at : at + config.batch_pairs].tolist()
                part = [rows[i] for i in index]
                logp = _logps(model, part, grad=True)
                yield (
                    _imitation(logp, part)
                    if base is None
                    else preference_loss(
                        logp,
                        base[index],
                        alpha_B=logp.new_tensor([one.alpha for one in part]),
                        length_B=_lengths(logp, part),
                        config=config,
                    )
                )

    clip = partial(torch.nn.utils.clip_grad_norm_, list(model.parameters()), 1.0)
    values = descend(optimizer, losses(), clip=clip)
    result = {"loss": float(np.mean(values)), "pairs": len(rows), "too_long": len(pairs) - len(rows)}
    if base is not None:
        ratio = torch.cat([_logps(model, part, grad=False) for part in parts]) - base
        result["agrees"] = (ratio[:, 0] > ratio[:, 1]).double().mean().item()
    return result


class Encoded(NamedTuple):
    """A prompt with replies, as ids; each reply ends with EOS."""

    prompt: list[int]
    replies: tuple[list[int], ...]
    alpha: float = 0.0


def encoded(tokenizer: Any, prompt: Conversation, texts: Sequence[str], max_length: int) -> Encoded | None:
    """None where the longest reply does not fit behind the prompt."""
    ids = tokenizer.apply_chat_template(
        [as_template_dict(message, arguments="object") for message in prompt],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    replies = tuple([*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in texts)
    return Encoded(list(ids), replies) if len(ids) + max(map(len, replies)) <= max_length else None


def _encoded(tokenizer: Any, pair: PolicyPair, config: PolicyConfig) -> Encoded | None:
    texts = [pair.chosen] if config.loss == "nll" else [pair.chosen, str(pair.rejected)]
    result = encoded(tokenizer, pair.prompt, texts, config.max_length)
    return None if result is None else result._replace(alpha=pair.alpha)


def _parts(rows: Sequence[Encoded], size: int) -> list[Sequence[Encoded]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def token_logps(model: Any, part: Sequence[Encoded], *, grad: bool) -> tuple[Tensor, Tensor]:
    """[N, T] log-probabilities of every token, and where they are the replies', EOS included; N counts all replies."""
    rows = [one.prompt + reply for one in part for reply in one.replies]
    starts = [len(one.prompt) for one in part for _ in one.replies]
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, : len(row)], mask[at, : len(row)] = torch.tensor(row), 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    with torch.set_grad_enabled(grad):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        logp = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:, None])[..., 0]
    place = torch.arange(1, width, device=ids.device)
    return logp, (place >= torch.tensor(starts, device=ids.device)[:, None]) & (mask[:, 1:] > 0)


def _logps(model: Any, part: Sequence[Encoded], *, grad: bool) -> Tensor:
    """[B, replies] summed log-probabilities of the replies' tokens."""
    logp, reply = token_logps(model, part, grad=grad)
    return (logp * reply).sum(dim=1).view(len(part), -1)


def preference_loss(
    logp_B2: Tensor, base_B2: Tensor, *, alpha_B: Tensor, length_B: Tensor, config: PolicyConfig
) -> Tensor:
    """The mean of `dpo`: log-probabilities of (better, worse) under the policy and its reference."""
    h = (logp_B2 - base_B2)[:, 0] - (logp_B2 - base_B2)[:, 1]
    dpo = -(1 - alpha_B) * logsigmoid(config.beta * h) - alpha_B * logsigmoid(-config.beta * h)
    result: Tensor = (dpo - config.nll_weight * logp_B2[:, 0] / length_B).mean()
    return result


def _imitation(logp_B1: Tensor, part: Sequence[Encoded]) -> Tensor:
    result: Tensor = -(logp_B1[:, 0] / _lengths(logp_B1, part)).mean()
    return result


def _lengths(like: Tensor, part: Sequence[Encoded]) -> Tensor:
    return like.new_tensor([float(len(one.replies[0])) for one in part])


class LogLikelihood(NamedTuple):
    """Of a reply, EOS included: the sum over its tokens, and how many they are."""

    total: float
    tokens: int


def log_likelihoods(
    model: Any, tokenizer: Any, rows: Sequence[PolicyPair], *, max_length: int
) -> list[LogLikelihood | None]:
    """Of each row's `chosen`; None where it is longer than `max_length`."""
    config = PolicyConfig(loss="nll", max_length=max_length)
    items = [_encoded(tokenizer, row, config) for row in rows]
    fitting = [one for one in items if one is not None]
    totals = iter([value for part in _parts(fitting, 16) for value in _logps(model, part, grad=False)[:, 0].tolist()])
    return [None if one is None else LogLikelihood(next(totals), len(one.replies[0])) for one in items]
