"""What all dialects share: texts to scores, what cannot be scored, errors in the dialect's own form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from rmkit.errors import ConfigError, DataError
from rmkit.serve.compat.policy_readers import PolicyText, policy_text
from rmkit.serve.compat.served_model import chat_of, control_tokens
from rmkit.serve.http.native import call_of, engine_of
from rmkit.serve.http.problems import HttpError
from rmkit.serve.queue.batcher import about_tokens
from rmkit.serve.rewards.request import Reward, RewardItem, RewardRequest
from rmkit.serve.rewards.rewards import rewards
from rmkit.signal.signal import Signal
from rmkit.types import Candidates, Completion, Message, RewardModel, Score

Reading = Callable[[PolicyText], Candidates]
LARGE_BYTES = 100_000  # bodies from here on are read off the event loop


@dataclass(frozen=True, slots=True)
class ReadFor:
    """Reads what is meant for one model. `control` are the model's own control tokens: where one stands in a message,
    turns were not told apart, whatever the policy's template made of them.
    """

    model: RewardModel
    text: PolicyText
    control: tuple[str, ...]

    def __call__(self, reading: Reading) -> Candidates | Score:
        """What was sent, or why it cannot be scored."""
        try:
            item = reading(self.text)
            for message in (*item.prompt, *item.completions[0].messages):
                message.content.encode()
                if stray := next((token for token in self.control if token in message.content), None):
                    return Score.failed(f"the {message.role} turn holds the reward model's control token {stray!r}")
            return item
        except DataError as error:
            return Score.failed(str(error))
        except UnicodeEncodeError:
            return Score.failed("the text holds half a surrogate pair, which is no character")


@dataclass
class CompatSettings:
    """`policy_template`: see `policy_readers.policy_text`. `unscored_reward` stands in for what cannot be scored, in
    the dialects that have no word for that; None answers such a request with an error.
    """

    policy_template: str = "auto"
    unscored_reward: float | None = None
    _known: dict[str | None, ReadFor] = field(default_factory=dict, repr=False)

    def read_for(self, name: str | None, model: RewardModel) -> ReadFor:
        """How text for this model is read; renewed where the model was swapped."""
        known = self._known.get(name)
        if known is None or known.model is not model:
            known = ReadFor(model, policy_text(self.policy_template, chat=chat_of(model)), control_tokens(model))
            self._known[name] = known
        return known


@dataclass(frozen=True, slots=True)
class Scored:
    """One text's reward with the estimated tokens of what was read (0 where nothing could be)."""

    reward: Reward
    tokens: int

    @property
    def score(self) -> Score:
        """The model's own."""
        return self.reward.score

    @property
    def shaped(self) -> Score:
        """What the signal makes of it."""
        return _score(self.reward.reward, self.reward.unscored)

    @property
    def mixed(self) -> Score:
        """The same before the chain."""
        return _score(self.reward.raw, self.reward.unscored)


def _score(value: float | None, unscored: str | None) -> Score:
    return Score.failed(unscored or "it has no reward") if value is None else Score(value)


@dataclass(frozen=True, slots=True)
class Label:
    """What a trainer says of one sample beside its text: its dataset row, numbers of its own, its group."""

    row: Mapping[str, Any] = field(default_factory=dict)
    components: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    group_size: int | None = None

    @staticmethod
    def read(label: Any, *, group_size: int | None = None) -> Label:
        """A gold answer, or a mapping (or its JSON) with reference, rubric, components, prompt_id and what else is."""
        if isinstance(label, str) and label.lstrip().startswith("{"):
            try:
                label = json.loads(label)
            except (ValueError, RecursionError):
                label = {"reference": label}
        if not isinstance(label, Mapping):
            return Label({} if label is None else {"reference": label}, group_size=group_size)
        components = label.get("components")
        group = label.get("group_id", label.get("prompt_id"))
        size = label.get("group_size", group_size)
        return Label(
            {name: value for name, value in label.items() if name != "components"},
            components if isinstance(components, Mapping) else {},
            None if group is None else str(group)[:200],
            size if isinstance(size, int) else None,
        )


def settings_of(request: Request) -> CompatSettings:
    """How the service was told to read policy text."""
    settings: CompatSettings = request.app.state.compat
    return settings


def signal_of(request: Request) -> tuple[Signal | None, int | None]:
    """The signal that a trainer's URL asks for, else the service's first; and the size of its groups.

        ?signal=math        one that the service was started with
        ?mix=exact_match:1,reward:.2&chain=z_score&group_size=8

    Raises HttpError.
    """
    query = request.query_params
    size = query.get("group_size")
    if size is not None and not size.isdigit():
        raise HttpError(400, f"group_size is a whole number, got {size[:20]!r}")
    n = None if size is None else int(size)
    if not ("mix" in query or "chain" in query):
        return engine_of(request).signal(query.get("signal")), n
    try:
        mix = {name: float(weight) for name, _, weight in (one.partition(":") for one in _parts(query.get("mix")))}
        signal = Signal.of({"mix": mix, "chain": _parts(query.get("chain"))}, where="the URL")
        _ = signal.shape
        return signal, n
    except (ConfigError, ValueError) as error:
        raise HttpError(400, f"the URL's signal cannot be read: {error}") from error


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


async def score_each(
    request: Request,
    readings: Sequence[Reading],
    *,
    model: str | None = None,
    signal: Signal | None = None,
    labels: Sequence[Label] | None = None,
) -> list[Scored]:
    """A reward per reading, in order; one that cannot be read is unscored and the others are scored all the same.

    The model that the texts are read for is the one that scores them, though another may be swapped in meanwhile.
    Without a `signal` a reward is the model's own number.
    """
    engine = engine_of(request)
    read_for = settings_of(request).read_for(model, engine.model(model))
    large = int(request.headers.get("content-length", LARGE_BYTES)) >= LARGE_BYTES
    read = await asyncio.to_thread(_read_all, readings, read_for) if large else _read_all(readings, read_for)
    items = [
        _item(one, label)
        for one, label in zip(read, labels or [Label()] * len(read), strict=True)
        if isinstance(one, Candidates)
    ]
    rows: list[list[Reward]] = []
    if items:
        reward_request = RewardRequest(items=items, signal=signal, model=model, by=read_for.model)
        _, rows = await rewards(engine, request.app.state.gather, reward_request, call_of(request))
    answers = iter(rows)
    return [
        Scored(next(answers)[0], about_tokens(one))
        if isinstance(one, Candidates)
        else Scored(Reward(score=one, unscored=one.unscored), 0)
        for one in read
    ]


def _item(candidates: Candidates, label: Label) -> RewardItem:
    return RewardItem(
        candidates=candidates,
        row=label.row,
        columns={name: [value] for name, value in label.components.items()},
        group_id=label.group,
        group_size=label.group_size if label.group is not None else None,
    )


def _read_all(readings: Sequence[Reading], read_for: ReadFor) -> list[Candidates | Score]:
    return [read_for(reading) for reading in readings]


def numbers(request: Request, scores: Sequence[Score]) -> list[float]:
    """The values; what is unscored becomes `unscored_reward`, or a HttpError (422) where none was set."""
    stand_in = settings_of(request).unscored_reward
    for number, score in enumerate(scores):
        if score.unscored is not None and stand_in is None:
            raise HttpError(422, f"item {number} of {len(scores)} cannot be scored: {score.unscored}")
    return [score.value if score.unscored is None else stand_in for score in scores]  # type: ignore[misc]


def one_reply(prompt: Sequence[Message], reply: Sequence[Message]) -> Candidates:
    """A prompt and its one completion. Raises DataError where either is missing."""
    if not prompt or not reply:
        raise DataError(f"a score needs a prompt and a reply, got {len(prompt)} and {len(reply)} messages")
    return Candidates(tuple(prompt), (Completion(tuple(reply)),))


def answer(body: Any, *, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response in ASCII, so that half a surrogate pair in what is sent back breaks nothing.

    Raises DataError for NaN and infinities, which JSON does not know.
    """
    try:
        text = json.dumps(body, allow_nan=False)
    except ValueError as error:
        raise DataError("the body holds numbers that JSON does not know (NaN or infinite)") from error
    return Response(text, status_code, dict(headers or {}), media_type="application/json")


class DialectRoute(APIRoute):
    """Turns every refusal into the dialect's error form: subclasses override `problem`."""

    @staticmethod
    def problem(status: int, message: str) -> Mapping[str, object]:
        """The error body."""
        return {"error": message}

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except HttpError as error:
                return self._refused(error.status, str(error), error.headers)
            except DataError as error:
                return self._refused(422, str(error), {})
            except RequestValidationError as error:  # where and what, without the values
                summary = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]]
                return self._refused(400, "; ".join(summary), {})

        return answered

    def _refused(self, status: int, message: str, headers: Mapping[str, str]) -> Response:
        return answer(self.problem(status, message), status_code=status, headers=headers)
