"""What is learned about a finished model's scores, beside it: probabilities for pairs and a common scale.

    calibration.json    fingerprint   of the model whose raw scores it belongs to
                        link          margin -> P(first is better): temperature, or isotonic knots
                        normalization normalized = (raw - mean) / scale, clipped to [-clip, clip] where clip is given
                        digest        over all of that: which mapping a stored number came through

`Score.value` stays the model's own raw number, so fingerprint, golden scores, caches and evaluation results hold as
they are; `Score.normalized` and `compare` come through the mapping. Caches keep raw scores only: a mapping costs
nothing. The file names the fingerprint it was made for and is refused beside another model, or when edited by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmkit import config
from rmkit.atomic import write_text
from rmkit.errors import ConfigError, ModelError
from rmkit.ids import canonical_json, content_hash
from rmkit.metrics.calibration import sigmoid
from rmkit.metrics.isotonic import Isotonic
from rmkit.models.artifact.model_card import CALIBRATION, write_card
from rmkit.types import Candidates, Comparison, ModelInfo, RewardModel, Score, compare_by_score

Method = Literal["temperature", "isotonic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """P(first is better) of a margin: sigmoid(margin / temperature), or isotonic by its knots."""

    method: Method
    temperature: float | None = None
    margin: tuple[float, ...] = ()
    p: tuple[float, ...] = ()

    def __call__(self, margin: ArrayLike) -> NDArray[np.float64]:
        """[n] probabilities; NaN stays NaN."""
        if self.method == "isotonic":
            return Isotonic(self.margin, self.p)(margin)
        assert self.temperature is not None
        return sigmoid(np.asarray(margin, dtype=np.float64) / self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """(raw - mean) / scale, within [-clip, clip] where clip is not None."""

    mean: float
    scale: float
    clip: float | None = None

    def __call__(self, value: float) -> float:
        z = (value - self.mean) / self.scale
        return z if self.clip is None else min(max(z, -self.clip), self.clip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Both mappings of one model, either may be absent; the facts tell data, counts and what was gained."""

    fingerprint: str
    link: Link | None = None
    normalization: Normalization | None = None
    link_facts: Mapping[str, Any] | None = None
    normalization_facts: Mapping[str, Any] | None = None

    @property
    def digest(self) -> str:
        """32 hex digits over fingerprint and mappings."""
        # The key that is hashed keeps the spelling of the first files, or their digests would not hold any more.
        parts = {"fingerprint": self.fingerprint, "link": self.link, "normalisation": self.normalization}
        return content_hash(canonical_json({key: _json(value) for key, value in parts.items()}))


def _json(value: Any) -> object:
    return value if value is None or isinstance(value, str) else json.loads(json.dumps(asdict(value)))


def read_calibration(folder: Path, fingerprint: str) -> Calibration:
    """What lies beside the model, or an empty one. Raises ModelError for one that is not this model's or was edited."""
    path = folder / CALIBRATION
    if not path.is_file():
        return Calibration(fingerprint=fingerprint)
    try:
        document = config.current_names(Calibration, json.loads(path.read_text()))
        digest = document.pop("digest")
        for key, cls in (("link", Link), ("normalization", Normalization)):
            document[key] = None if document[key] is None else config.build(cls, document[key], where=f"{path}: {key}")
        result = Calibration(**document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise ModelError(f"{path} cannot be read ({error}); delete it and calibrate again") from error
    if result.fingerprint != fingerprint:
        raise ModelError(
            f"{path} belongs to model {result.fingerprint}, the folder holds {fingerprint}; delete it, calibrate again"
        )
    if result.digest != digest:
        raise ModelError(f"{path} was changed since it was written; delete it and calibrate again")
    return result


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Put calibration.json in place, whole or not at all, and tell it in the model card."""
    summary = asdict(calibration) | {"digest": calibration.digest}
    write_text(folder / CALIBRATION, json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_card(folder)


class CalibratedModel:
    """A model behind its stored mappings. `model` is the model itself, which gives the raw scores."""

    def __init__(self, model: RewardModel, calibration: Calibration) -> None:
        self.model = model
        self.calibration = calibration

    @property
    def info(self) -> ModelInfo:
        """The model's own: raw scores do not change."""
        return self.model.info

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P][N] raw scores, with `normalized` where a scale is stored."""
        return [self._normalized(row) for row in self.model.score(batch)]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """[P] probabilities through the stored link; the model's own where none is stored."""
        if (link := self.calibration.link) is None:
            return self.model.compare(batch)
        return compare_by_score(self.model.score, batch, p_first=lambda a, b: float(link([a - b])[0]))

    def _normalized(self, row: Sequence[Score]) -> list[Score]:
        scale: Callable[[float], float] | None = self.calibration.normalization
        if scale is None:
            return list(row)
        return [one if one.unscored else replace(one, normalized=scale(one.value)) for one in row]
