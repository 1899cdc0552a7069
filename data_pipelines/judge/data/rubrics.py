"""The two training sets of Rubric-RM (OpenRubrics, arXiv 2510.07743) out of a folder of `rmkit rubrics generate`.

    writer  request -> rubric                                      a writer has no verdict: what it trains is no judge
    judge   request, two responses, rubric -> rationale, verdict   as many verdicts A as B

Row: id, prompt, completion, and for the judge verdict.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from data_pipelines.judge.data.folder import Built, read_lines
from rmkit.errors import DataError

Part = Literal["writer", "judge"]


def read_rubrics(folder: Path, *, part: Part) -> tuple[Built, str]:
    """The part's rows, every instance that gave no rubric with its reason, and the dataset they come from.

    Raises DataError where the folder is none of `rmkit rubrics generate`.
    """
    try:
        audit, rows = (read_lines(folder / name) for name in ("audit.jsonl", f"{part}.jsonl"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no rubrics ({error}); make some with: rmkit rubrics generate") from error
    dropped = [{"id": one["id"], "reason": one["dropped"]} for one in audit if one["dropped"]]
    return Built(rows, dropped, {}), str(audit[0]["dataset"]) if audit else "unknown"
