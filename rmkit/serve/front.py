"""`rmkit.serve_app`: the reward service as an ASGI application, for uvicorn or for a test's client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.config import build
from rmkit.errors import MissingExtraError, UsageError
from rmkit.models import load_model
from rmkit.signal.signal import Signal
from rmkit.types import RewardModel

if TYPE_CHECKING:
    from fastapi import FastAPI

Model = str | Path | RewardModel


def serve_app(
    models: Model | Sequence[Model] | Mapping[str, Model] = (),
    *,
    signal: str | Path | Signal | Sequence[str | Path | Signal] = (),
    token: str | None = None,
    log: bool = False,
    **settings: Any,
) -> FastAPI:
    """The service over one model, several, or several by the names to serve them under; the first is the default.

    Without a `token` everybody on this machine comes in, under its own names (localhost, 127.0.0.1) alone. `log` keeps
    every reward in this home's ledger. A `signal` is a TOML file or a Signal; the first is for requests that bring
    none, and it may bring all that is served. `settings` are the fields of ServeSettings: limits, `compat`, `hosts`.
    Raises what `load_model` raises, UsageError for two models of one name, ConfigError for unknown settings,
    MissingExtraError without FastAPI.
    """
    try:
        from rmkit.serve.http.app import create_app
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error
    from rmkit.ledger import open_ledger
    from rmkit.serve.auth.tokens import Keyring, operator_token
    from rmkit.serve.settings import ServeSettings

    return create_app(
        _loaded(models),
        build(ServeSettings, settings, where="serve_app"),
        keyring=None if token is None else Keyring(lambda: [operator_token(token)]),
        ledger=open_ledger() if log else None,
        signals=_signals(signal),
    )


def _loaded(models: Model | Sequence[Model] | Mapping[str, Model]) -> dict[str, RewardModel]:
    if isinstance(models, Mapping):
        return {name: load_model(model) for name, model in models.items()}
    several = [models] if isinstance(models, str | Path | RewardModel) else models
    loaded: dict[str, RewardModel] = {}
    for model in map(load_model, several):
        if model.info.name in loaded:
            raise UsageError(f"two models are named {model.info.name!r}; pass a mapping of names to models")
        loaded[model.info.name] = model
    return loaded


def _signals(signal: str | Path | Signal | Sequence[str | Path | Signal]) -> dict[str, Signal]:
    several = [signal] if isinstance(signal, str | Path | Signal) else signal
    read = [one if isinstance(one, Signal) else Signal.read(one) for one in several]
    return {one.name or "signal": one for one in read}
