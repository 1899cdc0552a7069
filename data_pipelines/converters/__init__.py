"""Converters: one example of a dataset gives units of another kind, say a corrected reply the pair of correction and
original.

A converter lives in a module of its own (here, or in another package by an entry point `rmkit.converters`): a frozen
config `Config` and `convert(example, config)`, a generator of `Derived`. It is pure: what it gives follows from the
example and its config alone. An example is a row of EXAMPLE_SCHEMA (rmkit.data.example) with `votes`, the judgments
behind it in full (warehouse.write.votes.FULL_VOTE_STRUCT). Where no unit follows from it, the converter raises
NotConvertibleError with the reason, which names the fault and never the row's own values: reasons are counted.

Lineage, license, split and family of the example go to all that comes of it, so nothing crosses a split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rmkit import plugins
from rmkit.errors import DataError

Example = Mapping[str, Any]


class NotConvertibleError(DataError):
    """No unit follows from an example; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A unit with its label, as a converter gives it; positions refer to `responses` as they stand here.

    `responses` [N] are canonical JSON message lists (rmkit.ids), `origins` [N] the position of each in the example,
    None where the example does not have it. `prompt`, `reference`, `rubric` and `tools` are the example's where they
    are None. The label's fields are those of an example; `meta` is added to the example's.
    """

    responses: Sequence[str]
    origins: Sequence[int | None]
    kind: str | None = None  # single, pair or list by the number of responses
    prompt: str | None = None
    reference: str | None = None
    rubric: str | None = None
    tools: str | None = None
    generators: Sequence[str | None] | None = None  # of responses that are new; the others keep theirs
    step_ends: Sequence[Sequence[int]] | None = None
    p: Sequence[float] | None = None
    ranks: Sequence[int | None] | None = None
    margin: float | None = None
    scores: Sequence[tuple[int, str, float]] = ()  # (response, aspect, value)
    step_labels: Sequence[float | None] | None = None
    n_votes: int = 1
    weight: float = 1.0  # times the example's
    meta: Mapping[str, Any] = field(default_factory=dict)


def ratings(example: Example, aspect: str) -> list[float]:
    """[N] each response's rating of one aspect, NaN where it has none.

    Raises NotConvertibleError where no response has one.
    """
    values = [math.nan] * len(example["responses"])
    for one in example["scores"] or ():
        if one["aspect"] == aspect:
            values[one["response"]] = float(one["value"])
    if all(map(math.isnan, values)):
        raise NotConvertibleError(f"no response has a rating {aspect!r}")
    return values


def authors(example: Example) -> list[str]:
    """[N] who wrote each response, empty where nobody says it."""
    return [name or "" for name in example["generators"] or [None] * len(example["responses"])]


def converter(name: str) -> Any:
    """The module or object of that name. Raises UsageError for an unknown one, naming the known."""
    return plugins.resolve("converters", name, trusted=True)
