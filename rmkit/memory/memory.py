"""The memory: entries found by the nearness of their contexts, kept in a file of JSON lines.

    cos(e(context), e(entry's context))      the k nearest, the newer one first among equals

`e` is any function of texts to rows of equal width; `hashed_words` needs nothing but numpy, `encoder` of this module is
the frozen encoder. Entries are never overwritten: a later one of the same context stands beside the earlier.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmkit.atomic import draft_file
from rmkit.errors import DataError
from rmkit.ids import content_hash

Floats = NDArray[np.float64]
Embed = Callable[[Sequence[str]], Floats]
WIDTH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """`text` holds in `context`. `value` is what came of it (1 a success, 0 a failure), None where nothing is known;
    `source` the row or call it comes from."""

    context: str
    text: str
    value: float | None = None
    source: str = ""


class Near(NamedTuple):
    """An entry and its cosine, in [-1, 1]."""

    entry: Entry
    similarity: float


@dataclass(slots=True)
class Memory:
    embed: Embed
    entries: list[Entry] = field(default_factory=list)
    _vectors: list[Floats] = field(default_factory=list)

    def add(self, *entries: Entry) -> None:
        """Raises DataError for an entry without a text."""
        if any(not entry.text.strip() for entry in entries):
            raise DataError("an entry of a memory needs a text")
        if entries:
            self._vectors += list(unit_length(self.embed([entry.context for entry in entries])))
            self.entries += entries

    def nearest(self, context: str, k: int = 3) -> list[Near]:
        """The k entries whose contexts are nearest, nearest first; fewer where there are fewer."""
        if not self.entries or k < 1:
            return []
        cosine = np.stack(self._vectors) @ unit_length(self.embed([context]))[0]
        order = np.lexsort((-np.arange(len(cosine)), -cosine))[:k]
        return [Near(self.entries[at], float(cosine[at])) for at in order]

    def save(self, path: Path) -> None:
        """One JSON object a line; the file takes its place in one step."""
        with draft_file(path) as draft:
            draft.write_text("".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in self.entries))


def load_memory(path: Path, embed: Embed) -> Memory:
    """The memory in a file, empty where there is none. Raises DataError for a line that is no entry."""
    memory = Memory(embed)
    if path.exists():
        memory.add(*_entries(path))
    return memory


def _entries(path: Path) -> Iterable[Entry]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}: no entry of a memory ({error})") from None


def unit_length(vectors: Floats) -> Floats:
    """Rows divided by their length; a row of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0), np.float64)


def hashed_words(texts: Sequence[str], *, width: int = WIDTH) -> Floats:
    """[N, width] counts of words, each at the place that its hash names."""
    rows = np.zeros((len(texts), width))
    for row, text in zip(rows, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            row[int(content_hash(word)[:8], 16) % width] += 1
    return rows


def encoder(name: str = "minilm") -> Embed:
    """Features of the frozen encoder (`rmkit.features`); of a long context the end is read."""
    from rmkit.features.encoder import Encoder, EncoderConfig, Text

    opened = Encoder(EncoderConfig(encoder=name))
    return lambda texts: np.asarray(opened.features([Text(text, "end") for text in texts]), np.float64)
