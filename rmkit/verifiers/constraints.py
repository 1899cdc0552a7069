"""constraints: the share of an item's instruction rules that its completion keeps, or 1 only where it keeps all.

Rules are the reference as JSON: a list of rules (see `rules`), or IFEval's row {"instruction_id_list", "kwargs"}; or
the verifier's own, for every item. `loose` tries what IFEval's loose accuracy does: without the first line, without the
last, without asterisks, and all together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from rmkit.errors import ConfigError, DataError
from rmkit.types import Candidates, Score
from rmkit.verifiers.rules import Check, compiled, from_ifeval
from rmkit.verifiers.verifier import each, gold


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Unscored without rules, for an unknown one, and where none of them can be told (an unclear language)."""

    rules: Annotated[tuple[str, ...], "rules of every item, each as JSON text; without them the reference's"] = ()
    score: Annotated[Literal["share", "all"], "the share of kept rules, or 1 where all are kept"] = "share"
    loose: Annotated[bool, "a rule also counts as kept without first or last line or asterisks"] = False

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        try:
            _compiled("[" + ",".join(self.rules) + "]")
        except DataError as error:
            raise ConfigError(f"rules: {error}") from error

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, item: Candidates, text: str) -> Score:
        checks = _compiled("[" + ",".join(self.rules) + "]" if self.rules else gold(item))
        if not checks:
            raise DataError("there are no rules to check")
        texts = list(_loosened(text)) if self.loose else [text]
        results = {name: _holds(check, texts) for name, check in checks}
        definite = [result for result in results.values() if result is not None]
        if not definite or (self.score == "all" and len(definite) < len(results) and all(definite)):
            raise DataError(f"it cannot be told whether {next(n for n, r in results.items() if r is None)} is kept")
        value = sum(definite) / len(definite) if self.score == "share" else float(all(definite))
        broken = [name for name, result in results.items() if result is False]
        return Score(value, rationale=f"broken: {', '.join(broken)}" if broken else None)


def _holds(check: Check, texts: Sequence[str]) -> bool | None:
    results = [check(text) for text in texts]
    return True if any(results) else None if None in results else False


def _loosened(text: str) -> Iterator[str]:
    lines = text.split("\n")
    for cut in (lines, lines[1:], lines[:-1], lines[1:-1]):
        yield "\n".join(cut).strip()
        yield "\n".join(cut).replace("*", "").strip()


@lru_cache(maxsize=1024)
def _compiled(text: str) -> tuple[tuple[str, Check], ...]:
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the rules are no JSON: {error}") from error
    if isinstance(document, Mapping) and "instruction_id_list" in document:
        names, values = document["instruction_id_list"], document.get("kwargs", [])
        if not isinstance(names, list) or not isinstance(values, list) or len(names) != len(values):
            raise DataError("instruction_id_list and kwargs are lists of one length")
        document = [from_ifeval(str(name), one or {}) for name, one in zip(names, values, strict=True)]
    rules = [document] if isinstance(document, Mapping) else document
    if not isinstance(rules, list) or not all(isinstance(rule, Mapping) for rule in rules):
        raise DataError("rules are a list of objects, each with `rule` and its values")
    return tuple((f"{number} {rule.get('rule')}", compiled(rule)) for number, rule in enumerate(rules, 1))
