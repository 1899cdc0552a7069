"""Any server that speaks the OpenAI chat protocol: vLLM, SGLang, llama.cpp, `transformers serve`, hosted ones.

aiohttp instead of httpx: with 64 connections in use, httpx spent 5 ms of processor time on a call (its pool looks
through all connections for each), one client per connection 1.2 ms, aiohttp 0.24 ms: a thousand calls a second
leave one for each.

Servers differ in what they accept beyond messages. Before the first request that wants log-probabilities, a schema or a
seed, a probe of one token asks whether that field is taken and honoured; what is not is left out, and the judge parses.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rmkit.chat.template import as_template_dict
from rmkit.errors import EndpointError, MissingExtraError, UsageError
from rmkit.generate.request import KEPT_LOGPROBS, Finish, Prices, Refused, Request, Sample, TokenLogprobs, Transient
from rmkit.types import Message

if TYPE_CHECKING:
    from types import ModuleType

LEAST_LOGPROB = -1e4  # for -inf, which JSON has not
PROBE_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


class EndpointGenerator:
    """`base_url` ends before /chat/completions (http://localhost:8000/v1). The key appears in no message."""

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        key: str | None = None,
        prices: Prices | None = None,
        timeout_s: float = 120.0,
        extra: Mapping[str, Any] | None = None,
        omit: tuple[str, ...] = (),
    ) -> None:
        """`extra` is added to every request's body, fields named in `omit` are left out.

        Raises UsageError for a URL that is none or that carries a password.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise UsageError("base_url must be http(s)://HOST[:PORT]/PATH without user or key; keys come from key_env")
        self.prices = prices or Prices()
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._key = key
        self._timeout_s = timeout_s
        self._extra = dict(extra or {})
        self._omit = omit
        self._local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._session: Any = None
        self._taken: dict[str, asyncio.Future[bool]] = {}
        settings = json.dumps(self._extra, sort_keys=True) if self._extra else ""
        self.name = f"{model} at {base_url.rstrip('/')}{settings}"

    async def sample(self, request: Request) -> Sample:
        """See `Generator`."""
        body = self._body(request)
        for field, value in self._optional(request).items():
            if await self._takes(field):
                body |= value
        return self.read(await self._post(body), request)

    async def takes(self, field: str) -> bool:
        """Whether the server honours `logprobs`, `schema` or `seed`; asked once."""
        return await self._takes(field)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _body(self, request: Request) -> dict[str, object]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [as_template_dict(message) for message in request.prompt],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        body |= {"top_p": request.top_p} if request.top_p < 1 else {}
        body |= {"stop": list(request.stop)} if request.stop else {}
        return {key: value for key, value in (body | self._extra).items() if key not in self._omit}

    def whole_body(self, request: Request) -> dict[str, object]:
        """The JSON of a request with all it asks for, where no probe can tell what the server takes: but for `omit`."""
        optional = {key: value for field in self._optional(request).values() for key, value in field.items()}
        return self._body(request) | {key: value for key, value in optional.items() if key not in self._omit}

    def _optional(self, request: Request) -> dict[str, dict[str, object]]:
        by_key: dict[str, dict[str, Any]] = {}
        if request.top_logprobs:
            by_key["logprobs"] = {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.schema:
            form = {"name": "reply", "strict": True, "schema": dict(request.schema)}
            by_key["schema"] = {"response_format": {"type": "json_schema", "json_schema": form}}
        if request.temperature > 0:
            by_key["seed"] = {"seed": request.seed}
        if request.prompt[-1].role == "assistant":  # vLLM and SGLang; others go on by themselves, or begin anew
            by_key["prefix"] = {"continue_final_message": True, "add_generation_prompt": False}
        return by_key

    async def _takes(self, field: str) -> bool:
        known = self._taken.get(field)
        if known is None:
            self._taken[field] = asyncio.ensure_future(self._probe(field))
        elif known.done() and not known.exception():
            return known.result()
        try:
            return await asyncio.shield(self._taken[field])
        except Transient:
            self._taken.pop(field, None)  # nothing was learned: ask again
            raise

    async def _probe(self, field: str) -> bool:
        """Refused, or taken and ignored, both mean no. A schema shows in the reply: nobody answers "Hi" in JSON."""
        begun = (Message("assistant", "Hel"),) if field == "prefix" else ()
        probe = Request(
            prompt=(Message("user", "Hi"), *begun),
            max_tokens=32 if field == "schema" else 1,
            temperature=float(field == "seed"),
            top_logprobs=2 if field == "logprobs" else 0,
            schema=PROBE_SCHEMA if field == "schema" else None,
        )
        try:
            answer = self.read(await self._post(self._body(probe) | self._optional(probe)[field]), probe)
        except Refused:
            return False
        match field:
            case "logprobs":
                return bool(answer.logprobs)
            case "schema":
                return answer.text.lstrip().startswith("{")
            case _:
                return True

    async def _post(self, body: Mapping[str, Any]) -> dict[str, object]:
        aiohttp = _aiohttp()
        try:
            async with self._opened().post(self._url, data=json.dumps(body), allow_redirects=False) as response:
                status, headers, raw = response.status, response.headers, await response.read()
        except aiohttp.ClientConnectorError as error:
            why = error.os_error.strerror or "connection refused"
            raise Transient(f"cannot connect: {why}", unreachable=True) from None
        except TimeoutError:
            raise Transient(f"no answer within {self._timeout_s:g} s", billed=True) from None
        except aiohttp.ClientError as error:
            raise Transient(f"the connection broke off ({type(error).__name__})", billed=True) from None
        if status != 200:
            raise self._refusal(status, headers, raw)
        return self._completion(headers, raw)

    def _completion(self, headers: Mapping[str, str], raw: bytes) -> dict[str, object]:
        """The answer with its first choice's message in place. Some gateways report errors under status 200."""
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            raise Transient(f"the answer is no JSON: {self._reason(raw)}", billed=True) from None
        try:
            complete = isinstance(answer["choices"][0]["message"], dict)
        except (KeyError, IndexError, TypeError):
            complete = False
        if complete:
            return dict(answer)
        error = answer.get("error") if isinstance(answer, dict) else None
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and 400 <= code < 600:
            raise self._refusal(code, headers, raw)
        raise Transient(f"the answer is no chat completion: {self._reason(raw)}", billed=True)

    def _opened(self) -> Any:
        if self._session is None:
            aiohttp = _aiohttp()
            headers = {"Content-Type": "application/json"}
            headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(limit=0),
                trust_env=not self._local,  # proxies of the environment, but not for this machine
            )
        return self._session

    def _refusal(self, status: int, headers: Mapping[str, str], raw: bytes) -> Exception:
        why = f"HTTP {status}: {self._reason(raw)}"
        match status:
            case 401 | 402 | 403:
                return EndpointError(f"{self.name} refuses the key: {why}; check the variable that key_env names")
            case 404 | 405 | 301 | 302 | 307 | 308:
                return EndpointError(f"{self.name} is not there: {why}; check base_url and model")
            case 429 if b"insufficient_quota" in raw:
                return EndpointError(f"{self.name}: the account has no credit left: {why}")
            case 408 | 409 | 425 | 429:
                return Transient(why, retry_after_s=_seconds(headers.get("Retry-After", "")))
            case _ if status >= 500:
                return Transient(why, retry_after_s=_seconds(headers.get("Retry-After", "")))
            case _:
                return Refused(why)

    def _reason(self, raw: bytes) -> str:
        """What the server says, without the key should it quote it, short and in one line."""
        text = raw.decode(errors="replace")
        try:
            document = json.loads(text)
            document = (
                document.get("error", document.get("detail", document)) if isinstance(document, dict) else document
            )
            text = str(document.get("message", document)) if isinstance(document, dict) else str(document)
        except (ValueError, RecursionError):
            pass
        return self._words(text) or "no reason given"

    def _words(self, text: str) -> str:
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(_storable(text).split())[:200]

    def read(self, answer: Mapping[str, Any], request: Request) -> Sample:
        """Whatever stands in the answer, it was paid for: what is no reply in text becomes a malformed sample."""
        choice = answer["choices"][0]
        text, finish = _text(choice["message"]), _finish(choice.get("finish_reason"))
        if refusal := choice["message"].get("refusal"):
            text, finish = refusal if isinstance(refusal, str) else _as_json(refusal), "filter"
        elif error := choice.get("error"):
            text, finish = self._reason(_as_json({"error": error}).encode("utf-8", "replace")), "malformed"
        elif text is None:
            text, finish = self._words(_as_json(choice["message"]["content"])), "malformed"
        usage = answer.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        prompt_tokens = _count(usage.get("prompt_tokens")) or request.characters // 4
        completion_tokens = _count(usage.get("completion_tokens")) or len(text) // 4
        return Sample(
            text=_storable(text),
            finish=finish,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            logprobs=_logprobs(choice.get("logprobs")) if request.top_logprobs else (),
            usd=self.prices.usd(prompt_tokens, completion_tokens),
        )


def _text(message: Mapping[str, Any]) -> str | None:
    """The reply: a text, none (a tool call, say), or the texts of its parts; None where it is anything else."""
    match message.get("content"):
        case None:
            return ""
        case str(text):
            return text
        case [*parts]:
            read = [part for part in parts if not (isinstance(part, dict) and part.get("type") in _UNREAD_PARTS)]
            texts = [part.get("text") if isinstance(part, dict) else None for part in read]
            return "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None
        case _:
            return None


_UNREAD_PARTS = ("thinking", "reasoning", "redacted_thinking", "tool_use", "tool_call")


def _finish(reason: Any) -> Finish:
    match reason:
        case "length":
            return "length"
        case "content_filter":
            return "filter"
        case "error":
            return "malformed"
        case _:
            return "stop"


def _logprobs(result: Any) -> tuple[TokenLogprobs, ...]:
    """None at all where any is not as the protocol says: a misread token would shift the verdict's place."""
    try:
        return tuple(_token(entry) for entry in ((result or {}).get("content") or [])[-KEPT_LOGPROBS:])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return ()


def _token(entry: Mapping[str, Any]) -> TokenLogprobs:
    top = tuple((_storable(other["token"]), _logprob(other)) for other in entry.get("top_logprobs") or ())
    return TokenLogprobs(_storable(entry["token"]), _logprob(entry), top)


def _logprob(entry: Mapping[str, Any]) -> float:
    value = entry.get("logprob")
    return min(max(float(value), LEAST_LOGPROB), 0.0) if value is not None and not math.isnan(value) else LEAST_LOGPROB


def _storable(text: str) -> str:
    """Without halves of surrogate pairs, which no store takes."""
    return text.encode("utf-8", "replace").decode()


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "JSON nested too deep"


def _count(tokens: Any) -> int:
    """0 where the server's count is none: missing, negative, not finite, no number, or beyond any context."""
    is_number = isinstance(tokens, int | float) and not isinstance(tokens, bool)
    return int(tokens) if is_number and 0 < tokens < 1e9 else 0


def _seconds(retry_after: str) -> float:
    """Retry-After in seconds; 0 for its other form, a date."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        return 0.0


def _aiohttp() -> ModuleType:
    try:
        import aiohttp
    except ImportError as error:
        raise MissingExtraError("aiohttp", "judge") from error
    return aiohttp
