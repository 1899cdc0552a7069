"""Settings of judge training: one table for the three stages, each with the papers' defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rmkit.errors import ConfigError

Stage = Literal["sft", "dpo", "grpo"]

# RISE states neither; SFT and DPO as the specification proposes, GRPO as J1 (arXiv 2505.10320)
LEARNING_RATE: dict[Stage, float] = {"sft": 1e-5, "dpo": 5e-7, "grpo": 1e-6}
EPOCHS: dict[Stage, float] = {"sft": 2.0, "dpo": 1.0, "grpo": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeTrainingConfig:
    """0 for `learning_rate` and `num_train_epochs` takes the stage's default; `steps` ends training early where it is
    set.

    One step sees `global_batch_size` rows (GRPO: prompts, `generations` replies each), `rows_at_once` (GRPO: replies)
    at a time. `max_length` bounds prompt and reply together: longer rows are dropped and counted, never cut, since a
    cut row has lost its verdict. `beta` and `nll_weight` are DPO's (loss = DPO + nll_weight x mean negative
    log-likelihood per token of the chosen reply), `kl` is GRPO's. `lora_rank` 0 trains all weights; adapters are merged
    at the end.
    """

    learning_rate: float = 0.0
    num_train_epochs: float = 0.0
    steps: int = 0
    global_batch_size: int = 16
    rows_at_once: int = 0
    max_length: int = 4096
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    lora_rank: int = 0
    beta: float = 0.1
    nll_weight: float = 0.2
    kl: float = 0.01
    generations: int = 5
    reply_tokens: int = 1024
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.global_batch_size < 1 or self.max_length < 2 or self.reply_tokens < 1:
            raise ConfigError("train judge: global_batch_size, max_length and reply_tokens must be at least 1, 2 and 1")
        if self.beta <= 0 or min(self.nll_weight, self.kl, self.learning_rate, self.num_train_epochs, self.steps) < 0:
            raise ConfigError(
                "train judge: beta must be above 0; nll_weight, kl, learning_rate, num_train_epochs, steps at least 0"
            )
        if self.generations < 2 or self.temperature <= 0:
            raise ConfigError("train judge: generations must be at least 2 (GRPO compares them), temperature above 0")
        if not 0 <= self.warmup_ratio < 1:
            raise ConfigError(f"train judge: warmup_ratio must be in [0, 1), got {self.warmup_ratio:g}")

    def at_once(self, stage: Stage) -> int:
        """Rows (GRPO: replies) on the device together. Raises ConfigError where they do not divide a step."""
        whole = self.global_batch_size * (self.generations if stage == "grpo" else 1)
        at_once = self.rows_at_once or whole
        if whole % at_once:
            raise ConfigError(f"train judge: rows_at_once {at_once} must divide the {whole} of one step")
        if stage == "grpo" and self.global_batch_size % 2:
            raise ConfigError(
                f"train judge: GRPO takes both orders together, global_batch_size {self.global_batch_size} is odd"
            )
        return at_once
