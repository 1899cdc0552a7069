"""docs/formats.md lists the forms that the code knows, with a row of each that it reads."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.sources.documentation import with_generated

PAGE = Path(__file__).resolve().parents[3] / "docs" / "formats.md"


def test_the_page_is_what_the_tables_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_generated(page), "run: python -m data_pipelines.sources.documentation docs/formats.md"
