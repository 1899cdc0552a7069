"""The models and verifiers that signals bring into a service."""

from __future__ import annotations

from collections.abc import Mapping

from rmkit.errors import UsageError
from rmkit.models import load_model
from rmkit.signal.mix import EXACT_MATCH, MODEL
from rmkit.signal.signal import Signal, check_named
from rmkit.types import RewardModel


def with_signals(models: Mapping[str, RewardModel], signals: Mapping[str, Signal]) -> dict[str, RewardModel]:
    """The models to serve: the named ones first, then what the signals bring.

    Raises UsageError where two of them have one name or there is none at all, ConfigError for a signal whose mix or
    gates name a component that nothing gives.
    """
    served = dict(models)
    for signal in signals.values():
        brought = {name: load_model(source) for name, source in signal.models.items()} | signal.load_verifiers()
        for name, model in brought.items():
            if name in served:
                raise UsageError(f"signal {signal.name}: {name!r} is served already; give its table another name")
            served[name] = model
        _ = signal.shape  # a chain that cannot be read ends the command, not the first request
        check_named(signal, (MODEL, EXACT_MATCH, *served, *signal.columns.components))
    if not served:
        raise UsageError("nothing to serve: name a model, or a signal that brings models or verifiers")
    return served
