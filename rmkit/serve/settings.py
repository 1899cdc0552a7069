"""What a running service is held to. Tokens here are estimates (see `asking.about_tokens`), bytes are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits and habits of one service process.

    A batch takes up to `batch_tokens`; the model cuts it further to what its own memory budget allows. A model's queue
    is full at `max_queue_tokens`, or when what waits would take longer than `max_wait_s`; `max_pending_bytes` bounds
    the bodies of all requests that are being answered, of which one client gets at most what is left for the others.
    Past either, requests are refused with 429. `timeout_s` is the deadline of requests that name none. A connection is
    closed when a request's head is not whole after `header_timeout_s`, its body after `body_timeout_s`, or when nothing
    of the body comes for `stall_timeout_s`. Without tokens only requests for this machine's own names or one of `hosts`
    are answered. `log_sample` is the share of requests whose rewards go to the ledger;
    `log_text` adds the texts, which are otherwise only hashed. `compat` names the dialect served at the root;
    `policy_template` and `unscored_reward` are those of `compat.mount`.
    """

    batch_tokens: int = 8192
    max_queue_tokens: int = 8_000_000
    max_wait_s: float = 120.0
    timeout_s: float = 150.0
    max_body_bytes: int = 16 * 2**20
    max_pending_bytes: int = 256 * 2**20
    max_completions: int = 4096
    max_item_tokens: int = 262_144
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    stall_timeout_s: float = 10.0
    hosts: tuple[str, ...] = ()
    log_sample: float = 1.0
    log_text: bool = False
    compat: str | None = None
    policy_template: str = "auto"
    unscored_reward: float | None = None

    def __post_init__(self) -> None:
        timeouts = ("timeout_s", "max_wait_s", "header_timeout_s", "body_timeout_s", "stall_timeout_s")
        for name in (*timeouts, "batch_tokens", "max_queue_tokens", "max_body_bytes", "max_completions"):
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
