"""Files read by `rmkit ingest`'s own path up to the units, without a warehouse, for tests to compare."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.ingest.inputs import Opened, open_inputs
from data_pipelines.ingest.reading import Reading
from data_pipelines.ingest.rows import Shard, UnitStream
from data_pipelines.sources.reading.streams import Item
from data_pipelines.sources.recognize import Plan
from data_pipelines.sources.source import Source
from rmkit.errors import DataError


@dataclass
class Read:
    opened: Opened
    stream: UnitStream
    units: list[dict[str, Any]]

    @property
    def form(self) -> str:
        return self.opened.shards[0].plan.name

    @property
    def merged(self) -> list[dict[str, Any]]:
        """The units with those of one content as one, which has the judgments of all."""
        found: dict[str, dict[str, Any]] = {}
        for unit in self.units:
            texts = [answer["messages"] for answer in unit["responses"]]
            key = json.dumps([unit["prompt"], sorted(texts), unit["rubric"]])
            if key not in found:
                found[key] = {**unit, "judgments": []}
            first = [answer["messages"] for answer in found[key]["responses"]]
            places = {text: [at for at, one in enumerate(texts) if one == text] for text in texts}
            order = [places[text].pop(0) for text in first]
            found[key]["judgments"] += [_reordered(one, order) for one in unit["judgments"]]
        return list(found.values())


def _reordered(judgment: dict[str, Any], order: list[int]) -> dict[str, Any]:
    """A judgment with the positions of another order of the responses."""
    if order == sorted(order):
        return judgment
    ranks = judgment["ranks"] and [judgment["ranks"][at] for at in order]
    scores = [{**one, "response": order.index(one["response"])} for one in judgment["scores"] or []]
    return {**judgment, "ranks": ranks, "scores": scores or None}


def read(data: Any, **options: Any) -> Read:
    opened = open_inputs(data if isinstance(data, list) else str(data), Reading(**options))
    stream = UnitStream(opened.shards, path=opened.path, rater=options.get("rater"))
    units: list[dict[str, Any]] = []
    try:
        for batch in stream.batches():
            units += batch.to_pylist()
    except DataError as error:
        if "nothing usable" not in str(error):
            raise
    return Read(opened, stream, sorted(units, key=lambda unit: unit["line"]))


def stream_of(items: Iterable[Item], source: Source, *, path: str) -> UnitStream:
    """A pass over rows that are read as one source says."""
    return UnitStream([Shard(path, Plan(name=source.name, units=source.units), items)], path=path)


def turns(messages: str) -> list[list[str]]:
    return [[turn["role"], turn["content"]] for turn in json.loads(messages)]


def text(answer: dict[str, Any]) -> str:
    return "\n\n".join(content for role, content in turns(answer["messages"]) if role == "assistant")


def votes(path: Path | str, **options: Any) -> dict[str, dict[str, int]]:
    """{prompt: {verdict: count}} over the pairs of a file, in the order of its columns."""
    counts: dict[str, dict[str, int]] = {}
    for unit in read(path, **options).merged:
        own = counts.setdefault(turns(unit["prompt"])[-1][1], {})
        for judgment in unit["judgments"]:
            if judgment["ranks"]:
                first, second = judgment["ranks"]
                name = "a" if first < second else "b" if first > second else "tie"
                own[name] = own.get(name, 0) + 1
    return counts
