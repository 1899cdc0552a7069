"""Which language a text is in, from its script and its function words: good enough to check "answer in French".

Thirteen languages. Scripts decide where one belongs to one language (kana: Japanese, Hangul: Korean, Han without kana:
Chinese ...); languages in Latin letters are told apart by the share of their commonest words, so a text needs a few
words. Nothing is said (None) where no language reaches LEAST_SHARE.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from rmkit.errors import DataError
from rmkit.types import Candidates, Score
from rmkit.verifiers.verifier import each, gold

READ = 1000
LEAST_SHARE = 0.08
LEAST_LEAD = 1.15  # the best must have so many times the hits of the second best

_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
)
_WORDS = re.compile(r"[^\W\d_]+")
_COMMON = {
    "en": "the of and to in is that it for was on are as with his they at be this have from or had by not but "
    "what all were we when your can said there an each which she do how their if will you i a",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden "
    "aus er hat dass sie nach wird bei einer um am sind noch wie einem über so zum war haben nur oder "
    "aber vor zur bis mehr durch ich",
    "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec "
    "mais comme ou si leur y dont tout cette ces aux elle nous vous je être fait son sa ses c d l n s qu",
    "es": "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha me "
    "si sin sobre este ya entre cuando todo esta ser son dos también fue había era muy años hasta desde "
    "está",
    "it": "di e il la che in un a per è una sono non del si con le della i da come più dei nel alla ma anche al "
    "o gli delle ha questo lo se nella ci cui essere tra molto loro quando suo",
    "pt": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem "
    "à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso",
    "nl": "de en van het een in is dat op te zijn met voor niet aan er om ook als dan maar bij uit nog naar "
    "door over ze worden wordt heeft had hij haar deze zo kan wat geen of ik je",
}
_OF_WORD: dict[str, tuple[str, ...]] = {}
for _language, _words in _COMMON.items():
    for _word in _words.split():
        _OF_WORD[_word] = (*_OF_WORD.get(_word, ()), _language)

LANGUAGES = (*_COMMON, *(language for language, _ in _SCRIPTS))


@dataclass(frozen=True, kw_only=True)
class Language:
    """1 where a completion is in the language, else 0. Unscored where its or the expected one cannot be told."""

    language: Annotated[str | None, "ISO 639-1 code; without it the reference's: a code, or a text in it"] = None

    revision: ClassVar[int] = 1

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, item: Candidates, text: str) -> float:
        target = self.language or gold(item).strip()
        if len(target) > 2:
            target = language_of(target) or ""
        if target not in LANGUAGES:
            raise DataError(f"the expected language cannot be told; known are {', '.join(LANGUAGES)}")
        if (got := language_of(text)) is None:
            raise DataError("the completion's language cannot be told")
        return float(got == target)


def language_of(text: str) -> str | None:
    """ISO 639-1 code, or None where it cannot be told. Reads the first READ characters."""
    text = text[:READ].lower()
    words = _WORDS.findall(text)
    letters = sum(map(len, words))
    if not letters:
        return None
    if not text.isascii():
        for language, script in _SCRIPTS:
            if len(script.findall(text)) / letters > (0.1 if language == "ja" else 0.4):
                return language
    return _by_words(words)


def _by_words(words: list[str]) -> str | None:
    hits = dict.fromkeys(_COMMON, 0)
    for word, n in Counter(words).items():
        for language in _OF_WORD.get(word, ()):
            hits[language] += n
    (best, most), (_, second) = sorted(hits.items(), key=lambda entry: -entry[1])[:2]
    clear = most >= LEAST_SHARE * len(words) and most >= LEAST_LEAD * second and most > 0
    return best if clear else None
