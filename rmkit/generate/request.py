"""What is asked of a language model and what comes back: one request, one sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from rmkit.ids import canonical_json, content_hash, messages_json
from rmkit.types import Conversation

Finish = Literal["stop", "length", "filter", "malformed", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sample of a reply to `prompt`, or of how its last message goes on where that is the assistant's.

    `seed` tells the samples of one prompt apart, at temperature 0 too. `top_logprobs` asks for that many alternatives
    at each of the last tokens; `schema` is the JSON schema the reply must follow, where the back end can force it.
    """

    prompt: Conversation
    max_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0
    schema: Mapping[str, Any] | None = None

    def key(self, generator: str) -> str:
        """Identity of this request to that generator, 32 hex digits: all that could change the reply counts."""
        requests = {
            "generator": generator,
            "prompt": messages_json(self.prompt),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": list(self.stop),
            "top_logprobs": self.top_logprobs,
            "schema": dict(self.schema) if self.schema else None,
        }
        return content_hash(canonical_json(requests))

    def samples(self, n: int) -> list[Request]:
        """This request n times, with the seeds that follow its own."""
        return [self, *(replace(self, seed=self.seed + i) for i in range(1, n))]

    @property
    def characters(self) -> int:
        """Length of the prompt's texts."""
        return sum(len(message.content) for message in self.prompt)

    @property
    def most_tokens(self) -> int:
        """No byte-level tokenizer makes more prompt tokens of it: its bytes, and a few a turn for the template."""
        return sum(len(message.content.encode()) + 16 for message in self.prompt) + 16


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A generated token, its log-probability, and the likeliest tokens at its place with theirs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A reply. A failure has `error="why"`, finish "error" and no text; "length" means cut off at max_tokens,
    "malformed" that the server answered, for money, something that is no reply: `text` holds its words.

    `logprobs` are those of the last tokens (KEPT_LOGPROBS at most), empty where the back end gives none. `usd` and the
    token counts are what this call cost when it was made; `cached` says that it was made before.
    """

    text: str = ""
    finish: Finish = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    usd: float = 0.0
    seconds: float = 0.0
    error: str | None = None
    cached: bool = field(default=False, compare=False)

    @classmethod
    def failed(cls, why: str) -> Sample:
        """The sample of a request that could not be answered."""
        return cls(finish="error", error=why)

    @property
    def no_reply(self) -> str | None:
        """Why `text` is not the whole reply of a model that wanted to answer; None where it is."""
        match self.finish:
            case "length":
                return "reply cut off: raise max_tokens"
            case "filter":
                return "reply filtered or refused"
            case "malformed":
                return f"the answer is no reply: {self.text}"
            case _:
                return self.error


KEPT_LOGPROBS = 64  # a verdict stands at the end; alternatives of a whole rationale would fill the ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """In dollars per million tokens; 0 for what one runs oneself."""

    prompt: float = 0.0
    completion: float = 0.0

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What a call of so many tokens costs."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Generator(Protocol):
    """A back end that can answer one request. The engine adds concurrency, retries, budgets and the cache."""

    @property
    def name(self) -> str:
        """Which model where: part of every request's identity, without any secret."""
        ...

    @property
    def prices(self) -> Prices: ...

    async def sample(self, request: Request) -> Sample:
        """One attempt. Raises Transient where another may succeed, Refused where this request never will,
        EndpointError where no request will."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class Transient(Exception):  # noqa: N818  (not an error yet: the engine tries again)
    """This attempt failed; another may succeed. `billed` where its tokens may have been paid for all the same."""

    def __init__(
        self, why: str, *, retry_after_s: float = 0.0, billed: bool = False, unreachable: bool = False
    ) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
        self.billed = billed
        self.unreachable = unreachable


class Refused(Exception):  # noqa: N818
    """The back end will not answer this request, however often it is asked (too long, malformed, filtered)."""
