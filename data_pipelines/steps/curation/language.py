"""Rows in the languages that are wanted, by py3langid (97 languages; Lui & Baldwin 2012).

    text = "prompt"      the last user turn
    text = "responses"   every response must be in one of the languages
    text = "all"         both

Of a text whose best language has a probability below `least` nothing is said ("und"): short texts, code, numbers. Such
rows stay unless `keep_unknown` is false. Needs the extra `language`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import polars as pl

from data_pipelines.scopes import Rows
from data_pipelines.steps import Context, StepResult, partition
from rmkit.errors import ConfigError, require, unknown
from rmkit.ids import parse_messages
from rmkit.types import Completion

UNKNOWN = "und"
READ = 2000  # characters of a text that are read


@dataclass(frozen=True, kw_only=True)
class Config:
    keep: Annotated[tuple[str, ...], "ISO 639-1 codes, such as en or de"] = ("en",)
    text: Annotated[Literal["prompt", "responses", "all"], "what is read"] = "all"
    least: Annotated[float, "probability from which on a text is of a language"] = 0.5
    keep_unknown: Annotated[bool, "keep rows of whose language nothing can be said"] = True

    def __post_init__(self) -> None:
        if not self.keep or not 0 < self.least <= 1:
            raise ConfigError("language: keep names at least one language, and least is a probability in (0, 1]")


def _by_count(facts: dict[str, Any]) -> dict[str, Any]:
    return {"texts_by_language": dict(Counter(facts["texts_by_language"]).most_common())}


SCOPE = Rows(finish=_by_count)


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows none of whose texts is in another language; facts count texts by language."""
    identify = Identifier(config.least)
    for name in config.keep:
        if name not in identify.languages:
            raise ConfigError(f"language: {unknown('language', name, sorted(identify.languages))}")
    names: Counter[str] = Counter()
    reasons: list[str | None] = []
    evidence: list[str | None] = []
    for row in frame.iter_rows(named=True):
        own = [identify(text) for text in _texts(row, config)]
        names.update(own)
        other = [one for one in own if one not in config.keep and (one != UNKNOWN or not config.keep_unknown)]
        reasons.append(f"language {other[0]}" if other else None)
        evidence.append(", ".join(own) if other else None)
    reason, shown = (pl.Series(one, dtype=pl.String) for one in (reasons, evidence))
    return partition(frame, reason, evidence=shown, facts={"texts_by_language": dict(names)})


class Identifier:
    """The language of a text as an ISO 639-1 code, UNKNOWN below `least`."""

    def __init__(self, least: float) -> None:
        require("py3langid", extra="language")
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self.languages = frozenset(self._model.labels)
        self._least = least

    def __call__(self, text: str) -> str:
        if not text.strip():
            return UNKNOWN
        name, p = self._model.classify(text[:READ])
        return str(name) if p >= self._least else UNKNOWN


def _texts(row: dict[str, Any], config: Config) -> list[str]:
    prompt = [message.content for message in parse_messages(row["prompt"]) if message.role == "user"][-1:]
    responses = [Completion(parse_messages(text)).text for text in row["responses"] or ()]
    return (prompt if config.text != "responses" else []) + (responses if config.text != "prompt" else [])
