"""Values of one verifier over texts, for the tests here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rmkit.types import Score
from rmkit.verifiers.verifier import load_verifier
from tests.rmkit.serve.serving import item


def scores(use: str, reference: str | None, *texts: str, **options: Any) -> list[Score]:
    """The verifier's scores of completions of one prompt with this reference."""
    [row] = load_verifier(use, options).score([replace(item("a question", *texts), reference=reference)])
    return row


def value(use: str, reference: str | None, text: str, **options: Any) -> float | str:
    """One completion's value, or why there is none."""
    [score] = scores(use, reference, text, **options)
    return score.value if score.unscored is None else score.unscored
