"""What of a person's holds survives a restart."""

from __future__ import annotations

from collections.abc import Callable

from labeling_ui.project import Project
from rmkit.ledger import Ledger
from tests.labeling_ui.conftest import ANNA

Make = Callable[..., Project]


def test_after_a_restart_the_items_come_in_the_order_in_which_they_were_taken(
    ledger: Ledger, make_project: Make
) -> None:
    """Whoever has an item on the screen while the server dies finds the same one there afterwards."""
    project = make_project()
    taken = project.desk(ledger).open(ANNA, ahead=5)
    assert [hold.key for hold in taken] != sorted(hold.key for hold in taken)
    assert project.desk(ledger).open(ANNA, ahead=5) == taken
