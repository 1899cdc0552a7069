"""The options of `rmkit train explicit | process | implicit`: of every run, of its kind of model, of its objective.

TOML, `--set` and the stored settings name all of them side by side; a config is made of such flat keys by
`training_config`, and in Python of objects: `ExplicitConfig(model=..., objective=Focal(focal_gamma=1.0))`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from rmkit import config
from rmkit.chat.encode import TruncationPolicy
from rmkit.chat.reasoning import Reasoning
from rmkit.errors import ConfigError
from rmkit.plugins import BUILT_IN, resolve
from rmkit.training.attention import FLASH, Attention
from rmkit.training.objectives.bradley_terry import DPO, BradleyTerry
from rmkit.training.objectives.objective import REDUCTION_OF, Objective
from rmkit.training.objectives.process import Process

Optimizer = Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor"]
OBJECTIVE = "what is learned: a name, or module:object of your own"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """What every run has. Defaults suit full fine-tuning of a small model; with LoRA take a ten times higher learning
    rate."""

    kind: ClassVar[str]  # of the model that comes out, and the word behind `rmkit train`

    model: Annotated[str, "Hugging Face id or folder of a causal or encoder model"]
    objective: Annotated[Objective, OBJECTIVE]

    learning_rate: Annotated[float, "peak learning rate of AdamW"] = 1e-5
    lr_scheduler_type: Annotated[
        Literal["linear", "cosine", "constant_with_warmup"], "how the learning rate falls after the warm-up"
    ] = "cosine"
    warmup_ratio: Annotated[float, "share of the steps in which the learning rate rises, in [0, 1)"] = 0.05
    weight_decay: Annotated[float, "of AdamW"] = 0.0
    max_grad_norm: Annotated[float, "norm to which gradients are clipped"] = 1.0
    num_train_epochs: Annotated[float, "passes over the train split"] = 1.0
    global_batch_size: Annotated[int, "rows (pairs, rankings ...) of one step on all processes together"] = 64
    max_batch_tokens: Annotated[int, "tokens of one forward and backward pass, padding included"] = 8192
    evaluations_per_epoch: Annotated[int, "how often an epoch is validated; each time a checkpoint is written"] = 2
    max_eval_samples: Annotated[int | None, "validation rows to read, drawn by their ids; none reads all"] = None
    save_steps: Annotated[int | None, "write a checkpoint every so many steps, too, whatever is validated"] = None

    max_length: Annotated[int, "longest text in tokens, special ones included"] = 2048
    response_reserve_tokens: Annotated[
        int | None, "what a prompt leaves to its response; none is 1024, or half of max_length"
    ] = None
    long_response: Annotated[Literal["refuse", "flag"], "skip rows with a longer response, or cut it"] = "refuse"

    reasoning: Annotated[
        Reasoning, "judge what a response's model thought (`reasoning`, `<think>`) with it, or strip it"
    ] = "keep"

    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        "bf16 is autocast over fp32 weights, the head stays fp32; auto is bf16 on GPUs that have it",
    ] = "auto"
    gradient_checkpointing: Annotated[
        bool | None, "compute activations again instead of holding them; none does so on a GPU"
    ] = None
    optim: Annotated[Optimizer, "by transformers' names; the 8-bit ones need bitsandbytes and a CUDA GPU"] = (
        "adamw_torch_fused"
    )
    save_dtype: Annotated[
        Literal["base", "fp32", "bf16"],
        "of the stored weights but the score head's, which are fp32; base is what the checkpoint was stored in",
    ] = "base"
    attention: Annotated[
        Attention,
        "auto packs rows that share their prompts; the others are those of transformers, over padded rows (flash: on a "
        "GPU, where flash-attn is installed, in bf16)",
    ] = "auto"
    dropout: Annotated[bool, "leave the model's own dropout on"] = False
    share_prompts: Annotated[bool, "read the prompt of a row's responses once"] = True
    lora_rank: Annotated[int, "rank of the adapters; 0 trains all weights"] = 0
    lora_alpha: Annotated[int, "scale of the adapters"] = 32
    lora_dropout: Annotated[float, "dropout of the adapters"] = 0.0
    quantization: Annotated[Literal["none", "nf4"], "nf4 keeps all weights but the adapters in 4 bits (QLoRA)"] = "none"

    seed: Annotated[int, "of initialization and order"] = 0
    sharding: Annotated[
        Literal["none", "fsdp2"],
        "of several processes each holds the whole model (none: DDP) or its share of all that belongs to weights",
    ] = "none"
    report_to: Annotated[tuple[str, ...], "trackers of transformers, such as tensorboard"] = ()

    @property
    def truncation(self) -> TruncationPolicy:
        """The limits on texts; without `response_reserve_tokens` its own default. Raises ConfigError."""
        reserve = self.response_reserve_tokens
        named = {} if reserve is None else {"response_reserve_tokens": reserve}
        return TruncationPolicy(max_length=self.max_length, long_response=self.long_response, **named)

    @property
    def reward_scale(self) -> float:
        """The factor between log-ratios and implicit rewards."""
        return 1.0

    def as_json(self) -> dict[str, object]:
        """All options as flat keys, the objective by its name: what `training_config` takes."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**own, "objective": self.objective.name(), **asdict(self.objective)}

    def __post_init__(self) -> None:
        if self.kind not in self.objective.trains:
            others = ", ".join(f"rmkit train {kind}" for kind in self.objective.trains)
            raise ConfigError(
                f"{self.kind} models learn by {', '.join(objectives(self.kind))}; got "
                f"{self.objective.name()!r}, which is for {others}"
            )
        if self.precision == "auto":  # what a run was comes with its artifact, so it is settled here
            object.__setattr__(self, "precision", "bf16" if on_gpu(bf16=True) else "fp32")
        if self.gradient_checkpointing is None:
            object.__setattr__(self, "gradient_checkpointing", on_gpu())
        positive = ("learning_rate", "num_train_epochs", "global_batch_size", "max_batch_tokens")
        for name in (*positive, "evaluations_per_epoch"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("max_eval_samples", "save_steps"):
            if (number := getattr(self, name)) is not None and number <= 0:
                raise ConfigError(f"{name} must be positive, got {number}")
        if not 0 <= self.warmup_ratio < 1:
            raise ConfigError(f"warmup_ratio lies in [0, 1), got {self.warmup_ratio}")
        _ = self.truncation  # limits that do not fit each other are told before anything is loaded
        if self.lora_rank < 0:
            raise ConfigError("lora_rank must not be negative")
        if self.attention in FLASH and self.precision != "bf16":
            raise ConfigError(f"attention = {self.attention!r} computes in bf16; set precision = 'bf16'")
        if self.quantization != "none" and not self.lora_rank:
            raise ConfigError("quantization = 'nf4' trains adapters only (QLoRA); set lora_rank, e.g. 16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplicitConfig(TrainingConfig):
    """A transformer with a scalar head, or with one output an aspect."""

    kind: ClassVar[str] = "explicit"

    objective: Annotated[Objective, OBJECTIVE] = field(default_factory=BradleyTerry)
    center_rewards_coefficient: Annotated[float, "weight of the penalty on rewards that do not add up to 0"] = 0.0

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        if self.center_rewards_coefficient < 0:
            raise ConfigError(f"center_rewards_coefficient must not be negative, got {self.center_rewards_coefficient}")
        if self.center_rewards_coefficient and not self.objective.level_is_free:
            raise ConfigError(
                f"center_rewards_coefficient belongs to preferences; the objective {self.objective.name()} fixes the "
                "level itself"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessConfig(TrainingConfig):
    """A transformer with a head that scores every step of a solution."""

    kind: ClassVar[str] = "process"

    objective: Annotated[Objective, OBJECTIVE] = field(default_factory=Process)
    reduction: Annotated[
        Literal["min", "last", "product", "mean", "sum", "value"], "what makes the value of a solution from its steps"
    ] = "min"
    step_separator: Annotated[str, "what ends a step of a response whose steps are not marked"] = "\n\n"

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        if not self.step_separator:
            raise ConfigError("step_separator must not be empty")
        needed = REDUCTION_OF.get(self.objective.steps)
        if needed is not None and self.reduction != needed:
            raise ConfigError(
                f"{self.objective.name()} teaches {self.objective.steps}: reduction must be {needed}, got "
                f"{self.reduction!r}"
            )
        if needed is None and self.reduction in REDUCTION_OF.values():
            raise ConfigError(
                f"{self.objective.name()} teaches probabilities of steps: reduction must not be {self.reduction}, got "
                f"{self.reduction!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitConfig(TrainingConfig):
    """A policy whose log-ratios to a reference are the rewards."""

    kind: ClassVar[str] = "implicit"

    objective: Annotated[Objective, OBJECTIVE] = field(default_factory=DPO)
    beta: Annotated[float, "reward per unit of the log-ratio"] = 0.1
    per_token: Annotated[bool, "rewards are means over the response's tokens (length-normalized DPO)"] = False
    reference: Annotated[str, "what rewards are measured against; default: model itself"] = ""
    reverse: Annotated[bool, "learn the swapped pairs: the other half of a contrastive model"] = False
    nll_weight: Annotated[float, "weight of -log pi(best) per token of the best response (PRO, RISE, UPO)"] = 0.0
    learning_rate: Annotated[float, "peak learning rate of AdamW"] = 1e-6

    @property
    def reward_scale(self) -> float:
        return self.beta

    @property
    def divides(self) -> bool:
        """Whether rewards are means over tokens rather than sums."""
        return self.per_token or self.objective.divides

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        if self.beta <= 0:
            raise ConfigError(f"beta must be positive, got {self.beta}")
        if self.nll_weight < 0:
            raise ConfigError(f"nll_weight must not be negative, got {self.nll_weight}")
        if self.quantization != "none":
            raise ConfigError("implicit models are not trained in 4 bits yet; leave quantization out (lora_rank works)")


CONFIGS: dict[str, type[TrainingConfig]] = {
    config.kind: config for config in (ExplicitConfig, ProcessConfig, ImplicitConfig)
}


def on_gpu(*, bf16: bool = False) -> bool:
    """Whether training here runs on a CUDA GPU (with `bf16`, on one that computes in it)."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available() and (not bf16 or torch.cuda.is_bf16_supported())


def objectives(kind: str) -> list[str]:
    """The built-in objectives that train a kind of model."""
    return [name for name in BUILT_IN["objectives"] if kind in resolve("objectives", name).trains]


def default_objective(kind: str) -> type[Objective]:
    """What a kind of model learns by where nothing else is named."""
    (objective,) = (one.default_factory for one in fields(CONFIGS[kind]) if one.name == "objective")
    assert isinstance(objective, type)
    return objective


def training_config(kind: str, /, **values: Any) -> TrainingConfig:
    """The config of a kind of model from flat keys; `objective` is a name, "module:object", or the object itself.

    Raises ConfigError for unknown keys and values out of range, UsageError for an unknown objective.
    """
    where, cls = f"train {kind}", CONFIGS[kind]
    if isinstance(values.get("objective"), Objective):
        return config.build(cls, values, where=where)
    objective = values.pop("objective", default_objective(kind))
    if isinstance(objective, str):
        objective = resolve("objectives", objective, trusted=True)
    if not isinstance(objective, type) or not issubclass(objective, Objective):
        raise ConfigError(f"{where}: {objective} is no subclass of rmkit.training.objectives.objective.Objective")
    for key in values.keys() - _options(cls) - _options(objective):
        if owners := [name for name in objectives(kind) if key in _options(resolve("objectives", name))]:
            raise ConfigError(f"{where}: {key} is an option of {' and '.join(owners)}, not of {objective.name()}")
    options, own = config.split(values, objective, cls, where=where)
    return config.build(cls, {**own, "objective": config.build(objective, options, where=where)}, where=where)


def _options(cls: type[TrainingConfig | Objective]) -> set[str]:
    return {one.name for one in fields(cls)}
