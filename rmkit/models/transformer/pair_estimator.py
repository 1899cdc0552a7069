"""UPO's estimator as the paper has it: a language model with a two-class head that says which response is better.

    g(x, a, b) = head(drop(h_last)),  h_last the hidden state at the last token of a text with x, a and b
    p_t        = ( P_t(first | x, chosen, rejected) + P_t(second | x, rejected, chosen) ) / 2

Every pair enters in both orders, with labels first and second, in training and in estimation. In the T passes dropout
of the same rate is on before the head, in every layer of the model that can drop, and in its adapters, the only ones
that a frozen trunk has. Weights are trained whole, or by LoRA with `lora_rank`.

Sun et al., arXiv:2409.11212. There: Zephyr-7B with LoRA, lr 2e-5, two epochs, length 2048, T = 10, dropout 0.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rmkit.chat.template import as_template_dict
from rmkit.errors import ConfigError, DataError
from rmkit.heads.loop import descend
from rmkit.models.transformer.pretrained import load_pretrained, load_tokenizer
from rmkit.models.wrappers.dropout import set_rates
from rmkit.reliability.label_weights import check_enough
from rmkit.reliability.uncertainty import Uncertainty
from rmkit.types import Candidates, Message

QUESTION = "Two replies to the conversation above follow. Which one is better?\n\nFirst:\n{first}\n\nSecond:\n{second}"


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """How the classifier is trained and asked."""

    model: Annotated[str, "folder of a causal language model with a chat template"]
    epochs: Annotated[int, "passes over the labeled pairs"] = 2
    lr: Annotated[float, "learning rate of AdamW"] = 2e-5
    batch_pairs: Annotated[int, "pairs of one step, each in both orders"] = 8
    max_length: Annotated[int, "longest text in tokens; longer pairs are not judged"] = 2048
    dropout: Annotated[float, "rate in training and in each pass"] = 0.1
    passes: Annotated[int, "passes T"] = 10
    lora_rank: Annotated[int, "rank of adapters; 0: all weights are trained"] = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_pairs, self.max_length) < 1 or self.lr <= 0 or self.lora_rank < 0:
            raise ConfigError("epochs, batch_pairs, max_length and lr must be positive, lora_rank at least 0")
        if not 0 < self.dropout < 1 or self.passes < 2:
            raise ConfigError(f"dropout lies in (0, 1), passes at least 2; got {self.dropout}, {self.passes}")


class LanguageModelEstimator:
    """A classifier of ordered pairs; `pairs` hold the better response first."""

    def __init__(self, config: LanguageModelConfig, *, seed: int = 0) -> None:
        self.config, self.seed = config, seed
        folder = Path(config.model)
        self.tokenizer: Any = load_tokenizer(folder)
        if not self.tokenizer.chat_template:
            raise ConfigError(f"{folder} has no chat template; give its tokenizer one (tokenizer.chat_template)")
        causal = load_pretrained("AutoModelForCausalLM", folder, dtype="float32").model
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.trunk: Any = _with_adapters(causal, config)
            self.head = nn.Linear(causal.config.get_text_config().hidden_size, 2)
        self.drop = nn.Dropout(config.dropout)
        set_rates(self.trunk, config.dropout)

    def fit(self, pairs: Sequence[Candidates]) -> LanguageModelEstimator:
        """Train on labeled pairs. Raises DataError below 50 that fit, or where the loss is not finite."""
        texts = [both for pair in pairs if (both := self._both(pair)) is not None]
        check_enough(len(texts), what="labeled pairs that fit")
        learned = [weight for part in (self.trunk, self.head) for weight in part.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=self.config.lr, weight_decay=0.01)
        self.trunk.train()

        def losses() -> Iterator[Tensor]:
            for epoch in range(self.config.epochs):
                order = np.random.default_rng([self.seed, epoch]).permutation(len(texts)).tolist()
                for at in range(0, len(order), self.config.batch_pairs):
                    part = [texts[i] for i in order[at : at + self.config.batch_pairs]]
                    logits = self._logits([ids for both in part for ids in both])
                    yield cross_entropy(logits, torch.tensor([0, 1] * len(part), device=logits.device))

        with torch.random.fork_rng():
            torch.manual_seed(self.seed + 1)
            descend(optimizer, losses(), clip=lambda: nn.utils.clip_grad_norm_(learned, 1.0))
        return self

    @torch.no_grad()
    def uncertainty(self, pairs: Sequence[Candidates]) -> Uncertainty:
        """[T, n] probabilities that the order is right, dropout on; NaN where a pair is too long.

        Raises DataError where all passes are the same: nothing in the model drops.
        """
        texts = [self._both(pair) for pair in pairs]
        known = [at for at, both in enumerate(texts) if both is not None]
        passes = np.full((self.config.passes, len(pairs)), np.nan)
        self.trunk.train()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed + 2)
            for row in passes:
                for at in range(0, len(known), self.config.batch_pairs):
                    part = known[at : at + self.config.batch_pairs]
                    logits = self._logits([ids for i in part for ids in texts[i] or ()])
                    first = logits.softmax(dim=-1)[:, 0].view(-1, 2).double().cpu().numpy()
                    row[part] = (first[:, 0] + 1 - first[:, 1]) / 2
        if known and np.ptp(passes[:, known], axis=0).max() == 0:
            raise DataError(
                f"{self.config.passes} passes of {self.config.model} are all the same: dropout is not active"
            )
        return Uncertainty(passes)

    def _both(self, pair: Candidates) -> tuple[list[int], list[int]] | None:
        """Token ids of the pair in its order and turned round; None where they are too long."""
        chosen, rejected = (completion.text for completion in pair.completions)
        both = self._ids(pair, chosen, rejected), self._ids(pair, rejected, chosen)
        return both if max(map(len, both)) <= self.config.max_length else None

    def _ids(self, pair: Candidates, first: str, second: str) -> list[int]:
        messages = [*pair.prompt, Message("user", QUESTION.format(first=first, second=second))]
        ids: list[int] = self.tokenizer.apply_chat_template(
            [as_template_dict(message, arguments="object") for message in messages],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        return list(ids)

    def _logits(self, rows: Sequence[list[int]]) -> Tensor:
        """[rows, 2] at each row's last token, with dropout."""
        device = self.head.weight.device
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, : len(row)], mask[at, : len(row)] = torch.tensor(row), 1
        result = self.trunk(input_ids=ids.to(device), attention_mask=mask.to(device), output_hidden_states=True)
        last = torch.tensor([len(row) - 1 for row in rows], device=device)
        hidden = result.hidden_states[-1][torch.arange(len(rows), device=device), last]
        logits: Tensor = self.head(self.drop(hidden.float()))
        return logits


def _with_adapters(model: Any, config: LanguageModelConfig) -> Any:
    if not config.lora_rank:
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model, LoraConfig(r=config.lora_rank, lora_dropout=config.dropout, target_modules="all-linear")
    )
