"""A chat endpoint that answers from a script: tests and benchmarks of judges talk to it over real HTTP.

A script is a function from the request's JSON body to a Reply: text, log-probabilities, status, delay, or a connection
that breaks off. It runs in a thread of this process, or in one of its own (`python -m ... --latency-ms 50`), where it
judges by length, so that a benchmark does not share a processor with its own server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`cut` ends the connection after so many bytes; `body` replaces the whole answer."""

    text: str = ""
    finish: str = "stop"
    logprobs: tuple[tuple[str, float, Mapping[str, float]], ...] = ()
    status: int = 200
    delay_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    refusal: str | None = None
    prompt_tokens: int = 100
    completion_tokens: int = 10

    def encoded(self) -> bytes:
        """The HTTP response."""
        body = self.body if self.body is not None else json.dumps(self._completion()).encode()
        head = {"content-type": "application/json", "content-length": str(len(body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} X", *(f"{name}: {value}" for name, value in head.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body

    def _completion(self) -> dict[str, object]:
        if self.status != 200:
            return {"error": {"message": self.text}}
        message = {"role": "assistant", "content": self.text} | ({"refusal": self.refusal} if self.refusal else {})
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": self.finish}
        if self.logprobs:
            choice["logprobs"] = {"content": [_token(*entry) for entry in self.logprobs]}
        usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}


def _token(token: str, logprob: float, top: Mapping[str, float]) -> dict[str, object]:
    others = [{"token": name, "logprob": value} for name, value in top.items()]
    return {"token": token, "logprob": logprob, "top_logprobs": others}


Script = Callable[[dict[str, Any]], Reply]


class ScriptedEndpoint:
    """Serve `script` while the context lasts; bodies and headers of requests are kept unless `keep` is False."""

    def __init__(self, script: Script, *, keep: bool = True, port: int = 0) -> None:
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.n_requests = 0
        self._keep = keep
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), "127.0.0.1", self._port
        )
        self._port = self._server.sockets[0].getsockname()[1]

    def reply(self, head: str, body: bytes) -> Reply:
        """What the script says to one request."""
        self.n_requests += 1
        document = json.loads(body)
        if self._keep:
            self.bodies.append(document)
            self.headers.append(head)
        return self.script(document)


class _Connection(asyncio.Protocol):
    def __init__(self, endpoint: ScriptedEndpoint) -> None:
        self._endpoint = endpoint
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, result, rest = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not result or not length or len(rest) < int(length[1]):
            return
        self._received = rest[int(length[1]) :]
        reply = self._endpoint.reply(head.decode(), rest[: int(length[1])])
        asyncio.get_running_loop().call_later(reply.delay_s, self._answer, reply)

    def _answer(self, reply: Reply) -> None:
        self._transport.write(reply.encoded()[: reply.cut])
        if reply.cut is not None:
            self._transport.close()


def longer_is_better(latency_s: float) -> Script:
    """A judge that prefers the longer of two fenced responses, whose log-probabilities say how much longer."""

    def script(requests: dict[str, Any]) -> Reply:
        if requests["max_tokens"] == 1:  # the probe
            return Reply(text="A", logprobs=(("A", -0.1, {"A": -0.1}),), delay_s=latency_s)
        text = requests["messages"][-1]["content"]
        lengths = [len(result) for result in re.findall(r"(?s)<response-\w+[^>]*>(.*?)</response-\w+[^>]*>", text)]
        first = len(lengths) < 2 or lengths[0] >= lengths[1]
        verdict = "A" if first else "B"
        return Reply(text=f"The longer one is better.\nVerdict: {verdict}", delay_s=latency_s)

    return script


async def _serve(port: int, latency_s: float) -> None:
    endpoint = ScriptedEndpoint(longer_is_better(latency_s), keep=False, port=port)
    await endpoint.start()
    print(endpoint.base_url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.latency_ms / 1000))
