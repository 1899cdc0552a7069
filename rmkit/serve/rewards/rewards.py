"""A native score request from items to rewards: the model's scores, the mix of components, the groups' transform."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rmkit.serve.http import wire
from rmkit.serve.http.problems import HttpError
from rmkit.serve.queue.batcher import Answer, Call
from rmkit.serve.queue.engine import Engine
from rmkit.serve.rewards.groups import GroupGather, WholeGroup
from rmkit.serve.rewards.shaping import EXACT_MATCH, MODEL, check_weights, exact_match, mixed
from rmkit.types import Candidates, Score

Place = tuple[int, int]  # item, completion


async def rewards(
    engine: Engine, gather: GroupGather, body: wire.ScoreRequest, call: Call
) -> tuple[Answer[list[Score]], list[list[wire.ScoreOut]]]:
    """The model's answer, and per completion what goes out. Raises HttpError."""
    if body.mix:
        check_weights(body.mix, sorted({name for item in body.items for name in item.components}))
    items = [item.read() for item in body.items]
    groups = _groups(body.items)
    if engine.model(body.model).info.pointwise:
        answer = await engine.score_answer(body.model, items, call=call)
    else:
        answer = await _score_groups(engine, body, items, groups, call)
    out = [[wire.score_out(score) for score in row] for row in answer.results]
    if body.mix:
        _mix(body, items, out)
    if body.transform:
        for name, places in groups.items():
            await _transform(engine, gather, body, call, answer.info.fingerprint, name, places, out)
    return answer, out


def _groups(items: Sequence[wire.ScoreItemIn]) -> dict[str | int, list[Place]]:
    """The completions of each group: under its id, or under an item's number where it has none."""
    groups: dict[str | int, list[Place]] = {}
    for number, item in enumerate(items):
        places = groups.setdefault(number if item.group_id is None else item.group_id, [])
        places += [(number, completion) for completion in range(len(item.completions))]
    return groups


async def _score_groups(
    engine: Engine,
    body: wire.ScoreRequest,
    items: Sequence[Candidates],
    groups: dict[str | int, list[Place]],
    call: Call,
) -> Answer[list[Score]]:
    """Scores of a model that judges completions against each other: each group as one Candidates."""
    whole = []
    for name, places in groups.items():
        first = items[places[0][0]]
        if any(items[number].prompt != first.prompt for number, _ in places):
            raise HttpError(400, f"the completions of group {name!r} answer different prompts")
        if any((body.items[number].group_size or 0) > len(places) for number, _ in places):
            raise HttpError(400, f"this model scores a group as a whole; send all of group {name!r} in one request")
        whole.append(first.of(*(items[item].completions[one] for item, one in places)))
    sources = tuple(body.items[places[0][0]].source for places in groups.values())
    answer = await engine.score_answer(body.model, whole, call=call.with_sources(sources))
    result = {
        place: score
        for places, row in zip(groups.values(), answer.results, strict=True)
        for place, score in zip(places, row, strict=True)
    }
    rows = [[result[number, one] for one in range(len(item.completions))] for number, item in enumerate(items)]
    return Answer(answer.info, rows, answer.queued_s, answer.total_s)


def _mix(body: wire.ScoreRequest, items: Sequence[Candidates], out: list[list[wire.ScoreOut]]) -> None:
    for item, candidates, row in zip(body.items, items, out, strict=True):
        for number, (completion, score) in enumerate(zip(candidates.completions, row, strict=True)):
            components = {name: values[number] for name, values in item.components.items()}
            if item.reference is not None and EXACT_MATCH in body.mix:
                components[EXACT_MATCH] = exact_match(completion.text, item.reference)
            result = mixed(body.mix, {**components, MODEL: score.value})
            score.reward, score.components = result.reward, dict(result.components)
            score.unscored = score.unscored or result.missing


async def _transform(
    engine: Engine,
    gather: GroupGather,
    body: wire.ScoreRequest,
    call: Call,
    fingerprint: str,
    name: str | int,
    places: Sequence[Place],
    out: list[list[wire.ScoreOut]],
) -> None:
    assert body.transform is not None
    scores = [out[item][one] for item, one in places]
    rewards = [score.reward for score in scores]
    group, begin, missing = WholeGroup(rewards), 0, None
    size = body.items[places[0][0]].group_size
    if isinstance(name, str) and size is not None and size != len(places):
        mix = tuple(sorted(body.mix.items()))
        key = (call.client, body.model or engine.default, mix, body.transform, name)
        deadline = call.deadline or time.monotonic() + engine.settings.timeout_s
        met = await gather.meet(key, rewards, fingerprint=fingerprint, size=size, deadline=deadline)
        if isinstance(met, str):
            missing = met
        else:
            group, begin = met
    shaped = group.transformed(body.transform)[begin : begin + len(scores)]
    if group.n_present > 1:
        undefined = "the transformed reward is too large for a number"
    else:
        undefined = "the group is too small for this transform"
    for score, value in zip(scores, shaped, strict=True):
        score.reward = None if missing else value
        if score.reward is None:
            score.unscored = score.unscored or missing or undefined
