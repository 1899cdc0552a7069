"""The models of live chats: which there are, where they are served and with which key is said when the studio starts.

A task names them and no more. A lead who could name an address and the variable of a key would send any secret of the
server's environment wherever they like.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labeling_ui.desk.live import Ask, Reply
from labeling_ui.projects.definition import TaskDefinition
from rmkit import config
from rmkit.errors import ConfigError, EndpointError, RmkitError, unknown
from rmkit.generate.config import GeneratorConfig, open_generator
from rmkit.generate.engine import Engine, Limits
from rmkit.generate.request import Request
from rmkit.types import Conversation, Message

ATTEMPTS = 2  # a person waits
MAX_TOKENS = 8192  # a reply: a lead's task sets how long, whoever pays for the model how long at most
HOW = "rmkit label serve --models FILE"


def read_served(path: Path) -> dict[str, GeneratorConfig]:
    """The models of a TOML file by name, a table for each as [generator]. Raises ConfigError for what is none."""
    served = {}
    for name, table in config.read_toml(path).items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"{path.name}: {name}: expected a table, [{name}] with model and base_url")
        served[name] = config.build(GeneratorConfig, table, where=f"{path.name}: {name}")
        if served[name].backend != "endpoint":
            raise ConfigError(f"{path.name}: {name}: a live chat asks servers, give it base_url and no backend")
    return served


class ServedModels:
    """Opened at first use and shared among threads."""

    def __init__(self, served: Mapping[str, GeneratorConfig] | None = None) -> None:
        self._lock = threading.Lock()
        self._served = dict(served or {})
        self._engines: dict[str, Engine] = {}

    @property
    def names(self) -> list[str]:
        return list(self._served)

    def check(self, task: TaskDefinition) -> None:
        """Raises ConfigError where a live task names a model that is not served here, or asks for too long replies."""
        if task.kind != "live":
            return
        for name in task.models:
            if name not in self._served:
                which = unknown("served model", name, self._served) if self._served else f"no model {name!r} is served"
                raise ConfigError(f"{which}; whoever starts the studio says which there are: {HOW}")
        if task.max_tokens > MAX_TOKENS:
            raise ConfigError(f"a reply of a live chat has at most {MAX_TOKENS} tokens, got {task.max_tokens}")

    def ask(self, task: TaskDefinition) -> Ask:
        """What puts a conversation to all models of the task at once.

        It raises EndpointError where one gives no reply, without a word on which: the chat is blind.
        """

        def replies(conversation: Conversation) -> list[Reply]:
            engines = [self._opened(name) for name in task.models]
            request = Request(
                prompt=tuple(Message(turn.role, turn.content) for turn in conversation),
                max_tokens=min(task.max_tokens, MAX_TOKENS),
                temperature=task.temperature,
            )
            with ThreadPoolExecutor(len(engines)) as pool:
                results = list(pool.map(lambda engine: _reply(engine, request), engines))
            if any(result is None for result in results):
                raise EndpointError("a model gave no reply; send the message again, or skip and tell your lead")
            models = [self._served[name].model for name in task.models]
            return [Reply(model, str(result)) for model, result in zip(models, results, strict=True)]

        return replies

    def _opened(self, name: str) -> Engine:
        with self._lock:
            if name not in self._engines:
                if name not in self._served:
                    raise EndpointError("this chat's models are not served here; skip, and tell your lead")
                served = self._served[name]
                limits = Limits(attempts=min(served.attempts, ATTEMPTS))
                self._engines[name] = Engine(open_generator(served), limits=limits)
            return self._engines[name]


def _reply(engine: Engine, request: Request) -> str | None:
    try:
        (sample,) = engine.samples([request])
    except RmkitError:
        return None
    return None if sample.error or not sample.text.strip() else sample.text
