"""Published forms read as their own descriptions say.

Rows and expectations under `spec_forms` are invented after the descriptions of the forms and were written before any
importer was; an importer that reads otherwise is wrong, or the description is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data_pipelines.sources.expected import differences, read

FOLDER = Path(__file__).parent / "spec_forms"
# What is refused on purpose.
OPEN = {
    "votes/mtbench_human.jsonl": "a vote on a second turn of two talks that differ before it is refused, saying so",
}
FORMS: list[dict[str, Any]] = [json.loads(line) for line in (FOLDER / "expected.jsonl").read_text().splitlines()]


def _case(expectation: dict[str, Any]) -> Any:
    reason = OPEN.get(expectation["file"])
    marks = [pytest.mark.xfail(strict=False, reason=reason)] if reason else []
    return pytest.param(expectation, id=expectation["file"], marks=marks)


@pytest.mark.parametrize("expectation", [_case(form) for form in FORMS])
def test_form_reads_as_described(expectation: dict[str, Any]) -> None:
    assert differences(expectation, read(FOLDER / expectation["file"])) == []
