"""The prompt book on real ledgers: several workers, repeated requests, restarts, what is proposed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rmkit.curriculum.book import PromptBook
from rmkit.curriculum.observation import Observation
from rmkit.curriculum.record import BookSettings, PromptRecord
from rmkit.errors import ConflictError, UsageError
from rmkit.ledger import open_ledger
from rmkit.types import Event


def one_call(number: int) -> list[Observation]:
    draw = random.Random(number)
    return [
        Observation(
            prompt=f"p{draw.randrange(30)}",
            rewards=tuple(draw.choice([0.0, 1.0, None]) for _ in range(4)),
            category=draw.choice("ab"),
            score=draw.random(),
        )
        for _ in range(3)
    ]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger that is empty: a file, or a database of a PostgreSQL that these tests start."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite")
    database: str = request.getfixturevalue("fresh_database")("prompts")
    return database


def whole(book: PromptBook) -> Any:
    book.refresh()
    return book.prompts(), book.arms(), book.columns(["p1"])


def test_two_workers_and_a_restart_lose_nothing_and_count_nothing_twice(where: str, tmp_path: Path) -> None:
    """Each call is made twice, by the other worker as well; the books are kept every few calls, at different times."""
    settings = BookSettings(decay=0.9)

    def work(calls: list[int], keep_every: int) -> None:
        with open_ledger(where) as ledger:
            book = PromptBook(ledger, settings=settings, keep_every=keep_every)
            for number in calls:
                book.observe(one_call(number), request_id=f"call-{number}")
                book.refresh()
            book.close()

    order = list(range(24))
    threads = [
        threading.Thread(target=work, args=(order[:18], 3)),
        threading.Thread(target=work, args=(order[6:][::-1], 5)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open_ledger(where) as ledger:
        seen = whole(PromptBook(ledger))
        assert [event.kind for _, event in ledger.events()] == ["prompt_observation"] * 24
    # A second reading, with nothing kept: the events alone, folded by hand in their order.
    with open_ledger(where) as ledger, open_ledger(tmp_path / "events alone.sqlite") as fresh:
        for _, event in ledger.events():
            fresh.append(event)
        assert whole(PromptBook(fresh, settings=settings)) == seen
        records: dict[str, PromptRecord] = {}
        for _, event in fresh.events():
            for values in event.payload["observations"]:
                one = Observation(
                    prompt=values["prompt"], rewards=tuple(values["rewards"]), category=values["category"]
                )
                records[one.prompt] = records.get(one.prompt, PromptRecord()).observed(one, settings)
        assert records == seen[0]
    answers = sum(len(one.scored) for number in range(24) for one in one_call(number))
    assert sum(record.n for record in records.values()) == answers


def test_a_restart_goes_on_from_what_was_kept(where: str) -> None:
    with open_ledger(where) as ledger:
        book = PromptBook(ledger)
        for number in range(8):
            book.observe(one_call(number))
        book.close()
        book.observe(one_call(8))
        again = PromptBook(ledger)
        assert again.refresh() == 1
        assert whole(again) == whole(book)


def test_a_request_told_twice_counts_once_and_its_id_cannot_be_reused(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        book = PromptBook(ledger)
        assert book.observe([Observation(prompt="p", rewards=(1, 0, 1))], request_id="r")
        assert not book.observe([Observation(prompt="p", rewards=(1, 0, 1))], request_id="r")
        with pytest.raises(ConflictError, match="used for other observations"):
            book.observe([Observation(prompt="p", rewards=(1,))], request_id="r")
        book.refresh()
        assert book.record("p").belief == (3, 2)


def test_books_count_alike_or_say_so_and_are_kept_apart(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        PromptBook(ledger, settings=BookSettings(decay=0.5)).observe([Observation(prompt="p", rewards=(1,))])
        assert PromptBook(ledger).settings.decay == 0.5
        with pytest.raises(ConflictError, match="begin another one"):
            PromptBook(ledger, settings=BookSettings())
        other = PromptBook(ledger, "other")
        other.refresh()
        assert other.prompts() == {}


def test_proposals(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        book = PromptBook(ledger)
        book.observe(
            [
                Observation(prompt="easy", rewards=(1,) * 40, category="a"),
                Observation(prompt="half", rewards=(1, 0) * 20, category="a"),
                Observation(prompt="never", rewards=(0,) * 40, category="b"),
                Observation(prompt="new"),
            ]
        )
        assert [one.prompt for one in book.propose(1, seed=0, among=["easy", "half", "never"])] == ["half"]
        assert {one.prompt for one in book.propose(9)} == {"easy", "half", "never", "new"}
        assert {one.prompt for one in book.propose(9, skip=["all_pass", "all_fail"])} == {"half", "new"}
        (unseen,) = book.propose(1, among=["elsewhere"])
        assert (unseen.pass_rate, unseen.n, unseen.bucket) == (0.5, 0, None)
        book.set_hints("never", ["think of squares", "x = 4"])
        (never,) = book.propose(1, among=["never"])
        assert (never.flags, never.tier, never.hint, never.bucket) == (
            ("all_fail", "plateau"),
            1,
            "think of squares",
            "hard",
        )
        # Categories with no advantage at all against one with some: DUMP's mean decides at its temperature of .1.
        counts = [one.category for _ in range(40) for one in book.propose(1, bandit="sec", among=["half", "never"])]
        assert counts.count("a") > counts.count("b") > 0
        with pytest.raises(UsageError, match="unknown utility 'varience'; did you mean 'variance'"):
            book.propose(1, utility="varience")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="unknown flag 'all_fails'; did you mean 'all_fail'"):
            book.propose(1, skip=["all_fails"])
        with pytest.raises(UsageError, match="seed must not be negative, got -1"):
            book.propose(1, seed=-1)
        features = {"easy": [1.0], "half": [0.0], "never": [-1.0], "new": [0.1], "far": [0.9]}
        assert book.propose(1, utility="value", among=["new", "far"], features=features)[0].prompt == "new"


def test_columns_for_chains(tmp_path: Path) -> None:
    from rmkit.shaping import Group, chain

    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        book = PromptBook(ledger)
        assert book.columns(["p"])["quantile_lower"] == [None]
        book.observe([Observation(prompt="p", rewards=(1, 1, 0), score=2.0, entropy=1.2)])
        book.observe([Observation(prompt="q", rewards=(0,), score=4.0, entropy=0.9)])
        columns = book.columns(["p", "q"])
        # Begun at 2 with nothing below (2 + .1 * .2), then 4: nothing below either.
        assert columns["quantile_lower"] == [pytest.approx(2.04)] * 2
        assert columns["quantile_upper"] == [pytest.approx(2.16)] * 2
        assert columns["entropy_history"] == [pytest.approx(1.05)] * 2
        assert columns["pass_rate"] == [0.6, pytest.approx(1 / 3)]
        shaped = chain({"use": "affine", "add": {"baseline": -1}}).apply(Group.of({"reward": [1.0, 0.0], **columns}))
        # SPO: a, b = 1, 1 after 1, 1, 0 at memory .96.
        a = ((0.96 + 1) * 0.96 + 1) * 0.96
        b = 0.96**3 + 1
        assert shaped["reward"] == [pytest.approx(1 - a / (a + b)), pytest.approx(-0.96 / 2.92)]


def test_the_reward_log_feeds_a_book_that_asks_for_it(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        book = PromptBook(ledger, settings=BookSettings(served="exact_match"))
        lines = [{"value": 0.3, "components": {"exact_match": one}} for one in (1.0, 0.0, None, 1.0)]
        ledger.append(Event(kind="reward", actor="serve m", payload={"items": [{"prompt": "h", "completions": lines}]}))
        book.refresh()
        assert (book.record("h").belief, book.record("h").unscored) == ((3, 2), 1)


WORKER = """
import sys
from rmkit.curriculum.book import PromptBook
from rmkit.ledger import open_ledger
sys.path.insert(0, sys.argv[3])
from test_book import one_call
with open_ledger(sys.argv[1]) as ledger:
    book = PromptBook(ledger, keep_every=4)
    for number in range(int(sys.argv[2]), int(sys.argv[4]), 2):
        book.observe(one_call(number), request_id=f"call-{number}")
        book.refresh()
        print(number, flush=True)
    book.close()
"""


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_and_begun_again(where: str) -> None:
    here, calls = str(Path(__file__).parent), 40 if "://" in where else 120

    def start(first: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, where, str(first), here, str(calls)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    victim, other = start(0), start(1)
    assert victim.stdout is not None
    for line in victim.stdout:
        if int(line) >= calls // 4:
            victim.kill()
            break
    victim.wait()
    again = start(0)  # tells everything once more
    for process in (other, again):
        process.communicate()
        assert process.returncode == 0
    with open_ledger(where) as ledger:
        book = PromptBook(ledger)
        book.refresh()
        assert ledger.last_seq() == calls
        assert sum(record.n + record.unscored for record in book.prompts().values()) == calls * 3 * 4
