"""The whole loop, killed in each stage but the first, beside what must hold at its end; and the page that tells it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labeling_ui.benchmarks.story.stages import STAGES

pytest.importorskip("trl")
pytest.importorskip("streamlit")
pytestmark = pytest.mark.slow


def test_the_story_killed_in_every_stage_but_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from labeling_ui.benchmarks.story.run import tell

    result = tell(tmp_path / "story")
    with capsys.disabled():
        print(f"\n{result.seconds:.0f} s, killed in {', '.join(result.killed)}")
        for one in result.held:
            print(f"{'holds' if one.holds else 'FAILS'}: {one.what}: {one.seen}")
    assert [one.what for one in result.held if not one.holds] == []
    assert len(result.held) == 9
    assert result.killed == tuple(STAGES)[1:]
    page = result.page.read_text()
    assert re.findall(r"<h2 id=(\w+)>", page) == list(STAGES)
    for section in page.split("<h2 id=")[1:]:
        assert "<svg" in section, section[:80]
    assert not re.search(r"(src|href)=[\"']?http", page)
