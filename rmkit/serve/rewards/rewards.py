"""A request's way from items to rewards: score, verify, mix, shape, place. Every route that gives rewards goes it.

The request's model and the served models and verifiers that the signal names are asked at once, each through its own
queue. `Reward.score` stays the model's raw answer, `raw` is the mix, `reward` what the chain makes of it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rmkit.serve.http.problems import HttpError
from rmkit.serve.queue.batcher import Answer, Call
from rmkit.serve.queue.engine import Engine
from rmkit.serve.rewards.groups import GroupGather
from rmkit.serve.rewards.placement import spans_of
from rmkit.serve.rewards.request import Reward, RewardItem, RewardRequest
from rmkit.serve.rewards.shaping import Place, Row, Shaped, shape
from rmkit.signal.columns import as_rubric, as_text, plain, value_at
from rmkit.signal.mix import EXACT_MATCH, MODEL, exact_sum, mixed
from rmkit.signal.signal import Signal
from rmkit.types import Candidates, RewardModel, Score
from rmkit.verifiers.exact_match import ExactMatch


async def rewards(
    engine: Engine, gather: GroupGather, request: RewardRequest, call: Call
) -> tuple[Answer[list[Score]], list[list[Reward]]]:
    """The model's answer, and per item and completion its reward. Raises HttpError; DataError for a chain that does not
    fit its columns."""
    signal = request.signal
    items = [_read(item, signal) for item in request.items] if signal else list(request.items)
    name = request.model or engine.default
    if signal:
        _check_components(signal, engine, items)
    others = [one for one in signal.named if one in engine.batchers and one != name] if signal else []
    groups = _groups(items)
    answer, *more = await asyncio.gather(
        _answer(engine, name, items, groups, call, request.by, signal),
        *(_answer(engine, one, items, groups, call, None, signal) for one in others),
    )
    scored: dict[str, list[list[Score]]] = {
        MODEL: answer.results,
        name: answer.results,
        **{one: other.results for one, other in zip(others, more, strict=True)},
    }
    if signal and EXACT_MATCH in signal.named and EXACT_MATCH not in scored:
        scored[EXACT_MATCH] = ExactMatch().verify([item.candidates for item in items])
    out = [
        [_reward(signal, item, scored, number, one) for one in range(len(item))] for number, item in enumerate(items)
    ]
    if signal and signal.chain:
        rows = [
            [_columns(item, row[one], one, scored, number) for one in range(len(item))]
            for number, (item, row) in enumerate(zip(items, out, strict=True))
        ]
        await _shape(engine, gather, request, signal, call, answer.info.fingerprint, groups, items, rows, out)
    if request.spans:
        await _place(request.by or engine.model(name), [item.candidates for item in items], out)
    engine.observe(
        name, [item.candidates for item in items], call, answer, request=replace(request, items=items), rewards=out
    )
    return answer, out


def _read(item: RewardItem, signal: Signal) -> RewardItem:
    """The item with what the signal finds in its row."""
    if not item.row:
        return item
    row, where, candidates = item.row, signal.columns, item.candidates
    if candidates.reference is None:
        candidates = replace(candidates, reference=as_text(value_at(row, where.reference)))
    if not candidates.rubric:
        candidates = replace(candidates, rubric=as_rubric(value_at(row, where.rubric)))
    columns = dict(item.columns)
    for name, path in {**{one: one for one in signal.named if one in row}, **where.components}.items():
        if name not in columns:
            columns[name] = [plain(value_at(row, path))] * len(item)
    group = item.group_id
    if group is None and (value := as_text(value_at(row, where.group))):
        group = value[:200]
    size = item.group_size
    if size is None and group is not None and isinstance(value := row.get("group_size"), int):
        size = value
    return replace(item, candidates=candidates, columns=columns, group_id=group, group_size=size)


def _check_components(signal: Signal, engine: Engine, items: Sequence[RewardItem]) -> None:
    brought = {name for item in items for name in (*item.columns, *signal.columns.components)}
    known = tuple(dict.fromkeys((MODEL, EXACT_MATCH, *engine.batchers, *sorted(brought))))
    for name in (*signal.weights, *signal.gates):
        if name not in known:
            raise HttpError(400, f"no component {name!r}; there are: {', '.join(known)}")


def _groups(items: Sequence[RewardItem]) -> dict[str | int, list[Place]]:
    """The completions of each group: under its id, or under an item's number where it has none."""
    groups: dict[str | int, list[Place]] = {}
    for number, item in enumerate(items):
        places = groups.setdefault(number if item.group_id is None else item.group_id, [])
        places += [(number, completion) for completion in range(len(item))]
    return groups


async def _answer(
    engine: Engine,
    name: str,
    items: Sequence[RewardItem],
    groups: Mapping[str | int, Sequence[Place]],
    call: Call,
    by: RewardModel | None,
    signal: Signal | None,
) -> Answer[list[Score]]:
    """A model's or a verifier's scores; a verifier with a column of its own reads its reference there."""
    candidates = [item.candidates for item in items]
    spec = signal.verifiers.get(name) if signal else None
    if spec is not None and spec.column:
        candidates = [
            replace(one, reference=as_text(value_at(item.row, spec.column)))
            for one, item in zip(candidates, items, strict=True)
        ]
    if (by or engine.model(name)).info.pointwise:
        return await engine.score_answer(name, candidates, call=call, by=by)
    whole = []
    for group, places in groups.items():
        first = candidates[places[0][0]]
        if any(candidates[number].prompt != first.prompt for number, _ in places):
            raise HttpError(400, f"the completions of group {group!r} answer different prompts")
        if any((items[number].group_size or 0) > len(places) for number, _ in places):
            raise HttpError(400, f"this model scores a group as a whole; send all of group {group!r} in one request")
        whole.append(first.of(*(candidates[item].completions[one] for item, one in places)))
    answer = await engine.score_answer(name, whole, call=call, by=by)
    result = {
        place: score
        for places, row in zip(groups.values(), answer.results, strict=True)
        for place, score in zip(places, row, strict=True)
    }
    rows = [[result[number, one] for one in range(len(item))] for number, item in enumerate(items)]
    return Answer(answer.info, rows, answer.queued_s, answer.total_s)


def _reward(
    signal: Signal | None, item: RewardItem, scored: Mapping[str, list[list[Score]]], number: int, one: int
) -> Reward:
    score = scored[MODEL][number][one]
    if signal is None:
        value = score.value if score.unscored is None else None
        return Reward(score=score, raw=value, reward=value, unscored=score.unscored)
    values = {name: _number(column[one]) for name, column in item.columns.items()}
    reasons: dict[str, str] = {}
    for name, rows in scored.items():
        values[name] = rows[number][one].value
        if (why := rows[number][one].unscored) is not None:
            values[name] = None
            reasons[name] = f"{name}: {why}" if name != MODEL else why
    result = mixed(
        signal.weights,
        values,
        combine=signal.combine,
        gates=signal.gates,
        gated=signal.gated,
        reasons=reasons,
    )
    return Reward(
        score=score, raw=result.reward, reward=result.reward, components=result.components, unscored=result.missing
    )


def _number(value: Any) -> float | None:
    """A column's value as a component: a list counts as its sum, a label as nothing."""
    parts = value if isinstance(value, list) else [value]
    return exact_sum(parts) if all(isinstance(one, int | float) for one in parts) else None


def _columns(item: RewardItem, reward: Reward, one: int, scored: Mapping[str, list[list[Score]]], number: int) -> Row:
    """All that a chain may read of one completion."""
    row: Row = {name: column[one] for name, column in item.columns.items()}
    row |= {name: rows[number][one].value for name, rows in scored.items()}
    if reward.score.steps:
        row["steps"] = list(reward.score.steps)
    row["characters"] = float(len(item.candidates.completions[one].text))
    row[MODEL] = reward.raw
    return row


async def _shape(
    engine: Engine,
    gather: GroupGather,
    request: RewardRequest,
    signal: Signal,
    call: Call,
    fingerprint: str,
    groups: Mapping[str | int, list[Place]],
    items: Sequence[RewardItem],
    rows: list[list[Row]],
    out: list[list[Reward]],
) -> None:
    """The chain over each group; those whose other completions come in other requests wait for them."""
    chain = signal.shape
    assert chain is not None
    here: dict[str | int, list[Place]] = {}
    meetings = []
    for name, places in groups.items():
        size = items[places[0][0]].group_size
        if isinstance(name, str) and size is not None and size != len(places):
            key = (call.client, request.model or engine.default, repr(signal), request.step, name)
            meetings.append((places, gather.meet(
                key, [rows[item][one] for item, one in places], fingerprint=fingerprint, size=size,
                deadline=engine.deadline(call),
            )))  # fmt: skip
        else:
            here[name] = places
    if here:
        shaped = shape(chain, [(str(name), rows[item][one]) for name, places in here.items() for item, one in places])
        for place, result in zip((place for places in here.values() for place in places), shaped, strict=True):
            _settle(out[place[0]][place[1]], result)
    for (places, _), met in zip(meetings, await asyncio.gather(*(one for _, one in meetings)), strict=True):
        if isinstance(met, str):
            for item, one in places:
                reward = out[item][one]
                reward.reward, reward.unscored = None, reward.unscored or met
            continue
        whole, begin = met
        for (item, one), result in zip(places, whole.shaped(chain)[begin : begin + len(places)], strict=True):
            _settle(out[item][one], result)


def _settle(reward: Reward, shaped: Shaped) -> None:
    if isinstance(shaped, str):
        reward.reward, reward.unscored = None, reward.unscored or shaped
    elif isinstance(shaped, list):
        reward.places = shaped
        values = [one for one in shaped if one is not None]
        whole = exact_sum(values)
        reward.reward = whole if len(values) == len(shaped) and math.isfinite(whole) else None
        if reward.reward is None:
            reason = "a part of its reward is missing" if math.isfinite(whole) else f"its parts add up to {whole}"
            reward.unscored = reward.unscored or reason
    else:
        reward.reward = shaped


async def _place(model: RewardModel, items: Sequence[Candidates], out: list[list[Reward]]) -> None:
    """Spans of every completion: the chain's parts where they are its steps, else the model's own values."""
    rows = await asyncio.to_thread(spans_of, model, items, [[reward.score for reward in row] for row in out])
    for row, spans in zip(out, rows, strict=True):
        for reward, own in zip(row, spans, strict=True):
            if reward.places and len(reward.places) == len(own):
                own = [span._replace(value=value) for span, value in zip(own, reward.places, strict=True)]
            reward.spans = own
