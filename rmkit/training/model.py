"""The model to train: a checkpoint with a scalar head, its chat, and what the config says about adapters and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import nn

from rmkit.chat.encode import Chat, ensure_pad
from rmkit.errors import ConfigError, MissingExtraError
from rmkit.models.transformer.pretrained import Pretrained, load_config, load_pretrained, load_tokenizer, set_pad
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.training.attention import loading_options
from rmkit.training.config import TrainingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


HEADS = ("score", "classifier")  # of sequences and tokens, by their names in transformers


class Checkpoint(NamedTuple):
    """How a checkpoint is loaded: the class of transformers, its outputs, and what peft calls the task."""

    loader: str
    n_labels: int
    peft_task: str


def build(config: TrainingConfig, checkpoint: Checkpoint) -> tuple[RewardModule, Chat]:
    """The reward module in fp32 on the CPU (quantized: on the GPU), a new head where the checkpoint has none, its chat.
    Errors as `rmkit.training.kinds.Kind.build`."""
    from transformers import set_seed

    set_seed(config.seed)  # the head and the adapters are drawn from it
    loaded, chat = _loaded(config, checkpoint, **_weights(config))
    model = trainable(loaded.model, config, peft_task=checkpoint.peft_task)
    module = _module(model, config)
    module.loading = loaded.facts()
    return module, chat


def trainable(model: Any, config: TrainingConfig, *, peft_task: str, train_heads: bool = True) -> Any:
    """The model with the dropout, adapters and checkpointing that the config wants."""
    if not config.dropout:
        switch_dropout_off(model)
    if config.lora_rank:
        model = with_lora(model, config, peft_task=peft_task, train_heads=train_heads)
    if config.gradient_checkpointing:
        checkpoint_activations(model)
    return model


def _weights(config: TrainingConfig) -> dict[str, object]:
    if config.quantization == "none":
        return {"dtype": "float32"}
    from rmkit.training import quantization

    return quantization.loading_options()


def _loaded(config: TrainingConfig, checkpoint: Checkpoint, **options: Any) -> tuple[Pretrained, Chat]:
    """The classifier and its chat."""
    options |= loading_options(config.attention)
    result = load_pretrained(checkpoint.loader, config.model, new_head=True, num_labels=checkpoint.n_labels, **options)
    result.model.config.problem_type = "regression"
    return result, chat_of(result.model, load_tokenizer(config.model), config)


def chat_of(model: Any, tokenizer: Any, config: TrainingConfig) -> Chat:
    """The chat that the config wants; model and tokenizer get a pad token that is not EOS. Raises ConfigError where
    texts may be longer than the model's positions."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and config.max_length > positions:
        raise ConfigError(
            f"max_length {config.max_length} exceeds the {positions} positions of {model.name_or_path}; lower it"
        )
    ensure_pad(tokenizer)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    set_pad(model.config, tokenizer.pad_token_id)
    return Chat(tokenizer, config.truncation, reasoning=config.reasoning)


def storable(module: RewardModule, config: TrainingConfig, checkpoint: Checkpoint) -> RewardModule:
    """The module as it will be stored, in fp32: its weights rounded to what they are stored in, adapters merged in. Of
    a quantized trunk it has the original weights."""
    dtype = stored_dtype(config)
    if config.quantization == "none":
        return module if dtype == torch.float32 else rounded(_unwrapped(module, config), dtype)
    from rmkit.training.quantization import merged_into

    base = _loaded(config, checkpoint, dtype="float32")[0].model
    switch_dropout_off(base)
    merged = merged_into(
        base, module.model, wrap=lambda model: with_lora(model, config, peft_task=checkpoint.peft_task)
    )
    return rounded(_module(merged.to(module.classifier.device), config), dtype)


def _unwrapped(module: RewardModule, config: TrainingConfig) -> RewardModule:
    return module if module.model is module.classifier else _module(plain(module), config)


def _module(model: Any, config: TrainingConfig) -> RewardModule:
    return RewardModule(model, packed=config.attention == "auto", share=config.share_prompts)


def stored_dtype(config: TrainingConfig) -> torch.dtype:
    """What the trained weights are stored in. Raises ModelError where the checkpoint has no config."""
    if config.save_dtype != "base":
        return torch.bfloat16 if config.save_dtype == "bf16" else torch.float32
    dtype = getattr(torch, str(load_config(config.model).dtype).removeprefix("torch."), None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


Module = TypeVar("Module", bound=RewardModule)


@torch.no_grad()
def rounded(module: Module, dtype: torch.dtype) -> Module:
    """The module with its weights, but those of score heads, rounded to a dtype that they are not held in."""
    for weight in _in_trunk(module.classifier):
        weight.data = weight.to(dtype).to(weight.dtype)
    return module


def in_stored_dtype(model: PreTrainedModel, config: TrainingConfig) -> PreTrainedModel:
    """A plain model that `storable` gave, about to be saved, in the dtype that it is stored in."""
    dtype = stored_dtype(config)
    for weight in _in_trunk(model):
        weight.data = weight.data.to(dtype)
    return model


def _in_trunk(model: Any) -> list[nn.Parameter]:
    """All weights but those of a score head; a vocabulary head counts as trunk, with which it may share its weights."""
    heads = {id(weight) for name in HEADS for weight in getattr(model, name, nn.Module()).parameters()}
    return [weight for weight in model.parameters() if id(weight) not in heads]


def plain(module: RewardModule) -> PreTrainedModel:
    """The trained classifier without adapters (merged into the weights) and with its trained head."""
    model = module.model
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def switch_dropout_off(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        for name in ("attention_dropout", "dropout", "hidden_dropout"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)


def with_lora(model: Any, config: TrainingConfig, *, peft_task: str, train_heads: bool = True) -> nn.Module:
    """The model behind adapters; `train_heads` trains its own heads beside them."""
    try:
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    except ImportError as error:
        raise MissingExtraError("peft", "train") from error
    if config.quantization != "none" and getattr(model, "is_quantized", False):
        prepare: Any = prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=False)
    heads = [name for name, child in model.named_children() if child is not model.base_model]
    lora = LoraConfig(
        task_type=peft_task,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        modules_to_save=heads if train_heads else None,
    )
    return get_peft_model(model, lora)


def checkpoint_activations(model: Any) -> None:
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    if hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()
