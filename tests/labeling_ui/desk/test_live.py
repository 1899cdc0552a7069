"""Live chats: blind choices between two replies, each on disk by itself, and the pairs that they become."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from labeling_ui.desk.answers import Answer
from labeling_ui.desk.live import KIND, Reply, choose, finished, first_message, read_chat, say
from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.labels import commit_labels
from labeling_ui.projects.project import Project
from rmkit.errors import ConfigError, DataError, EndpointError
from rmkit.ledger import Ledger
from rmkit.types import Conversation
from tests.labeling_ui.conftest import ANNA, LEA
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve

Make = Callable[..., Project]
MODELS = ("first", "second")


def _ask(conversation: Conversation) -> Sequence[Reply]:
    words = conversation[-1].content
    return [Reply(f"org/{name}", f"{name} says {len(conversation)}: {words}") for name in MODELS]


def _fails(conversation: Conversation) -> Sequence[Reply]:
    raise EndpointError("no reply")


class Live:
    """Anna's chat on one item."""

    def __init__(self, ledger: Ledger, project: Project) -> None:
        self.ledger, self.project, self.desk = ledger, project, project.desk(ledger)
        (self.hold,) = self.desk.open(ANNA)
        self.item = self.desk.items[self.hold.item]
        self.where: tuple[Any, ...] = (ledger, project.name, self.item, self.hold)

    def say(self, text: str) -> None:
        say(*self.where, text, ask=_ask)

    def choose(self, model: int | None) -> None:
        chat = read_chat(*self.where)
        assert chat.waiting is not None
        better = None if model is None else chat.waiting.order.index(model)
        self.choose_place(better)

    def choose_place(self, better: int | None) -> None:
        strength = {} if better is None else {"strength": 2}
        answer = Answer(better=better, **strength)  # type: ignore[arg-type]
        choose(self.ledger, self.project.name, self.project.task, self.item, self.hold, answer, rater="anna")


@pytest.fixture
def live(ledger: Ledger, make_project: Make) -> Live:
    return Live(ledger, make_project("chats", kind="live", models=MODELS, overlap=1))


def test_the_chosen_reply_goes_on_and_each_choice_becomes_a_pair(live: Live, ledger: Ledger) -> None:
    assert first_message(live.item).startswith("Question")
    live.say("one")
    live.choose(1)
    live.say("two")
    live.choose(0)
    chat = read_chat(*live.where)
    assert [turn.content for turn in chat.turns] == ["one", "second says 1: one", "two", "first says 3: two"]
    live.desk.submit(ANNA, live.hold.id, finished(chat))
    version = commit_labels(ledger, live.project, LEA).version
    with open_warehouse(read_only=True) as connection:
        rows = checkout(connection, resolve(connection, version.ref), columns=("prompt", "responses", "p")).to_pylist()
    by_length = sorted(rows, key=lambda row: len(row["prompt"]))
    assert [[turn["content"] for turn in json.loads(row["prompt"])] for row in by_length] == [
        ["one"],
        ["one", "second says 1: one", "two"],
    ]
    better = [json.loads(row["responses"][row["p"].index(1.0)])[0]["content"] for row in by_length]
    assert better == ["second says 1: one", "first says 3: two"]


def test_a_tie_goes_on_with_the_reply_shown_first(live: Live) -> None:
    live.say("one")
    waiting = read_chat(*live.where).waiting
    assert waiting is not None
    live.choose(None)
    assert read_chat(*live.where).turns[-1].content == waiting.replies[waiting.order[0]]


def test_a_choice_written_just_before_the_process_died_stands(live: Live, ledger: Ledger) -> None:
    live.say("one")
    before = read_chat(*live.where)
    live.choose(0)
    key = f"chats/{live.hold.id}-{live.hold.revision}"
    waiting = before.waiting
    assert waiting is not None
    shown = {"user": "one", "models": ["a", "b"], "replies": list(waiting.replies), "order": waiting.order}
    lost = {"turns": "[]", "n": 0, "waiting": shown}
    ledger.put("live_chat", key, lost)
    live.choose(1)
    assert read_chat(*live.where).turns[-1].content.startswith("first says")
    assert len(list(ledger.events(kinds=[KIND]))) == 1


def test_what_is_out_of_turn_is_refused_and_changes_nothing(live: Live, ledger: Ledger) -> None:
    with pytest.raises(DataError, match="write a message first"):
        live.choose_place(0)
    with pytest.raises(DataError, match="write a message"):
        live.say("  ")
    with pytest.raises(DataError, match="at least once"):
        finished(read_chat(*live.where))
    with pytest.raises(EndpointError):
        say(*live.where, "one", ask=_fails)
    live.say("one")
    with pytest.raises(DataError, match="choose between"):
        live.say("two")
    with pytest.raises(DataError, match="at least once"):
        finished(read_chat(*live.where))
    assert not list(ledger.events(kinds=[KIND]))


def test_a_chat_taken_back_leaves_no_pair(live: Live, ledger: Ledger) -> None:
    live.say("one")
    live.choose(0)
    live.desk.submit(ANNA, live.hold.id, finished(read_chat(*live.where)))
    live.desk.undo(ANNA, live.hold.id)
    with pytest.raises(DataError, match="no live pairs yet"):
        commit_labels(ledger, live.project, LEA)


def test_either_model_stands_first_about_equally_often(ledger: Ledger, make_project: Make) -> None:
    live = Live(ledger, make_project("chats", kind="live", models=MODELS, overlap=1))
    first: Counter[int] = Counter()
    for number in range(40):
        live.say(str(number))
        waiting = read_chat(*live.where).waiting
        assert waiting is not None
        first[waiting.order[0]] += 1
        live.choose(0)
    assert min(first[0], first[1]) >= 10  # below that in one of 1,000 fair draws


def test_a_live_task_needs_two_served_models() -> None:
    for models in ((), MODELS[:1], (*MODELS, "third")):
        with pytest.raises(ConfigError, match="two models by name"):
            TaskDefinition(name="t", kind="live", title="T", question="Q?", models=models)
