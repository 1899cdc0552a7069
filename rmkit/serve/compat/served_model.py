"""What a dialect must know about the model behind it: its chat, its control tokens, and what vLLM would answer."""

from __future__ import annotations

from typing import Any

from rmkit.chat.control_tokens import control_tokens as names_of
from rmkit.types import RewardModel


def unwrapped(model: RewardModel) -> RewardModel:
    """The model itself, without calibration laid over it."""
    inner: Any = getattr(model, "model", None)
    return unwrapped(inner) if hasattr(inner, "score") else model  # a judge's `model` is a name


def chat_of(model: RewardModel) -> Any:
    """Its `rmkit.chat.encode.Chat`, None for models that render no chat template."""
    return getattr(unwrapped(model), "chat", None)


def control_tokens(model: RewardModel) -> tuple[str, ...]:
    """Texts of its tokenizer's control tokens: in a message read out of a text, a sign of turns not told apart."""
    chat = chat_of(model)
    return () if chat is None else names_of(chat.tokenizer)


def is_regression(model: RewardModel) -> bool:
    """Whether its saved config says `problem_type = "regression"`, which makes vLLM answer with the raw logit."""
    inner = unwrapped(model)
    config = getattr(getattr(getattr(inner, "module", None), "classifier", None), "config", inner)
    return getattr(config, "problem_type", None) == "regression"
