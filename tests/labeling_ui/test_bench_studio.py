"""The studio's benchmarks in small: a killed server, people over HTTP and in browsers, a page of results."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from evaluation.benchmarks import main
from labeling_ui.benchmarks.browser_people import Seen
from labeling_ui.benchmarks.http_people import Tally
from labeling_ui.benchmarks.load import FAULTS, LoadConfig, _figures
from labeling_ui.benchmarks.process import Server
from labeling_ui.benchmarks.scale import PAGES, _memory
from rmkit.errors import ConfigError
from rmkit.ledger import open_ledger
from rmkit.revision import versions_text
from rmkit.types import Event

NEEDS_BROWSER = pytest.mark.skipif(
    shutil.which("chromium") is None and shutil.which("chromium-browser") is None, reason="no chromium here"
)


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The benchmarks set RMKIT_HOME; afterwards it is what it was."""
    monkeypatch.setenv("RMKIT_HOME", str(home))


def _judged(actor: str, item: int, slot: str) -> Event:
    extra = {"project": "load", "item": item, "slot": slot}
    return Event(kind="judgment", actor=actor, payload={"ranks": [0, 1], "extra": extra})


def test_each_fault_is_counted(home: Path) -> None:
    """An answer too many, a person twice on a slot, an acknowledged answer missing over HTTP and one in a browser."""
    events = [
        _judged("annotator-0", 1, "0"),
        _judged("annotator-1", 1, "1"),
        _judged("annotator-2", 1, "2"),  # a third answer where two are wanted
        _judged("browser-0", 2, "0"),
        _judged("browser-0", 2, "0"),  # twice on one slot
    ]
    with open_ledger(home / "ledger.sqlite") as ledger:
        ledger.append_many(events)
        for id, place in (("a2", "0000002/0"), ("b3", "0000003/1")):
            ledger.put("assignment", f"load/{place}", {"id": id})
    tally = Tally(acknowledged=[str(events[0].id), "gone"], save_s=[0.01, 0.03])
    seen = Seen(acknowledged=[("browser-0", "a2"), ("browser-1", "b3")], failures=["TimeoutError: x"])
    figures = _figures(home, LoadConfig(), tally, seen, server=Server(home), wall=10.0, memory=[100.0, 120.0, 110.0])
    assert {name: figures[name] for name in FAULTS} == {
        "lost": 1,
        "stored_twice": 0,
        "items_with_too_many": 1,
        "person_twice_on_a_slot": 1,
        "browser_lost": 2,
        "browser_failures": ["TimeoutError: x"],
    }
    assert figures["save_ms"]["p50"] == 20.0
    assert figures["memory_mb"] == [100.0, 120.0, 110.0]


def test_memory_is_told_by_thirds_and_slope() -> None:
    """300 readings, of which the second half rises by 2 kB an action: medians of 100 each, slope by least squares."""
    told = _memory([200.0] * 150 + [200.0 + 0.002 * n for n in range(150)])
    assert told["memory_mb_thirds"] == [200.0, 200.0, 200.2]
    assert told["slope_kb_an_action"] == pytest.approx(2.0, abs=0.01)


def test_nobody_is_no_run() -> None:
    with pytest.raises(ConfigError, match="at least one person"):
        LoadConfig(annotators=0, browsers=0)


@pytest.mark.slow
@NEEDS_BROWSER
def test_browsers_and_programs_lose_nothing_while_the_server_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("playwright")
    page = tmp_path / "studio.md"
    options = ["studio", "--annotators", "3", "--browsers", "3", "--seconds", "45", "--kills", "2", "--json"]
    assert main([*options, "--page", str(page)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["acknowledged"] > 20
    assert told["browser_acknowledged"] >= 6
    assert told["kills"] >= 1
    assert not any(told[name] for name in FAULTS)
    assert "rmkit bench studio --annotators 3" in page.read_text()
    assert versions_text() in page.read_text()


@pytest.mark.slow
@NEEDS_BROWSER
def test_every_page_of_a_small_project_is_opened_and_used(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("playwright")
    assert main(["studio-scale", "--items", "300", "--answers", "60", "--actions", "20", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Counter(told["pages"].keys()) == Counter(PAGES)
    assert told["actions"] == 20
    assert told["memory_mb_first_last_most"][0] > 50
