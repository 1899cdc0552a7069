"""A running reward service over a model whose every score tells exactly which text it was given."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rmkit.ids import messages_json
from rmkit.types import Candidates, Comparison, Message, ModelInfo, Score, compare_by_score

TOKEN = "rmk_test-token-of-the-trainer"
PROMPT = "<|im_start|>user\nIs the sky blue?<|im_end|>\n<|im_start|>assistant\n"
REPLY = "Yes, by day."
TALK = (Message("user", "Is the sky blue?"), Message("assistant", REPLY))


def worth(messages: Iterable[Message]) -> float:
    """A number in [-4, 4) that only this very conversation has."""
    return zlib.crc32(messages_json(messages).encode()) / 2**29 - 4


class Witness:
    """Scores `worth`, remembers what it was asked; replies of `unscorable` are unscored."""

    unscorable = "no score for me"

    def __init__(self, name: str = "witness", *, pointwise: bool = True, scale: Any = "logit") -> None:
        self.info = ModelInfo(name, "explicit", scale, pointwise, f"{zlib.crc32(name.encode()):032x}")
        self.seen: list[Candidates] = []

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        self.seen += batch
        return [[self._one(item, one.messages) for one in item.completions] for item in batch]

    def _one(self, item: Candidates, reply: Sequence[Message]) -> Score:
        if reply[-1].content == self.unscorable:
            return Score.failed("asked not to")
        return Score(worth([*item.prompt, *reply]), std=0.5)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Running:
    port: int
    app: Any

    def url(self, form: str = "bare") -> str:
        """The service's URL with the token nowhere (bare), in the path, or as a Basic password."""
        host = f"127.0.0.1:{self.port}"
        return {
            "bare": f"http://{host}",
            "path": f"http://{host}/t/{TOKEN}",
            "basic": f"http://trainer:{TOKEN}@{host}",
        }[form]


@contextlib.contextmanager
def running(app: Any, *, port: int | None = None) -> Iterator[Running]:
    """The application behind a real socket, on its own event loop, until the block ends."""
    import uvicorn

    from rmkit.serve.http.connections import Connection

    port = port or free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", ws="none", http=Connection)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield Running(port, app)
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@contextlib.contextmanager
def reward_service(*models: Any, locked: bool = True, **mounted: Any) -> Iterator[Running]:
    """The reward service over `models` (a Witness without any), asking for TOKEN where `locked`."""
    from rmkit.serve.auth.tokens import Keyring, operator_token
    from rmkit.serve.http.app import create_app
    from rmkit.serve.settings import ServeSettings

    keyring = Keyring(lambda: [operator_token(TOKEN)]) if locked else None
    named = {model.info.name: model for model in models or (Witness(),)}
    app = create_app(named, ServeSettings(**mounted), keyring=keyring)
    with running(app) as service:
        yield service
