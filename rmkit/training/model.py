"""The model to train: a checkpoint with a scalar head, its chat, and what the config says about adapters and memory."""

from __future__ import annotations

from typing import Any

from torch import nn

from rmkit.chat.encode import Chat, ensure_pad
from rmkit.errors import ConfigError, MissingExtraError, ModelError
from rmkit.models.transformer import explicit, process
from rmkit.models.transformer.artifact import pretrained
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.training.config import ExplicitConfig


def build(config: ExplicitConfig, *, head: RatingHead | None = None) -> tuple[RewardModule, Chat]:
    """The reward module in fp32 on the CPU (quantized: on the GPU), a new head where the checkpoint has none, its chat.

    A rating `head` gives it one label an aspect; the objective `process` takes a classifier of tokens.

    Raises ModelError where the checkpoint or its tokenizer cannot be used, ConfigError where texts may be longer than
    its positions or weights cannot be quantized here, MissingExtraError for an absent package.
    """
    from transformers import set_seed

    set_seed(config.seed)  # the head and the adapters are drawn from it
    model, chat = _loaded(config, head, **_weights(config))
    if not config.dropout:
        switch_dropout_off(model)
    if config.lora_rank:
        model = with_lora(model, config)
    if config.gradient_checkpointing:
        checkpoint_activations(model)
    module = RewardModule(model, share=config.share_prompts)
    module.__dict__["rating_head"] = head  # plain data: nn.Module must not take it for a part of the network
    return module, chat


def _weights(config: ExplicitConfig) -> dict[str, Any]:
    if config.quantize == "none":
        return {"dtype": "float32"}
    from rmkit.training.quantization import loading_options

    return loading_options()


def _loaded(config: ExplicitConfig, head: RatingHead | None, **options: Any) -> tuple[Any, Chat]:
    """The classifier and its chat."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        auto = process.CLASSIFIER if config.objective == "process" else explicit.CLASSIFIER
        model, _ = pretrained(auto, config.model, num_labels=len(head.aspects) if head else 1, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{config.model} cannot be loaded with a score head and a tokenizer: {error}") from error
    model.config.problem_type = "regression"
    return model, chat_of(model, tokenizer, config)


def chat_of(model: Any, tokenizer: Any, config: ExplicitConfig) -> Chat:
    """The chat that the config wants; model and tokenizer get a pad token that is not EOS. Raises ConfigError where
    texts may be longer than the model's positions."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and config.max_tokens > positions:
        raise ConfigError(
            f"max_tokens {config.max_tokens} exceeds the {positions} positions of {model.name_or_path}; lower it"
        )
    ensure_pad(tokenizer)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id
    return Chat(tokenizer, config.truncation)


def storable(module: RewardModule, config: ExplicitConfig) -> RewardModule:
    """The module as it will be stored: of a quantized trunk the original weights with the adapters merged in."""
    if config.quantize == "none":
        return module
    from rmkit.training.quantization import merged_into

    head = module.__dict__.get("rating_head")
    base, _ = _loaded(config, head, dtype="float32")
    switch_dropout_off(base)
    merged = merged_into(base, module.model, wrap=lambda model: with_lora(model, config))
    result = RewardModule(merged.to(module.classifier.device), share=config.share_prompts)
    result.__dict__["rating_head"] = head
    for name in ("log_nu", "raw_cuts"):  # learned beside the classifier
        if hasattr(module, name):
            setattr(result, name, getattr(module, name))
    return result


def plain(module: RewardModule) -> Any:
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


def with_lora(model: Any, config: ExplicitConfig) -> Any:
    try:
        from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
    except ImportError as error:
        raise MissingExtraError("peft", "train") from error
    if config.quantize != "none" and getattr(model, "is_quantized", False):
        prepare: Any = prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=False)
    heads = [name for name, child in model.named_children() if child is not model.base_model]
    task = {"process": TaskType.TOKEN_CLS, "implicit": TaskType.CAUSAL_LM}.get(config.kind, TaskType.SEQ_CLS)
    lora = LoraConfig(
        task_type=task,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        modules_to_save=None if config.kind == "implicit" else heads,
    )
    return get_peft_model(model, lora)


def checkpoint_activations(model: Any) -> None:
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    if hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()
