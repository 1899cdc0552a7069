"""What a running service is held to. Tokens here are estimates (see `asking.about_tokens`), bytes are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits and habits of one service process; past a limit requests are refused with 429."""

    batch_tokens: Annotated[int, "tokens of one batch; the model cuts it further to its own memory"] = 8192
    max_queue_tokens: Annotated[int, "tokens at which a model's queue is full"] = 8_000_000
    max_wait_s: Annotated[float, "seconds of waiting at which a model's queue is full"] = 120.0
    timeout_s: Annotated[float, "seconds until the deadline of requests that name none"] = 150.0
    max_body_bytes: Annotated[int, "bytes of one request's body"] = 16 * 2**20
    max_pending_bytes: Annotated[
        int, "bytes of the bodies being answered; one client gets at most what is left for the others"
    ] = 256 * 2**20
    max_completions: Annotated[int, "completions of one request"] = 4096
    max_item_tokens: Annotated[int, "tokens of one item"] = 262_144
    header_timeout_s: Annotated[float, "seconds after which a connection with half a head is closed"] = 10.0
    body_timeout_s: Annotated[float, "seconds after which one with half a body is closed"] = 60.0
    stall_timeout_s: Annotated[float, "seconds without a byte of the body after which it is closed"] = 10.0
    hosts: Annotated[tuple[str, ...], "names beside this machine's own that are answered without tokens"] = ()
    log_sample: Annotated[float, "share of requests whose rewards go to the ledger"] = 1.0
    log_text: Annotated[bool, "log the texts too, which are otherwise only hashed"] = False
    compat: Annotated[str | None, "dialect served at the root"] = None
    policy_template: Annotated[str, "how trainers' text is read back, as in compat.mount"] = "auto"
    unscored_reward: Annotated[float | None, "sent where a dialect has no word for unscored"] = None

    def __post_init__(self) -> None:
        timeouts = ("timeout_s", "max_wait_s", "header_timeout_s", "body_timeout_s", "stall_timeout_s")
        for name in (
            *timeouts,
            "batch_tokens",
            "max_item_tokens",
            "max_queue_tokens",
            "max_body_bytes",
            "max_completions",
        ):
            if not getattr(self, name) > 0:  # said so, NaN is refused too
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if self.max_pending_bytes < self.max_body_bytes:
            raise ConfigError(
                f"max_pending_bytes ({self.max_pending_bytes}) must hold at least one body ({self.max_body_bytes})"
            )
        if not self.max_item_tokens <= self.max_queue_tokens:
            raise ConfigError(
                f"max_queue_tokens ({self.max_queue_tokens}) must hold at least one item ({self.max_item_tokens})"
            )
        if not 0 <= self.log_sample <= 1:
            raise ConfigError(f"log_sample is a share in [0, 1], got {self.log_sample}")
        if self.unscored_reward is not None and not math.isfinite(self.unscored_reward):
            raise ConfigError(f"unscored_reward must be a finite number, got {self.unscored_reward}")
