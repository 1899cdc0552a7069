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
FORMS: list[dict[str, Any]] = [json.loads(line) for line in (FOLDER / "expected.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("expectation", FORMS, ids=lambda expectation: str(expectation["file"]))
def test_form_reads_as_described(expectation: dict[str, Any]) -> None:
    assert differences(expectation, read(FOLDER / expectation["file"])) == []
