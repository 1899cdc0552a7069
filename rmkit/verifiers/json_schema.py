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
from typing import Annotated, Any, ClassVar, NoReturn

from rmkit.errors import ConfigError, DataError, require
from rmkit.types import Candidates, Score
from rmkit.verifiers.answer_text import last_block
from rmkit.verifiers.verifier import each, gold

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n[ \t]*```", re.DOTALL)
BACKTRACKS = 100_000


@dataclass(frozen=True, kw_only=True)
class JsonSchema:
    """The rationale names the first fault. Unscored where there is no schema, or none that can be read."""

    schema: Annotated[str | None, "the schema as JSON text; without it each item's reference is one"] = None

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require("jsonschema_rs", extra="verifiers")
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


def read_json(text: str) -> object:
    """The JSON of a text: the last code block, else all of it. Raises ValueError."""
    try:
        return json.loads(last_block(text, _FENCE))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    import jsonschema_rs

    def refuse(uri: str) -> NoReturn:
        raise ValueError(f"other documents are not fetched ({uri})")

    try:
        return jsonschema_rs.validator_for(
            schema,
            retriever=refuse,
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKS),
        )
    except ValueError as error:
        raise DataError(f"the schema cannot be read: {str(error)[:200]}") from error
