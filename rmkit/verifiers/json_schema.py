"""json_schema: 1 where the completion is JSON (bare or in a code block) that fits a schema, else 0.

The schema is the verifier's, or each item's reference. Schemas are checked by jsonschema-rs, whose patterns have a
limit on backtracking: Python's own validators take seconds for ^(a+)+$ on thirty characters. References to other
documents are not fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar

from rmkit.errors import ConfigError, DataError, MissingExtraError
from rmkit.types import Candidates, Score
from rmkit.verifiers.verifier import each, gold

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n[ \t]*```", re.DOTALL)
BACKTRACKS = 100_000


@dataclass(frozen=True, kw_only=True)
class JsonSchema:
    """The rationale names the first fault. Unscored where there is no schema, or none that can be read."""

    schema: Annotated[str | None, "the schema as JSON text; without it each item's reference is one"] = None

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if find_spec("jsonschema_rs") is None:
            raise MissingExtraError("jsonschema-rs", "verifiers")
        if self.schema is not None:
            try:
                _validator(self.schema)
            except DataError as error:
                raise ConfigError(f"schema: {error}") from error

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, item: Candidates, text: str) -> Score:
        validator = _validator(self.schema if self.schema is not None else gold(item))
        try:
            document = read_json(text)
        except ValueError as error:
            return Score(0.0, rationale=f"no JSON: {error}")
        fault = next(iter(validator.iter_errors(document)), None)
        return Score(1.0) if fault is None else Score(0.0, rationale=str(fault.message)[:300])


def read_json(text: str) -> Any:
    """The JSON of a text: the last code block, else all of it. Raises ValueError."""
    blocks = _FENCE.findall(text.rpartition("</think>")[2])
    try:
        return json.loads(blocks[-1] if blocks else text.rpartition("</think>")[2])
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    import jsonschema_rs

    def refuse(uri: str) -> Any:
        raise ValueError(f"other documents are not fetched ({uri})")

    try:
        return jsonschema_rs.validator_for(
            schema,
            retriever=refuse,
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKS),
        )
    except ValueError as error:
        raise DataError(f"the schema cannot be read: {str(error)[:200]}") from error
