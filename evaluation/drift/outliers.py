"""Which served completions are the outliers, and sending them to people.

Outlier is a score far from what the reference gives completions of like length: within the reference's five length
bins, z = (value - median) / (1.4826 MAD). A reward that is high for its length is where reward hacking shows first.
What could not be scored comes after. One completion per prompt. Texts come from the reward log where it has them, else
from the warehouse by their hashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evaluation.drift.served import Observed
from rmkit.errors import StoreError
from rmkit.ids import parse_messages
from rmkit.ledger.annotation_queue import queue_item
from rmkit.types import Candidates, Completion, Event
from warehouse.store import open_warehouse

LENGTH_BINS = 5
MIN_SPREAD = 1e-9


class Outlier(NamedTuple):
    """A served completion and its distance from the reference's median at its length; `z` None: unscored."""

    observed: Observed
    z: float | None


def outliers(reference: Sequence[Observed], current: Sequence[Observed], *, most: int) -> list[Outlier]:
    """The outliers first, one per prompt: scores by |z|, then what was not scored."""
    scored = [one for one in reference if one.value is not None]
    if not scored:
        return []
    edges = np.quantile([one.chars for one in scored], np.linspace(0, 1, LENGTH_BINS + 1)[1:-1])
    typical: dict[int, tuple[float, float]] = {}
    everything = np.array([one.value for one in scored])
    bins = np.searchsorted(edges, [one.chars for one in scored])
    for number in range(LENGTH_BINS):
        values = everything[bins == number] if (bins == number).any() else everything
        middle = float(np.median(values))
        typical[number] = middle, max(MIN_SPREAD, 1.4826 * float(np.median(np.abs(values - middle))))

    def distance(one: Observed) -> Outlier:
        if one.value is None:
            return Outlier(one, None)
        middle, spread = typical[int(np.searchsorted(edges, one.chars))]
        return Outlier(one, (one.value - middle) / spread)

    ordered = sorted(map(distance, current), key=lambda strange: -abs(strange.z) if strange.z is not None else 0.0)
    first: dict[str, Outlier] = {}
    for strange in ordered:
        first.setdefault(strange.observed.prompt, strange)
    return list(first.values())[:most]


def queue_events(result: Sequence[Outlier], *, model: str, fingerprint: str, project: str) -> tuple[list[Event], int]:
    """Events for the annotation queue, and how many items have no text anywhere."""
    texts = _stored_texts({h for one in result for h in (one.observed.prompt, one.observed.response)})
    events = []
    for strange in result:
        one = strange.observed
        prompt, reply = one.prompt_text or texts.get(one.prompt), one.text or texts.get(one.response)
        if prompt is None or reply is None:
            continue
        events.append(
            queue_item(
                Candidates(parse_messages(prompt), (Completion(parse_messages(reply)),)),
                project=project,
                found_by=f"drift {model}",
                reason=_reason(strange),
                priority=0.5 if strange.z is None else min(1.0, abs(strange.z) / 10),
                evidence={"value": one.value, "z": strange.z, "fingerprint": fingerprint, "source": one.source},
            )
        )
    return events, len(result) - len(events)


def _reason(strange: Outlier) -> str:
    if strange.z is None:
        return f"the service could not score it: {strange.observed.unscored}"
    side = "higher" if strange.z > 0 else "lower"
    return f"its reward is {abs(strange.z):.1f} spreads {side} than the reference gives replies of its length"


def _stored_texts(hashes: set[str]) -> Mapping[str, str]:
    """Canonical JSON by content hash, of what the warehouse holds; empty where there is no warehouse."""
    if not hashes:
        return {}
    target = "h IN (SELECT unnest($hashes::UUID[])) AND messages IS NOT NULL"
    sql = (
        f"SELECT replace(h::VARCHAR, '-', ''), messages FROM prompt WHERE {target} "
        f"UNION ALL SELECT replace(h::VARCHAR, '-', ''), messages FROM response WHERE {target}"
    )
    try:
        with open_warehouse(read_only=True) as connection:
            rows: list[Any] = connection.execute(sql, {"hashes": sorted(hashes)}).fetchall()
    except StoreError:
        return {}
    return dict(rows)
