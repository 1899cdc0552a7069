"""Where runtime data lives: `$RMKIT_HOME`, default `./.rmkit`, never the source folders."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The data folder (not created here): ledger.sqlite, warehouse.duckdb, features/, models/, runs/, exports/ ..."""
    return Path(os.environ.get("RMKIT_HOME") or ".rmkit").expanduser().resolve()


def ledger_url() -> str:
    """`$RMKIT_LEDGER` (postgresql://...) or the path of the embedded SQLite ledger."""
    return os.environ.get("RMKIT_LEDGER") or str(home() / "ledger.sqlite")


def warehouse_path() -> Path:
    return home() / "warehouse.duckdb"
