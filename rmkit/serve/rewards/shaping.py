"""From model scores to the number a trainer should use: named components mixed, then transforms over groups.

    reward = transform_over_group( sum_k weight_k * component_k )

Components are `reward` (the model's raw score), `exact_match` (1 where the completion's final answer equals the item's
`reference`, else 0) and whatever the caller's own verifiers found (unit tests run elsewhere, say). The raw value stays
beside the result. A component that is missing or no finite number makes its own completion's reward missing, never
smaller, and no other's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rmkit.serve.http.problems import HttpError

_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_ANSWER = re.compile(r"(?:####|answer\s*(?:is|:|=))\s*(.+)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
MODEL, EXACT_MATCH = "reward", "exact_match"


class Mixed(NamedTuple):
    """One completion's finite components and their sum; `missing` says why there is none."""

    reward: float | None
    components: Mapping[str, float]
    missing: str | None


def mixed(weights: Mapping[str, float], components: Mapping[str, float | None]) -> Mixed:
    """The weighted sum of one completion's components; None where one with a weight is missing or not finite."""
    present = {
        name: value
        for name, value in components.items()
        if name in weights and value is not None and math.isfinite(value)
    }
    for name in weights:
        if name not in present:
            value = components.get(name)
            why = "missing" if value is None else f"{value}, not a finite number"
            return Mixed(None, present, f"the component {name!r} is {why}")
    total = sum(weight * present[name] for name, weight in weights.items())
    if not math.isfinite(total):  # finite factors whose product or sum is beyond the largest number
        return Mixed(None, present, f"the mix of its components is {total}, not a finite number")
    return Mixed(total, present, None)


def check_weights(weights: Mapping[str, float], known: Sequence[str]) -> None:
    """Raises HttpError for a weight whose component neither the service nor the request has."""
    if unknown := [name for name in weights if name not in (MODEL, EXACT_MATCH, *known)]:
        raise HttpError(400, f"no component {unknown[0]!r}; there are: {', '.join((MODEL, EXACT_MATCH, *known))}")


def exact_match(text: str, reference: str) -> float:
    r"""1.0 where the final answer equals the reference after normalization, else 0.0.

    The final answer is the last \boxed{...}, else what follows the last "####" or "answer is", else the whole text.
    """
    return float(_normal(_final_answer(text)) == _normal(reference))


def _final_answer(text: str) -> str:
    for pattern in (_BOXED, _ANSWER):
        if result := pattern.findall(text):
            return str(result[-1])
    return text


def _normal(answer: str) -> str:
    """Lower case, one blank between words, no quotes or closing punctuation; numbers in one spelling."""
    plain = " ".join(answer.split()).strip(" .,;:!?'\"$").casefold()
    digits = plain.replace(",", "")
    # repr keeps every digit (1234567 is not 1234568); + 0.0 makes -0 the 0 that it equals.
    return repr(float(digits) + 0.0) if _NUMBER.fullmatch(digits) and len(digits) < 16 else plain
