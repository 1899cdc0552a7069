"""Golden scores: what a model gave to fixed probe texts when it was saved, and whether it still gives it.

What counts as the same, by precision:

    fp32    within 1e-4 times max(1, |score|), scores of steps within 1e-4
    bf16    within 0.05 standard deviations of the bf16 golden scores, and no two scores that lie further apart
            than that in another order; models that can run in bf16 keep golden scores of that precision too
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rmkit.errors import ModelError
from rmkit.models.artifact import model_card
from rmkit.models.artifact.folder import Artifact, Precision, check_fingerprint
from rmkit.types import Candidates, Completion, Message, Score

GOLDEN = "golden.jsonl"
TOLERANCE = 1e-4
BF16_BAND = 0.05

PROBES: tuple[tuple[str, str], ...] = (
    ("Name three primary colours.", "Red, yellow and blue."),
    ("Name three primary colours.", "I like music!"),
    ("How do I boil an egg?", "Put it in boiling water for eight minutes, then cool it under the tap."),
    ("How do I boil an egg?", "Sorry, I can't help with that."),
    ("Write a list of two fruits as bullets.", "- apple\n- pear"),
    ("Explain why the sky is blue in one sentence.", "Air scatters short wavelengths of sunlight more than long ones."),
    ("Translate 'good morning' into French.", "Bonjour. " * 60),
    ("Summarize: " + "The meeting was moved to Friday. " * 80, "It is on Friday now."),
)


class Golden(Protocol):
    """A model that can replay its golden scores: exactly, in fp32 and past any cache.

    One that has a `precision` also takes `golden_scores(batch, precision="bf16")`.
    """

    def golden_scores(self, batch: Sequence[Candidates]) -> list[list[Score]]: ...


Model = TypeVar("Model", bound=Golden)


@dataclass(frozen=True, slots=True)
class Replay:
    """Golden scores computed again: the largest difference of `n`, what is allowed, and what is wrong if anything."""

    precision: Precision
    n: int
    largest: float
    allowed: float
    fault: str | None


def probe_item(prompt: str, response: str) -> Candidates:
    """A probe as a model's input."""
    return Candidates((Message("user", prompt),), (Completion((Message("assistant", response),)),))


def write_golden_scores(folder: Path, model: Golden, *, probes: Sequence[tuple[str, str]] = PROBES) -> None:
    """Write the golden scores that `model`, just loaded from `folder`, gives to the probes, and the model card; probes
    that it cannot score (too long for it) are left out."""
    scores = [score for [score] in model.golden_scores([probe_item(*probe) for probe in probes])]
    lines = []
    for (prompt, response), score in zip(probes, scores, strict=True):
        if score.unscored is not None:
            continue
        line = {"prompt": prompt, "response": response, "score": score.value}
        lines.append(line | ({"steps": score.steps} if score.steps else {}))
    write(folder, lines)


def write(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write golden.jsonl and, the artifact being complete now, the model card. Raises ModelError without any line."""
    if not lines:
        raise ModelError("no probe text could be scored, so nothing would vouch for the artifact; raise max_length")
    (folder / GOLDEN).write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
    model_card.write_card(folder)


def verified(artifact: Artifact, model: Model, *, check: bool = True) -> Model:
    """The model; with `check` raises ModelError as `verify` does."""
    if check:
        verify(artifact, model)
    return model


def verify(artifact: Artifact, model: Golden) -> None:
    """Recompute the fingerprint and replay the golden scores of the model's precision; ModelError on any difference."""
    check_fingerprint(artifact)
    precision: Precision = getattr(model, "precision", "fp32")
    replayed = replay(artifact, model, precision=precision) or replay(artifact, model)
    assert replayed is not None  # fp32 golden scores are always there
    if replayed.fault:
        raise ModelError(f"{artifact.folder}: {replayed.fault}")


def replay(artifact: Artifact, model: Golden, *, precision: Precision = "fp32") -> Replay | None:
    """The golden scores of one precision beside those that `model` gives now; None where none are stored (bf16).

    Raises ModelError where the stored ones cannot be read.
    """
    rows = rows_of(artifact.folder)
    key = "score" if precision == "fp32" else f"score_{precision}"
    if precision != "fp32" and not all(key in row for row in rows):
        return None
    try:
        batch = [probe_item(row["prompt"], row["response"]) for row in rows]
        expected = np.array([float(row[key]) for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{artifact.folder / GOLDEN} cannot be read ({error}); nothing vouches for it") from error
    options = {} if precision == "fp32" else {"precision": precision}
    scores = [score for [score] in model.golden_scores(batch, **options)]
    values = np.array([score.value for score in scores])
    replayed = compared(expected, values, precision=precision, texts=[row["response"] for row in rows])
    return replayed if replayed.fault or precision != "fp32" else replace(replayed, fault=_fault_in_steps(rows, scores))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of golden.jsonl. Raises ModelError where it is absent, damaged or empty."""
    if not (folder / GOLDEN).is_file():  # absent, or a pipe or a device, which may never end
        raise ModelError(f"{folder / GOLDEN} is missing; the scores cannot be verified")
    try:
        rows = [json.loads(line) for line in (folder / GOLDEN).read_text().splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder / GOLDEN} cannot be read ({error}); the scores cannot be verified") from error
    if not rows:
        raise ModelError(f"{folder / GOLDEN} is empty; the scores cannot be verified")
    if not all(isinstance(row, dict) for row in rows):
        raise ModelError(f"{folder / GOLDEN} cannot be read (a line is no object); the scores cannot be verified")
    return rows


def compared(
    expected: NDArray[np.float64], values: NDArray[np.float64], *, precision: Precision, texts: Sequence[str]
) -> Replay:
    """Scores [n] found now against the expected ones, by the rule of their precision (see the top of this file)."""
    with np.errstate(over="ignore"):  # the numbers of a damaged file; the scores differ then, which is what is said
        band = BF16_BAND * expected.std()
    allowed = np.full(len(expected), band) if precision == "bf16" else TOLERANCE * np.maximum(1.0, np.abs(expected))
    off = np.abs(values - expected)
    wrong = ~(off <= allowed)  # NaN is wrong
    fault = None
    if wrong.any():
        at = int(np.argmax(wrong))
        fault = (
            f"golden score differs for {texts[at][:40]!r}: got {values[at]:.6f}, expected {expected[at]:.6f} "
            f"({precision}); weights, tokenizer or libraries do not match the ones it was saved with"
        )
    elif precision == "bf16" and (swapped := _swapped(expected, values, band)):
        first, second = (texts[at][:40] for at in swapped)
        fault = f"golden scores of {first!r} and {second!r} come out in another order (bf16)"
    largest = float(np.max(off)) if np.isfinite(off).all() else math.nan
    return Replay(precision, len(expected), largest, float(np.min(allowed)), fault)


def _swapped(expected: NDArray[np.float64], values: NDArray[np.float64], band: float) -> tuple[int, int] | None:
    """Two golden scores further apart than `band` whose order changed."""
    apart_NN, now_NN = (x[:, None] - x[None, :] for x in (expected, values))
    bad = np.argwhere((apart_NN > band) & ~(now_NN > 0))
    return (int(bad[0][0]), int(bad[0][1])) if len(bad) else None


def _fault_in_steps(rows: Sequence[Mapping[str, Any]], scores: Sequence[Score]) -> str | None:
    for row, score in zip(rows, scores, strict=True):
        expected = row.get("steps", score.steps)
        close = (math.isclose(a, b, abs_tol=TOLERANCE) for a, b in zip(score.steps, expected, strict=False))
        if len(score.steps) != len(expected) or not all(close):
            return (
                f"golden step scores differ for {row['response'][:40]!r}: got {score.steps}, expected {expected}; "
                "weights, tokenizer or libraries do not match the ones it was saved with"
            )
    return None
