"""What a service process is to run: decided once by the command, handed to each worker process as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rmkit.config import build
from rmkit.errors import ModelError, UsageError
from rmkit.ledger import Ledger
from rmkit.models import find_model, load_model, load_stored
from rmkit.serve.auth.tokens import ApiToken, stored
from rmkit.serve.http.hosts import is_loopback
from rmkit.serve.settings import ServeSettings
from rmkit.signal.signal import Signal
from rmkit.types import RewardModel

VARIABLE = "RMKIT_SERVE_PLAN"


@dataclass(frozen=True, kw_only=True)
class ServePlan:
    """`models` maps served names to what `load_model` takes. `operator_tokens` are tokens (hashed) from a file.

    `auth` says whether tokens are asked for; `precision` goes to models that take one. `backend` is the kind and URL
    of a server that holds the weights of the (single) model, if one does. `swap_roots` are the folders under which a
    model must lie that a request puts in another's place. `signals` are TOML files (see `rmkit.signal.signal`).
    `devices` are what CUDA_VISIBLE_DEVICES is in each worker in turn, none leaves it as it is; `gpus` is the share of
    GPUs that each replica takes under Ray.
    """

    models: dict[str, str]
    settings: ServeSettings = field(default_factory=ServeSettings)
    workers: int = 1
    auth: bool = False
    operator_tokens: tuple[dict[str, Any], ...] = ()
    log: bool = True
    precision: str | None = None
    backend: tuple[str, ...] = ()
    swap_roots: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    gpus: float | None = None

    def read_signals(self) -> dict[str, Signal]:
        """The signals of the TOML files, by name, the first being the default. Raises ConfigError, UsageError."""
        return read_signals(self.signals)

    def load(self, name: str) -> RewardModel:
        """The model to serve under a name, its golden scores replayed. Raises RmkitError."""
        source = self.models[name]
        if self.backend:
            from rmkit.serve.backends.model import BackendModel

            return BackendModel.connect(source, *self.backend, **self._options)
        return load_model(source, **self._options)

    def load_swapped(self, name: str) -> RewardModel:
        """A stored model that a request named, its golden scores replayed. Raises ModelError unless it is a folder
        under one of the roots: a URL or a judge's TOML would hand every client's texts to an address of the asker's."""
        folder = find_model(name, adopt=False).resolve()
        if not any(folder.is_relative_to(Path(root).resolve()) for root in self.swap_roots):
            raise ModelError(
                f"{name} lies under none of the folders from which models are swapped in "
                f"({', '.join(self.swap_roots) or 'none'}); name its folder at start: rmkit serve --swap-root FOLDER"
            )
        if self.backend:
            raise ModelError("the weights sit in another server (--backend), which cannot change them; restart both")
        return load_stored(folder, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        return {} if self.precision is None else {"precision": self.precision}

    def to_environment(self) -> None:
        os.environ[VARIABLE] = json.dumps(asdict(self))

    @staticmethod
    def from_environment() -> ServePlan:
        values = json.loads(os.environ[VARIABLE])
        settings = build(ServeSettings, values.pop("settings"), where=VARIABLE)
        names = ("operator_tokens", "backend", "swap_roots", "signals", "devices")
        return ServePlan(settings=settings, **{**values, **{name: tuple(values[name]) for name in names}})

    def principals(self, ledger: Ledger) -> list[ApiToken]:
        """All tokens that count: those of the file and those of the ledger, read anew."""
        inputs = [ApiToken(**{**one, "scopes": tuple(one["scopes"])}) for one in self.operator_tokens]
        return inputs + stored(ledger)


def named_models(arguments: Sequence[str]) -> dict[str, str]:
    """NAME=MODEL or MODEL (named by its last part) as a mapping. Raises UsageError for a name used twice."""
    by_key: dict[str, str] = {}
    for argument in arguments:
        name, equals, source = argument.partition("=")
        if not equals:
            source = argument
            name = argument.rstrip("/").rsplit("/", 1)[-1]
        if name in by_key:
            raise UsageError(f"two models are named {name!r}; write NAME=MODEL")
        by_key[name] = source
    return by_key


def read_signals(paths: Sequence[str]) -> dict[str, Signal]:
    """The signals of TOML files by name. Raises ConfigError, UsageError for two of one name."""
    signals: dict[str, Signal] = {}
    for path in paths:
        signal = Signal.read(path)
        if signal.name in signals:
            raise UsageError(f"two signals are named {signal.name!r}; set `name` in one of the files")
        signals[signal.name] = signal
    return signals


def needs_tokens(host: str, principals: Sequence[ApiToken], *, no_auth: bool) -> bool:
    """Whether tokens are asked for: always beyond loopback, and on it as soon as there is one.

    Raises UsageError where a host beyond loopback would be open to everybody.
    """
    usable = [one for one in principals if one.refused is None and "score" in one.scopes]
    if is_loopback(host):
        return bool(usable) and not no_auth
    if no_auth or not usable:
        raise UsageError(
            f"{host} can be reached from other machines, so a token is needed: rmkit token create NAME"
            + (", and without --no-auth" if no_auth else "")
        )
    return True
