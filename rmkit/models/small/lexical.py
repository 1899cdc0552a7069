"""Lexical reward model: hashed n-grams and a Bradley-Terry fit by logistic regression.

    r(x, y) = w . f(x, y) / T,   P(a better than b) = sigmoid(r(x, a) - r(x, b))          (Bradley & Terry 1952)

f holds ln(1 + count) of the response's words and word pairs, hashed into 2^18 columns and scaled to length one, and a
few surface columns: log length, log lines, and how much prompt and response share. The likelihood of differences
f(a) - f(b) under soft labels p is a logistic regression without intercept in which each pair appears once with label 1
and weight p, once with label 0 and weight 1 - p. C (inverse L2 strength) has the least validation log loss; T is
fitted on the same validation pairs. Seconds for 10,000 pairs. Needs scikit-learn, not torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from rmkit.config import build_stored
from rmkit.data.pairs import Pair, column
from rmkit.errors import ConfigError, ModelError
from rmkit.metrics import log_loss
from rmkit.metrics.calibration import sigmoid
from rmkit.models.artifact import golden
from rmkit.models.artifact.folder import Artifact, open_artifact
from rmkit.models.scoring import Item, prompt_text, score_each
from rmkit.types import Candidates, Comparison, Score, compare_by_score

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_WORD = re.compile(r"\w+")
_SURFACE = 4


@dataclass(frozen=True, kw_only=True)
class LexicalConfig:
    """What is counted, and how the fit is chosen."""

    hash_bits: Annotated[int, "the table of n-grams has 2 to the power of this many columns"] = 18
    ngram: Annotated[int, "longest n-gram in words"] = 2
    c_grid: Annotated[tuple[float, ...], "inverse L2 strengths that compete on the validation pairs"] = (
        *(0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    )
    max_iter: Annotated[int, "iterations of the solver at most"] = 300

    def __post_init__(self) -> None:
        if not 8 <= self.hash_bits <= 24:
            raise ConfigError(f"hash_bits: expected 8 to 24, got {self.hash_bits}")
        if self.ngram < 1:
            raise ConfigError(f"ngram: expected at least 1, got {self.ngram}")
        if not self.c_grid or min(self.c_grid) <= 0:
            raise ConfigError(f"c_grid: expected positive numbers, got {self.c_grid}")
        if self.max_iter < 1:
            raise ConfigError(f"max_iter: expected at least 1, got {self.max_iter}")


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights [columns], margins on the validation pairs before calibration, and validation log loss by C."""

    weights: NDArray[np.float32]
    validation_margin: NDArray[np.float64]
    c: float
    validation_log_loss: dict[str, float]


def featurize(items: Sequence[Item], config: LexicalConfig) -> csr_matrix:
    """[n, 2^hash_bits + 4] scipy CSR matrix of float32; the last four columns are the surface features."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    vectorizer = HashingVectorizer(
        n_features=2**config.hash_bits, ngram_range=(1, config.ngram), alternate_sign=False, norm=None, dtype=np.float32
    )
    counts = vectorizer.transform([completion.text for _, completion in items])
    counts.data = np.log1p(counts.data)
    surface = np.array([_surface(prompt_text(prompt), completion.text) for prompt, completion in items])
    return hstack([normalize(counts), csr_matrix(surface.astype(np.float32))], format="csr")


def _surface(prompt: str, response: str) -> tuple[float, ...]:
    """Log characters and lines (scaled to about one), shares of shared words; all about 0 to 2."""
    requests, answers = set(_WORD.findall(prompt.lower())), set(_WORD.findall(response.lower()))
    shared = len(requests & answers)
    return (
        float(np.log1p(len(response))) / 5,
        float(np.log1p(response.count("\n"))) / 2,
        shared / max(len(answers), 1),
        shared / max(len(requests), 1),
    )


def fit(
    train: Sequence[Pair],
    validation: Sequence[Pair],
    config: LexicalConfig,
    *,
    advance: Callable[[float], None] = lambda amount: None,
) -> Fit:
    """Fit for every C and keep the one with the least validation log loss (the smaller C on a tie)."""
    from threadpoolctl import threadpool_limits

    train_x, validation_x = _differences(train, config), _differences(validation, config)
    columns = np.unique(train_x.indices)  # the others stay at zero: leaving them out is exact and far quicker
    p, share = column(validation, "p"), column(validation, "share")
    best: Fit | None = None
    losses: dict[str, float] = {}
    for c in sorted(config.c_grid):
        weights = np.zeros(train_x.shape[1], dtype=np.float32)
        with threadpool_limits(1):  # vectors this short lose more by waiting on threads than they gain
            weights[columns] = _logistic(train_x[:, columns], train, c=c, max_iter=config.max_iter)
        margin: NDArray[np.float64] = (validation_x @ weights).astype(np.float64)
        loss = losses[f"{c:g}"] = log_loss(sigmoid(margin), p, weight=share)
        if best is None or loss < best.validation_log_loss[f"{best.c:g}"]:
            best = Fit(weights, margin, c, losses)
        advance(1)
    assert best is not None  # c_grid is not empty
    return best


def _logistic(difference: Any, pairs: Sequence[Pair], *, c: float, max_iter: int) -> NDArray[np.float32]:
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    p, weight = column(pairs, "p"), column(pairs, "weight") / column(pairs, "weight").mean()
    model = LogisticRegression(C=c, fit_intercept=False, max_iter=max_iter, tol=1e-5)
    model.fit(
        vstack([difference, difference], format="csr"),
        np.repeat([1, 0], len(p)),
        sample_weight=np.concatenate([weight * p, weight * (1 - p)]),
    )
    coefficients: NDArray[np.float32] = model.coef_[0].astype(np.float32)
    return coefficients


def _differences(pairs: Sequence[Pair], config: LexicalConfig) -> csr_matrix:
    candidates = [pair.candidates for pair in pairs]
    first, second = ([(c.prompt, c.completions[side]) for c in candidates] for side in (0, 1))
    return featurize(first, config) - featurize(second, config)


class LexicalModel:
    """A fitted lexical model. Pointwise; scores are calibrated logits."""

    def __init__(self, artifact: Artifact) -> None:
        self.info = artifact.info
        self._config = build_stored(LexicalConfig, artifact.card["config"], where=str(artifact.folder))
        self._temperature = float(artifact.card["temperature"])
        arrays = artifact.weights()
        self._weights = np.zeros(2**self._config.hash_bits + _SURFACE, dtype=np.float32)
        try:
            self._weights[arrays["columns"]] = arrays["values"]
        except (KeyError, IndexError, ValueError) as error:
            raise ModelError(f"{artifact.folder}: the weights do not fit the config ({error})") from error

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return score_each(batch, self._values)

    def golden_scores(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return self.score(batch)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)

    def _values(self, items: list[Item]) -> NDArray[np.float64]:
        raw: NDArray[np.float64] = (featurize(items, self._config) @ self._weights).astype(np.float64)
        return raw / self._temperature


def arrays_of(fitted: Fit) -> dict[str, NDArray[Any]]:
    """The non-zero weights as `columns` (int32) and `values` (float32)."""
    columns = np.flatnonzero(fitted.weights).astype(np.int32)
    return {"columns": columns, "values": fitted.weights[columns]}


def load(folder: Path, *, check: bool = True) -> LexicalModel:
    """The model in an artifact folder, its golden scores replayed. Raises ModelError."""
    artifact = open_artifact(folder)
    return golden.verified(artifact, LexicalModel(artifact), check=check)
