"""A policy in training as an implicit reward model: its rewards take the place of a score head's.

The module gives beta times the log-ratio of every response, so that the objectives, micro-batches and validation of
explicit training apply unchanged: Bradley-Terry on these rewards is DPO, label smoothing cDPO, the unbiased loss rDPO.
The reference's log-probabilities are computed once, before the first step, and kept under `$RMKIT_HOME/features`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rmkit import paths
from rmkit.chat.encode import Chat
from rmkit.cli import display
from rmkit.devices import chosen
from rmkit.errors import DataError, ModelError
from rmkit.features.cache import FeatureCache
from rmkit.models.transformer import implicit
from rmkit.models.transformer.packing import Ids
from rmkit.models.transformer.policy import PolicyModule, response_reads, response_sums
from rmkit.models.transformer.pretrained import Pretrained, load_pretrained, load_tokenizer
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.training.attention import loading_options
from rmkit.training.config import ImplicitConfig
from rmkit.training.model import chat_of, in_stored_dtype, plain, rounded, stored_dtype, trainable
from rmkit.training.rows import TrainingRow
from rmkit.training.tokens.store import Changed

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ImplicitModule(PolicyModule):
    """The policy with the reference's log-probability of every response that it will be asked about."""

    def __init__(
        self, model: Any, *, beta: float, per_token: bool = False, packed: bool = True, share: bool = True
    ) -> None:
        super().__init__(model, packed=packed, share=share)
        self.beta = beta
        self.per_token = per_token
        self.known: Mapping[Ids, tuple[int, float]] = {}  # where the response begins, its reference log-probability
        _store_tied_weights_once(self)

    def collate(self, rows: Sequence[Sequence[Ids]], *, reads: Any = None) -> Any:
        """Rows as one batch; without `reads`, of rows whose reference is known."""
        if reads is not None:
            return super().collate(rows, reads=reads)
        reference = [self.known[ids][1] for row in rows for ids in row]
        reference_K = torch.tensor(reference, device=self.classifier.device)
        starts = [[self.known[ids][0] for ids in row] for row in rows]
        return replace(super().collate(rows, reads=response_reads(rows, starts)), reference=reference_K)

    def forward(self, batch: Any) -> Tensor:
        """[K] implicit rewards."""
        assert batch.reference is not None
        ratio_K = response_sums(super().forward(batch), batch.sizes) - batch.reference
        sizes_K = ratio_K.new_tensor(batch.sizes if self.per_token else [1] * len(batch.sizes))
        reward_K: Tensor = self.beta * ratio_K / sizes_K
        return reward_K

    def best_log_probs(self, reward_K: Tensor, rows: Sequence[TrainingRow]) -> Tensor:
        """[B] log-probability per token of each row's best response under the policy, read back from its reward."""
        log_prob, first = [], 0
        for row in rows:
            at = row.best
            ratio = reward_K[first + at] / self.beta * (row.tokens[at] if self.per_token else 1)
            log_prob.append((ratio + self.known[row.ids[at]][1]) / row.tokens[at])
            first += len(row.ids)
        return torch.stack(log_prob)


def _store_tied_weights_once(module: torch.nn.Module) -> None:
    """safetensors, which checkpoints are written with, refuses a vocabulary head that is the embedding itself."""
    first: dict[int, str] = {}
    tied = {}
    for name, weight in module.named_parameters(remove_duplicate=False):
        if (owner := first.setdefault(id(weight), name)) != name:
            tied[name] = owner

    def drop(_: Any, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for name in tied:
            state.pop(prefix + name, None)

    def restore(_: Any, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for name, owner in tied.items():
            if prefix + owner in state:
                state[prefix + name] = state[prefix + owner]

    module.register_state_dict_post_hook(drop)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(restore)  # type: ignore[no-untyped-call]


def build(config: ImplicitConfig, *, head: RatingHead | None = None) -> tuple[ImplicitModule, Chat]:
    from transformers import set_seed

    set_seed(config.seed)
    loaded, chat = _loaded(config.model, config, **loading_options(config.attention))
    if config.reference:
        _check_reference(_loaded(config.reference, config)[1], chat, config)
    model = trainable(loaded.model, config, peft_task="CAUSAL_LM", train_heads=False)
    module = ImplicitModule(
        model,
        beta=config.beta,
        per_token=config.divides,
        packed=config.attention == "auto",
        share=config.share_prompts,
    )
    module.loading = loaded.facts()
    return module, chat


def _loaded(name: str, config: ImplicitConfig, **options: Any) -> tuple[Pretrained, Chat]:
    result = load_pretrained("AutoModelForCausalLM", name, dtype="float32", **options)
    result.model.eval()
    return result, chat_of(result.model, load_tokenizer(name), config)


def _check_reference(reference: Chat, policy: Chat, config: ImplicitConfig) -> None:
    if reference.fingerprint != policy.fingerprint:
        raise ModelError(
            f"the reference {config.reference} has another tokenizer or chat template than {config.model}; rewards are "
            "log-ratios over the same tokens"
        )


def prepare(
    rows: dict[str, Sequence[TrainingRow]], config: ImplicitConfig, *modules: ImplicitModule
) -> dict[str, Sequence[TrainingRow]]:
    """Swapped where a reverse model is wanted; the modules know the reference's log-probabilities of all responses,
    computed or from the cache. Raises DataError where the reference gives a response no probability."""
    known = _reference_log_probs(rows, config)
    for module in modules:
        module.known = known
    return {split: Changed(part, swapped) for split, part in rows.items()} if config.reverse else rows


def added_losses(
    outputs: Tensor, rows: Sequence[TrainingRow], config: ImplicitConfig, module: ImplicitModule
) -> Tensor | None:
    return -config.nll_weight * module.best_log_probs(outputs, rows) if config.nll_weight else None


def storable(module: ImplicitModule, config: ImplicitConfig, *, head: RatingHead | None = None) -> ImplicitModule:
    dtype = stored_dtype(config)
    if dtype == torch.float32:
        return module
    if module.model is not module.classifier:  # adapters: what is rounded is the sum
        merged = ImplicitModule(
            plain(module),
            beta=config.beta,
            per_token=config.divides,
            packed=config.attention == "auto",
            share=config.share_prompts,
        )
        merged.known, module = module.known, merged
    return rounded(module, dtype)


def swapped(row: TrainingRow) -> TrainingRow:
    """The row with better and worse exchanged."""
    return replace(
        row,
        preferences=tuple(one._replace(p=1 - one.p) for one in row.preferences),
        ranks=tuple(max(row.ranks) - rank if rank >= 0 else rank for rank in row.ranks),
    )


class ReferenceLogProbs(Mapping[Ids, tuple[int, float]]):
    """Where each response begins and its log-probability under the reference, by its ids; held by their digests, some
    hundred bytes a response however long it is."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, tuple[int, float]] = {}

    def add(self, ids: Ids, start: int, value: float) -> None:
        self._by_digest[_key(ids, 0)] = (start, value)

    def __getitem__(self, ids: Ids) -> tuple[int, float]:
        return self._by_digest[_key(ids, 0)]

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[Ids]:
        raise TypeError("the ids themselves are not held")


def _reference_log_probs(rows: Mapping[str, Sequence[TrainingRow]], config: ImplicitConfig) -> ReferenceLogProbs:
    """Of every response where it begins and its log-probability under the reference."""
    reference = reference_model(config)
    cache = FeatureCache(paths.home() / "features" / f"logprobs-{weights_digest(reference)[:32]}-{config.precision}")
    policy = PolicyModule(reference.to(chosen()), share=config.share_prompts).eval()
    known, lost = ReferenceLogProbs(), 0
    with display.progress("reference", sum(map(len, rows.values()))) as advance:
        for part in rows.values():
            for at in range(0, len(part), 512):
                window = part[at : at + 512]
                pairs = (zip(row.ids, row.tokens, strict=True) for row in window)
                start = {ids: len(ids) - tokens for row in pairs for ids, tokens in row}
                for ids, value in _log_probs(policy, start, config, cache).items():
                    known.add(ids, start[ids], value)
                    lost += not np.isfinite(value)
                advance(len(window))
    if lost:
        raise DataError(f"the reference gives {lost} responses no probability; take another reference")
    return known


def _log_probs(
    policy: PolicyModule, start: Mapping[Ids, int], config: ImplicitConfig, cache: FeatureCache
) -> dict[Ids, float]:
    """The log-probabilities of responses that begin at `start`, from the cache or computed into it."""
    keys = {ids: _key(ids, at) for ids, at in start.items()}
    by_key: dict[bytes, Any] = dict(cache.read(list(keys.values())))
    if todo := [ids for ids, key in keys.items() if key not in by_key]:
        token_log_probs = policy.token_log_probs(
            [[ids] for ids in todo],
            [[start[ids]] for ids in todo],
            max_batch_tokens=config.max_batch_tokens,
            precision="bf16" if config.precision == "bf16" else "fp32",
        )
        new = {keys[ids]: sum(row[0]) for ids, row in zip(todo, token_log_probs, strict=True)}
        values: Any = np.array(list(new.values()), dtype=np.float64)[:, None]
        cache.write(list(new), values)
        by_key |= dict(zip(new, values, strict=True))
    return {ids: float(by_key[key][0]) for ids, key in keys.items()}


def _key(ids: Ids, start: int) -> bytes:
    return hashlib.sha256(struct.pack(f"<{len(ids) + 1}q", start, *ids)).digest()[:16]


def reference_model(config: ImplicitConfig) -> PreTrainedModel:
    """The model that rewards are measured against, freshly loaded."""
    return _loaded(config.reference or config.model, config)[0].model


def weights_digest(model: Any) -> str:
    """Hex SHA-256 over the names and fp32 bytes of all weights."""
    hasher = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        hasher.update(name.encode())
        hasher.update(weight.detach().float().contiguous().cpu().numpy().tobytes())
    return hasher.hexdigest()


def save(
    folder: Path,
    module: ImplicitModule,
    chat: Chat,
    config: ImplicitConfig,
    *,
    facts: Mapping[str, Any],
    head: RatingHead | None = None,
) -> None:
    """The trained policy (adapters merged in) and its reference, which is stored as it came."""
    as_is = replace(config, model=config.reference or config.model, save_dtype="base")
    implicit.save(
        folder,
        policy=in_stored_dtype(plain(module), config),
        reference=in_stored_dtype(reference_model(config), as_is),
        chat=chat,
        facts=facts,
        beta=config.beta,
        per_token=config.divides,
    )
