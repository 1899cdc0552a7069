"""Requests to a reward service: retries with backoff, a circuit breaker, one connection pool per process."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import tenacity

from rmkit.errors import RmkitError
from rmkit.serve.clients.address import Address
from rmkit.serve.clients.circuit_breaker import CircuitBreaker

MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
CONNECT_S = 10.0


class RewardServiceError(RmkitError):
    """The service refused a request and asking again will not help; `status` is the HTTP status where there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnavailableError(RewardServiceError):
    """The service cannot be reached or is overloaded; `after_s` is when it said to come again."""

    def __init__(self, message: str, status: int | None = None, *, after_s: float = 0.0) -> None:
        super().__init__(message, status)
        self.after_s = after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """An attempt may take `timeout_s`; there are `attempts`, with waits that double up to `longest_wait_s`.

    After `breaker_failures` failed attempts in a row, whoever made them, only one attempt per `breaker_cooldown_s` is
    sent until one succeeds.
    """

    timeout_s: float = 180.0
    attempts: int = 12
    longest_wait_s: float = 30.0
    breaker_failures: int = 5
    breaker_cooldown_s: float = 5.0


@dataclass
class ServiceHttp:
    """JSON requests to one address. Thread-safe; a forked or unpickled copy opens connections of its own."""

    at: Address
    patience: Patience
    _breaker: CircuitBreaker = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False)
    _pool: tuple[int, httpx.Client] | None = field(init=False, repr=False, default=None)
    _async_pool: tuple[int, asyncio.AbstractEventLoop, httpx.AsyncClient] | None = field(
        init=False, repr=False, default=None
    )

    def __post_init__(self) -> None:
        self._breaker = CircuitBreaker(
            failures=self.patience.breaker_failures, cooldown_s=self.patience.breaker_cooldown_s
        )
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {"at": self.at, "patience": self.patience}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.at, self.patience = state["at"], state["patience"]
        self._pool = self._async_pool = None
        self.__post_init__()

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer: GET without a body, POST with one. Raises RewardServiceError."""
        return tenacity.Retrying(**self._again())(self._attempt, path, *_written(body))

    async def ask_async(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """As `ask`, for a coroutine: nothing waits in a thread, so any number of requests may wait for each other."""
        return await tenacity.AsyncRetrying(**self._again())(self._attempt_async, path, *_written(body))

    def close(self) -> None:
        """Give the connections back."""
        with self._lock:
            if self._pool is not None:
                self._pool[1].close()
                self._pool = None

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        """Anything up to the doubling wait, so that clients spread; at least what the service or the breaker asks."""
        longest = self.patience.longest_wait_s
        backoff = tenacity.wait_random_exponential(multiplier=0.5, max=longest)(state)
        error = state.outcome.exception() if state.outcome else None
        return max(backoff, min(getattr(error, "after_s", 0.0), longest))

    def _again(self) -> dict[str, Any]:
        return {
            "retry": tenacity.retry_if_exception_type(UnavailableError),
            "stop": tenacity.stop_after_attempt(self.patience.attempts),
            "wait": self._wait_s,
            "reraise": True,
        }

    def _attempt(self, path: str, content: bytes | None, headers: Mapping[str, str]) -> object:
        self._check_up()
        try:
            answer = self._client().request(
                "GET" if content is None else "POST", self.at.url + path, content=content, headers=dict(headers)
            )
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        return self._read(path, answer)

    async def _attempt_async(self, path: str, content: bytes | None, headers: Mapping[str, str]) -> object:
        self._check_up()
        try:
            answer = await self._async_client().request(
                "GET" if content is None else "POST", self.at.url + path, content=content, headers=dict(headers)
            )
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        return self._read(path, answer)

    def _check_up(self) -> None:
        if wait := self._breaker.wait_s():
            raise UnavailableError(f"{self.at.url} is down: not tried again for {wait:.1f} s", after_s=wait)

    def _unreachable(self, error: httpx.TransportError) -> UnavailableError:
        self._breaker.failed()
        return UnavailableError(f"{self.at.url} cannot be reached: {type(error).__name__}: {error}")

    def _read(self, path: str, answer: httpx.Response) -> object:
        if answer.status_code in MAY_PASS:
            if answer.status_code >= 500:  # who answers 429 is busy, not down
                self._breaker.failed()
            raise UnavailableError(_refusal(self.at, answer), answer.status_code, after_s=_retry_after_s(answer))
        self._breaker.succeeded()
        if answer.is_error or answer.is_redirect:
            raise RewardServiceError(_refusal(self.at, answer), answer.status_code)
        try:
            return answer.json()
        except ValueError as error:
            raise RewardServiceError(f"{self.at.url}{path} answered something that is no JSON") from error

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                self._pool = (os.getpid(), httpx.Client(**self._options()))
            return self._pool[1]

    def _async_client(self) -> httpx.AsyncClient:
        """The connections of this process and event loop: those of a loop that ended cannot be used."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._async_pool is None or self._async_pool[:2] != (os.getpid(), loop):
                self._async_pool = (os.getpid(), loop, httpx.AsyncClient(**self._options()))
            return self._async_pool[2]

    def _options(self) -> dict[str, Any]:
        token = {"Authorization": f"Bearer {self.at.token}"} if self.at.token else {}
        timeout = httpx.Timeout(self.patience.timeout_s, connect=CONNECT_S)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        return {"headers": token, "timeout": timeout, "limits": limits, "trust_env": False}


def _written(body: Mapping[str, Any] | None) -> tuple[bytes | None, dict[str, str]]:
    content = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    return content, {"Idempotency-Key": uuid.uuid4().hex, "Content-Type": "application/json"}


def _refusal(at: Address, answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        message = answer.reason_phrase
    return f"{at.url} answered {answer.status_code}: {message}"


def _retry_after_s(answer: httpx.Response) -> float:
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isdigit() else 0.0
