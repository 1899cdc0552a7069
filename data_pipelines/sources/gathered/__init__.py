"""Exports whose rows are not what is judged: messages of a tree, a person's whole session, a sheet with a column a
question. Each turns the items of a file into rows that a form reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_pipelines.sources.gathered import oasst, potato, reddit, surveys, weave
from data_pipelines.sources.gathered.gather import Gather
from data_pipelines.sources.unit_builder import Row

GATHERS = (
    *(oasst.MESSAGES, oasst.TREES, potato.STATE, weave.WEAVE, surveys.QUALTRICS, surveys.SURVEYMONKEY, reddit.REDDIT),
)


def gather_of(sample: Sequence[Row]) -> Gather | None:
    """The one whose rows these are, None for rows that are judged themselves."""
    return next((one for one in GATHERS if one.matches(sample)), None)
