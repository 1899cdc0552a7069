"""Aliases of models: NAME@ALIAS, which artifact it means now, and every change of it.

Kept in the ledger as append-only events of kind `model_alias`, so nothing here needs the warehouse:

    promote    puts a model on top: who, path, fingerprint, the gate's evidence, the reason where the gate was overruled
    rollback   takes the top one away again; its event supersedes the promotion that it undoes

The current model is the top of what promotions and rollbacks, in the ledger's order, leave. An alias binds a
fingerprint, not a path: where the path now holds another model, the fingerprint is looked for under $RMKIT_HOME/models,
and an alias whose model is gone is an error, never another model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmkit import paths
from rmkit.errors import ModelError, UsageError
from rmkit.ledger import Ledger, Recorded, open_ledger
from rmkit.models.artifact.folder import CARD
from rmkit.storage.address import is_address
from rmkit.storage.fetch import fetch
from rmkit.storage.places import at_addresses
from rmkit.types import Event
from rmkit.user import user_name

KIND = "model_alias"
_NAME = re.compile(r"[\w.-]+@[\w.-]+")


@dataclass(frozen=True, slots=True)
class Promotion:
    """One model that was put on top of an alias."""

    alias: str
    path: str
    fingerprint: str
    event: Event

    @property
    def evidence(self) -> Mapping[str, object]:
        """What the gate found; `forced` holds the reason where it was overruled."""
        result: Mapping[str, Any] = self.event.payload.get("evidence") or {}
        return result


def check_alias(alias: str) -> str:
    """The alias itself. Raises UsageError unless it has the form NAME@ALIAS."""
    if not _NAME.fullmatch(alias):
        raise UsageError(f"an alias is NAME@ALIAS of letters, digits, dots, dashes and underscores, got {alias!r}")
    return alias


def events(ledger: Ledger, alias: str | None = None) -> list[Recorded]:
    """All alias events in order, or those of one alias."""
    return [one for one in ledger.events(kinds=[KIND]) if alias in (None, one.event.payload.get("alias"))]


def stacks(ledger: Ledger) -> dict[str, list[Promotion]]:
    """Per alias what promotions and rollbacks leave, the current one last; aliases with nothing left are empty."""
    results: dict[str, list[Promotion]] = {}
    for recorded in events(ledger):
        payload = recorded.event.payload
        stack = results.setdefault(payload["alias"], [])
        if payload["action"] == "promote":
            stack.append(Promotion(payload["alias"], payload["path"], payload["fingerprint"], recorded.event))
        else:  # whatever else was promoted meanwhile stays
            results[payload["alias"]] = [one for one in stack if one.event.id != recorded.event.supersedes]
    return results


def current(ledger: Ledger, alias: str) -> Promotion | None:
    """What the alias means now."""
    stack = stacks(ledger).get(alias)
    return stack[-1] if stack else None


def promote(
    ledger: Ledger, alias: str, folder: Path, fingerprint: str, *, evidence: Mapping[str, Any] | None = None
) -> Promotion:
    """Make the alias mean this model; `evidence` is JSON-ready."""
    path = _portable(folder)
    payload = {
        "alias": check_alias(alias),
        "action": "promote",
        "path": path,
        "fingerprint": fingerprint,
        "evidence": dict(evidence or {}),
    }
    event = Event(kind=KIND, actor=user_name(), payload=payload)
    ledger.append(event)
    return Promotion(alias, path, fingerprint, event)


def roll_back(ledger: Ledger, alias: str, *, reason: str = "") -> tuple[Promotion, Promotion]:
    """Undo the alias's last promotion: what was undone, and what is current again.

    Raises UsageError where there is nothing before it, ModelError where the model before it is no longer there.
    """
    stack = stacks(ledger).get(check_alias(alias)) or []
    if len(stack) < 2:
        raise UsageError(f"{alias} has {len(stack)} promotions, so there is no model to go back to")
    undone, again = stack[-1], stack[-2]
    locate(again)  # before anything is written
    payload = {"alias": alias, "action": "rollback", "fingerprint": again.fingerprint, "reason": reason}
    ledger.append(Event(kind=KIND, actor=user_name(), payload=payload, supersedes=undone.event.id))
    return undone, again


def resolve(alias: str) -> Path:
    """The folder of the model that NAME@ALIAS means now. Raises ModelError where there is none."""
    with open_ledger(read_only=True) as ledger:
        result = current(ledger, alias)
    if result is None:
        raise ModelError(f"no model {alias}: nothing is promoted to it; see: rmkit models")
    return locate(result)


def locate(promotion: Promotion) -> Path:
    """Where the promoted model lies now. Raises ModelError where no folder holds its fingerprint."""
    recorded = fetch(promotion.path) if is_address(promotion.path) else Path(promotion.path)
    recorded = recorded if recorded.is_absolute() else paths.home() / "models" / recorded
    for folder in (recorded, *artifacts()):
        if card_of(folder).get("fingerprint") == promotion.fingerprint:
            return folder
    raise ModelError(
        f"{promotion.alias} means the model {promotion.fingerprint[:12]} promoted from {recorded}, which is no longer "
        "there; put it back, or promote another one"
    )


def artifacts() -> Iterator[Path]:
    """The artifact folders under $RMKIT_HOME/models, by name."""
    folder = paths.home() / "models"
    yield from sorted(path.parent for path in folder.glob(f"*/{CARD}") if not path.parent.name.startswith("."))


def card_of(folder: Path) -> dict[str, Any]:
    """The folder's reward_model.json as it stands, unverified; empty where it cannot be read."""
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return card if isinstance(card, dict) else {}


def _portable(folder: Path) -> str:
    """Relative to $RMKIT_HOME/models where it lies there, so that a moved home keeps its aliases; the address where it
    was fetched from one."""
    if is_address(address := at_addresses(str(folder))):
        return address
    resolved, home = folder.resolve(), paths.home() / "models"
    return str(resolved.relative_to(home) if resolved.is_relative_to(home) else resolved)
