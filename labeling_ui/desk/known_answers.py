"""Known answers that leads have added to items of a project; those it began with are in the items themselves."""

from __future__ import annotations

from typing import Any

from rmkit.ledger import Ledger

KIND = "known_answer"


def known_answers(ledger: Ledger, project: str) -> dict[int, dict[str, Any]]:
    """The answers by item number, as in the column `gold` of the items."""
    records = ledger.records(KIND, prefix=f"{project}/")
    return {int(record.key.rpartition("/")[2]): dict(record.value) for record in records}
