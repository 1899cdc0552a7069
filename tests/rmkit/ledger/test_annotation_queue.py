"""The same finding is queued once; what the studio needs is in the payload."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmkit.ledger import open_ledger
from rmkit.ledger.annotation_queue import KIND, enqueue, queue_item
from rmkit.types import Candidates, Completion, Event, Message


def _pair(second: str = "no") -> Candidates:
    return Candidates(
        (Message("user", "Is it raining?"),),
        tuple(Completion((Message("assistant", text),)) for text in ("yes", second)),
    )


def test_the_same_finding_has_the_same_id_whatever_its_priority() -> None:
    one = queue_item(_pair(), project="hh", found_by="denoise 1", reason="a", priority=0.9, evidence={"margin": -2.0})
    again = queue_item(_pair(), project="hh", found_by="denoise 1", reason="b", priority=0.1)
    other = queue_item(_pair("maybe"), project="hh", found_by="denoise 1", reason="a", priority=0.9)
    assert one.id == again.id != other.id
    assert one.kind == KIND
    assert one.actor == "rmkit denoise"
    assert one.payload["responses"][1] == '[{"content":"no","role":"assistant"}]'
    assert one.payload["evidence"] == {"margin": -2.0}


def test_a_priority_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\], got 1.5"):
        queue_item(_pair(), project="hh", found_by="drift m", reason="a", priority=1.5)


def test_what_is_queued_already_is_left_alone(tmp_path: Path) -> None:
    def found(second: str, priority: float) -> Event:
        return queue_item(_pair(second), project="hh", found_by="denoise 1", reason="a", priority=priority)

    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        assert enqueue(ledger, [found("no", 0.9), found("no", 0.8)]) == 1
        assert enqueue(ledger, [found("no", 0.1), found("maybe", 0.5)]) == 1
        assert enqueue(ledger, []) == 0
        assert [recorded.event.payload["priority"] for recorded in ledger.events(kinds=[KIND])] == [0.8, 0.5]
