"""The [generator] table of a TOML file: which model, where, at what price, how many requests at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rmkit.errors import ConfigError
from rmkit.generate.engine import Limits
from rmkit.generate.request import Generator, Prices

TEMPLATE_OPTIONS = "chat_template_kwargs"  # what a chat template is given beside the messages: enable_thinking, say


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """`model` is the name the server knows, or a folder for the back ends local and vllm.

    `key_env` names the environment variable that holds the key: keys stand in no file. Prices are in dollars per
    million tokens. `extra` goes into every request's body (local: `chat_template_kwargs` alone), fields in `omit` are
    left out of it.
    """

    model: str
    backend: Literal["endpoint", "local", "vllm"] = "endpoint"
    base_url: str = ""
    key_env: str | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    concurrency: int = 16
    attempts: int = 5
    timeout_s: float = 120.0
    batch_size: int = 16
    extra: dict[str, Any] = field(default_factory=dict)
    omit: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.backend == "endpoint" and not self.base_url:
            raise ConfigError("generator: backend endpoint needs base_url, for example http://localhost:8000/v1")
        if min(self.prompt_price, self.completion_price) < 0 or self.timeout_s <= 0:
            raise ConfigError("generator: prices must be >= 0 and timeout_s > 0")
        if secrets := [name for name in self.extra if "key" in name.lower() or name.lower() == "token"]:
            raise ConfigError(f"generator: extra holds {secrets[0]!r}; keys come from the variable that key_env names")
        if self.backend == "local" and (other := sorted(set(self.extra) - {TEMPLATE_OPTIONS})):
            raise ConfigError(f"generator: backend local takes no extra.{other[0]}, {TEMPLATE_OPTIONS} alone")
        Limits(concurrency=self.concurrency, attempts=self.attempts)  # checks both

    @property
    def limits(self) -> Limits:
        """Concurrency and attempts, as the engine takes them."""
        return Limits(concurrency=self.concurrency, attempts=self.attempts)

    @property
    def prices(self) -> Prices:
        return Prices(prompt=self.prompt_price, completion=self.completion_price)


def open_generator(config: GeneratorConfig, *, environment: Mapping[str, str] | None = None) -> Generator:
    """The back end that the config names.

    Raises ConfigError where its key is not in the environment, ModelError for a folder that holds no model,
    MissingExtraError where the back end's package is not installed.
    """
    match config.backend:
        case "local":
            from rmkit.generate.local import load_local

            options = config.extra.get(TEMPLATE_OPTIONS, {})
            return load_local(Path(config.model), batch_size=config.batch_size, template_options=options)
        case "vllm":
            from rmkit.generate.vllm_inprocess import VllmGenerator

            return VllmGenerator(config.model, batch_size=config.batch_size, **config.extra)
        case "endpoint":
            from rmkit.generate.endpoint import EndpointGenerator

            return EndpointGenerator(
                base_url=config.base_url,
                model=config.model,
                key=key_of(config, os.environ if environment is None else environment),
                prices=config.prices,
                timeout_s=config.timeout_s,
                extra=config.extra,
                omit=config.omit,
            )


def key_of(config: GeneratorConfig, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key that the config names, None where it names none. Raises ConfigError where it is not set."""
    name = config.key_env
    if name is None:
        return None
    if not environment.get(name):
        raise ConfigError(f"generator: ${name} is not set; put the endpoint's key into it (key_env names the variable)")
    return environment[name].strip()
