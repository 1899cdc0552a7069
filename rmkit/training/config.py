"""What `rmkit train explicit` can be told, as TOML or on the command line; resolved, it travels with the artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rmkit.chat.encode import TruncationPolicy
from rmkit.errors import ConfigError

ObjectiveName = Literal[
    "bradley_terry",
    "margin",
    "soft_label",
    "ties",
    "label_smoothing",
    "robust",
    "focal",
    "plackett_luce",
    "pro",
    "regression",
    "ordinal",
    "reaction",
    "process",
    "dpo",
    "cdpo",
    "rdpo",
    "ipo",
]

RATING = ("regression", "ordinal", "reaction")
RANKING = ("plackett_luce", "pro")
IMPLICIT = ("dpo", "cdpo", "rdpo", "ipo", "soft_label", *RANKING)
KEEPS_TIES = ("soft_label", "ties", *RANKING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplicitConfig:
    """Defaults suit full fine-tuning of a small model; with LoRA take a ten times higher learning rate.

    `rows_per_step` rows (pairs or rankings) make one optimizer step on all processes together, whatever
    `batch_tokens` (the budget of one forward and backward pass, padding included) cuts it into. `precision` bf16 is
    autocast over fp32 weights; the head is fp32 either way. `lora_rank` 0 trains all weights; with adapters,
    `quantize` nf4 keeps the others in 4 bits (QLoRA). `centering` is the weight of the centering penalty, 0 for none.

    Ratings (objectives regression, ordinal, reaction): `aspects` are learned, by default all that the training split
    has; `aspect_weights` (one each, default equal) make the value. `negatives_kept` is the share of negative reactions
    that sampling left. Objective process: `reduction` makes the value of a solution from its steps, and a response
    without marked steps is split after each `step_separator`.
    """

    model: str
    objective: ObjectiveName = "bradley_terry"
    label_noise: float = 0.1
    margin_scale: float = 1.0
    focal_gamma: float = 2.0
    centering: float = 0.0
    aspects: tuple[str, ...] = ()
    aspect_weights: tuple[float, ...] = ()
    negatives_kept: float = 1.0
    reduction: Literal["min", "last", "product", "mean"] = "min"
    step_separator: str = "\n\n"

    learning_rate: float = 1e-5
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    epochs: float = 1.0
    rows_per_step: int = 64
    batch_tokens: int = 8192
    evaluations_per_epoch: int = 2

    max_tokens: int = 2048
    response_reserve_tokens: int | None = None
    long_response: Literal["refuse", "flag"] = "refuse"

    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    dropout: bool = False
    share_prompts: bool = True
    lora_rank: int = 0
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    quantize: Literal["none", "nf4"] = "none"

    seed: int = 0
    report_to: tuple[str, ...] = ()

    @property
    def truncation(self) -> TruncationPolicy:
        """The limits on texts; without `response_reserve_tokens` its own default. Raises ConfigError."""
        reserve = self.response_reserve_tokens
        named = {} if reserve is None else {"response_reserve_tokens": reserve}
        return TruncationPolicy(max_tokens=self.max_tokens, long_response=self.long_response, **named)

    @property
    def kind(self) -> str:
        """The kind of model that comes out, and the word behind `rmkit train`."""
        return "process" if self.objective == "process" else "explicit"

    def __post_init__(self) -> None:
        if self.kind == "explicit" and self.objective in ("dpo", "cdpo", "rdpo", "ipo"):
            raise ConfigError(f"{self.objective} trains implicit reward models: rmkit train implicit")
        positive = ("learning_rate", "epochs", "rows_per_step", "batch_tokens", "evaluations_per_epoch", "margin_scale")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.warmup_share < 1:
            raise ConfigError(f"warmup_share lies in [0, 1), got {self.warmup_share}")
        if not 0 <= self.label_noise < 0.5:
            raise ConfigError(
                f"label_noise is a flip rate in [0, 0.5), got {self.label_noise}; from 0.5 on labels say nothing"
            )
        if not 0 < self.negatives_kept <= 1:
            raise ConfigError(f"negatives_kept is a share in (0, 1], got {self.negatives_kept}")
        if self.aspect_weights and len(self.aspect_weights) != len(self.aspects):
            raise ConfigError("aspect_weights needs aspects, and one weight for each of them")
        if self.aspect_weights and (min(self.aspect_weights) < 0 or sum(self.aspect_weights) <= 0):
            raise ConfigError(f"aspect_weights must not be negative, nor all zero, got {self.aspect_weights}")
        _ = self.truncation  # limits that do not fit each other are told before anything is loaded
        if not self.step_separator:
            raise ConfigError("step_separator must not be empty")
        if self.centering and self.objective in (*RATING, "process"):
            raise ConfigError(
                f"centering belongs to preferences; the objective {self.objective} fixes the level itself"
            )
        if self.centering < 0 or self.lora_rank < 0:
            raise ConfigError("centering and lora_rank must not be negative")
        if self.quantize != "none" and not self.lora_rank:
            raise ConfigError("quantize = 'nf4' trains adapters only (QLoRA); set lora_rank, e.g. 16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitConfig(ExplicitConfig):
    """As ExplicitConfig, for a policy whose log-ratios to a reference are the rewards.

    `beta` scales rewards; `per_token` divides them by the response's tokens (length-normalized DPO; ipo always does).
    `label_noise` is the flip rate that cdpo and rdpo assume. `reference` is what rewards are measured against, by
    default `model` itself. `reverse` learns from the swapped pairs, the other half of a contrastive model. `likelihood`
    weighs a second term, -log pi(best) per token of the best response (PRO's own; RISE's and UPO's for DPO).
    """

    objective: ObjectiveName = "dpo"
    beta: float = 0.1
    per_token: bool = False
    reference: str = ""
    reverse: bool = False
    likelihood: float = 0.0
    learning_rate: float = 1e-6

    @property
    def kind(self) -> str:
        return "implicit"

    @property
    def divides(self) -> bool:
        """Whether rewards are means over tokens rather than sums."""
        return self.per_token or self.objective == "ipo"

    def __post_init__(self) -> None:
        ExplicitConfig.__post_init__(self)
        if self.objective not in IMPLICIT:
            raise ConfigError(f"implicit models learn by {', '.join(IMPLICIT)}; got {self.objective!r}")
        if self.beta <= 0:
            raise ConfigError(f"beta must be positive, got {self.beta}")
        if self.likelihood < 0:
            raise ConfigError(f"likelihood must not be negative, got {self.likelihood}")
        if self.quantize != "none":
            raise ConfigError("implicit models are not trained in 4 bits yet; leave quantize out (lora_rank works)")
        if self.centering:
            raise ConfigError("centering belongs to explicit rewards; the reference fixes the level of implicit ones")
