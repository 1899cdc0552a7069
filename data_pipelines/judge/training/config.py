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
    """0 for `learning_rate` and `epochs` takes the stage's default; `steps` ends training early where it is set.

    One step sees `rows_per_step` rows (GRPO: prompts, `generations` replies each), `rows_at_once` (GRPO: replies) at a
    time. `max_tokens` bounds prompt and reply together: longer rows are dropped and counted, never cut, since a cut row
    has lost its verdict. `beta` and `nll` are DPO's (loss = DPO + nll x mean negative log-likelihood per token of the
    chosen reply), `kl` is GRPO's. `lora_rank` 0 trains all weights; adapters are merged at the end.
    """

    learning_rate: float = 0.0
    epochs: float = 0.0
    steps: int = 0
    rows_per_step: int = 16
    rows_at_once: int = 0
    max_tokens: int = 4096
    schedule: str = "cosine"
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    lora_rank: int = 0
    beta: float = 0.1
    nll: float = 0.2
    kl: float = 0.01
    generations: int = 5
    reply_tokens: int = 1024
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows_per_step < 1 or self.max_tokens < 2 or self.reply_tokens < 1:
            raise ConfigError("train judge: rows_per_step, max_tokens and reply_tokens must be at least 1, 2 and 1")
        if self.beta <= 0 or min(self.nll, self.kl, self.learning_rate, self.epochs, self.steps) < 0:
            raise ConfigError("train judge: beta must be above 0; nll, kl, learning_rate, epochs and steps at least 0")
        if self.generations < 2 or self.temperature <= 0:
            raise ConfigError("train judge: generations must be at least 2 (GRPO compares them), temperature above 0")
        if not 0 <= self.warmup_share < 1:
            raise ConfigError(f"train judge: warmup_share must be in [0, 1), got {self.warmup_share:g}")

    def at_once(self, stage: Stage) -> int:
        """Rows (GRPO: replies) on the device together. Raises ConfigError where they do not divide a step."""
        whole = self.rows_per_step * (self.generations if stage == "grpo" else 1)
        at_once = self.rows_at_once or whole
        if whole % at_once:
            raise ConfigError(f"train judge: rows_at_once {at_once} must divide the {whole} of one step")
        if stage == "grpo" and self.rows_per_step % 2:
            raise ConfigError(
                f"train judge: GRPO takes both orders together, rows_per_step {self.rows_per_step} is odd"
            )
        return at_once
