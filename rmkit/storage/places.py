"""Where on this machine lies what belongs to an address, and how that is said to people."""

from __future__ import annotations

import json
from pathlib import Path

from rmkit import paths
from rmkit.storage.address import redacted

_ADDRESSES: dict[str, str] = {}  # path on this machine -> address, of this process


def fetched_root() -> Path:
    return paths.home() / "fetched"


def staged_root() -> Path:
    return paths.home() / "staged"


def remember(path: Path, address: str) -> None:
    """Let `at_addresses` say the address (without secrets) wherever it meets the path."""
    _ADDRESSES[str(path)] = redacted(address.rstrip("/"))


def at_addresses(text: str) -> str:
    """The text with addresses in place of the paths where their content lies on this machine, and without secrets."""
    for path in sorted(_ADDRESSES, key=len, reverse=True):
        if path in text:
            text = text.replace(path, _ADDRESSES[path])
        elif (escaped := json.dumps(path)[1:-1]) in text:
            text = text.replace(escaped, _ADDRESSES[path])
    return redacted(text)
