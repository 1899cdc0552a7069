"""Settings of judge training: one table for the three stages, each with the papers' defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rmkit.errors import ConfigError

Stage = Literal["sft", "dpo", "grpo"]

# RISE states neither; SFT and DPO as the specification proposes, GRPO as J1 (arXiv 2505.10320)
LEARNING_RATE: dict[Stage, float] = {"sft": 1e-5, "dpo": 5e-7, "grpo": 1e-6}
EPOCHS: dict[Stage, float] = {"sft": 2.0, "dpo": 1.0, "grpo": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeTrainingConfig:
    """What the stages of judge training are set by. The loss of DPO is DPO + nll_weight x mean negative log-likelihood
    per token of the chosen reply."""

    learning_rate: Annotated[float, "peak learning rate; 0 is the stage's own default"] = 0.0
    num_train_epochs: Annotated[float, "passes over the rows; 0 is the stage's own default"] = 0.0
    steps: Annotated[int, "ends training early; 0 does not"] = 0
    global_batch_size: Annotated[int, "rows of one step; GRPO: prompts, with `generations` replies each"] = 16
    rows_at_once: Annotated[int, "rows (GRPO: replies) of one pass; 0 is all of a step"] = 0
    max_length: Annotated[
        int, "tokens of prompt and reply together; longer rows are dropped and counted, for a cut one lost its verdict"
    ] = 4096
    lr_scheduler_type: Annotated[str, "how the learning rate falls after the warm-up"] = "cosine"
    warmup_ratio: Annotated[float, "share of the steps in which the learning rate rises, in [0, 1)"] = 0.05
    weight_decay: Annotated[float, "of AdamW"] = 0.0
    precision: Annotated[Literal["auto", "fp32", "bf16"], "auto is bf16 on a GPU"] = "auto"
    gradient_checkpointing: Annotated[bool, "compute activations again instead of holding them"] = False
    lora_rank: Annotated[int, "rank of the adapters, which are merged at the end; 0 trains all weights"] = 0
    beta: Annotated[float, "DPO: reward per unit of the log-ratio"] = 0.1
    nll_weight: Annotated[float, "DPO: weight of the chosen reply's likelihood"] = 0.2
    kl: Annotated[float, "GRPO: weight of the divergence from the model it starts from"] = 0.01
    generations: Annotated[int, "GRPO: replies for each prompt"] = 5
    reply_tokens: Annotated[int, "GRPO: longest reply in tokens"] = 1024
    temperature: Annotated[float, "GRPO: of sampling"] = 1.0
    seed: Annotated[int, "of everything random"] = 0

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
