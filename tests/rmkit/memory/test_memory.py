"""Memories: edit distances, nearest entries, preferences from edits, cases with outcomes, lessons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmkit.cli import main as cli
from rmkit.errors import DataError
from rmkit.memory.cases import CaseScorer, Trial
from rmkit.memory.cipher import Cipher
from rmkit.memory.edit_distance import edit_distance
from rmkit.memory.experience import in_prompt, mixed, operations_in, revised
from rmkit.memory.memory import Entry, Memory, hashed_words, load_memory


@pytest.mark.parametrize(
    ("draft", "edited", "words"),
    [("", "", 0), ("a b", "", 2), ("", "a b c", 3), ("a b c", "a x c", 1), ("a b c", "b c d", 2), ("a  b", "a b", 0)],
)
def test_edits_are_counted_in_words(draft: str, edited: str, words: int) -> None:
    assert edit_distance(draft, edited) == words


@given(one=st.lists(st.sampled_from("abc"), max_size=8), other=st.lists(st.sampled_from("abc"), max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_distance_is_levenshteins(one: list[str], other: list[str]) -> None:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i in range(len(one) + 1):
        for j in range(len(other) + 1):
            options = [i + j] if not i or not j else []
            if i and j:
                options = [table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (one[i - 1] != other[j - 1])]
            table[i][j] = min(options)
    assert edit_distance(" ".join(one), " ".join(other)) == table[-1][-1]


def test_the_nearest_entries_come_first_and_the_newer_of_equal_ones(tmp_path: Path) -> None:
    memory = Memory(hashed_words)
    memory.add(Entry(context="mail to a landlord", text="old"), Entry(context="recipe for soup", text="soup"))
    memory.add(Entry(context="landlord mail to a", text="new"))
    assert [one.entry.text for one in memory.nearest("mail to the landlord", 2)] == ["new", "old"]
    assert memory.nearest("soup recipe for", 1)[0].similarity == pytest.approx(1)
    memory.save(tmp_path / "memory.jsonl")
    again = load_memory(tmp_path / "memory.jsonl", hashed_words)
    assert again.entries == memory.entries
    assert [one.entry.text for one in again.nearest("mail to the landlord", 2)] == ["new", "old"]
    assert load_memory(tmp_path / "none.jsonl", hashed_words).nearest("x") == []
    (tmp_path / "bad.jsonl").write_text('{"context": 1}\n')
    with pytest.raises(DataError, match="line 1"):
        load_memory(tmp_path / "bad.jsonl", hashed_words)
    with pytest.raises(DataError, match="needs a text"):
        memory.add(Entry(context="x", text=" "))


TOPICS = {
    "chat": (["pub", "friend", "weekend", "party"], "casual"),
    "law": (["court", "contract", "clause", "judge"], "formal"),
    "science": (["cell", "atom", "orbit", "enzyme"], "short"),
}
DRAFT = ["here", "is", "a", "long", "text", "about", "the", "matter", "with", "every", "detail", "that", "there", "is"]


def written(preference: str) -> str:
    """What the writer makes of its draft under a preference; without one the draft as it is."""
    style = {"casual": ["hey", *DRAFT, "cheers"], "formal": ["dear", "reader", *DRAFT], "short": DRAFT[:4]}
    return " ".join(style.get(preference, DRAFT))


def cumulative_cost(seed: int, *, remembers: bool) -> list[int]:
    """Of 90 drafts for users of three topics, each with a hidden rule; the writer obeys what it remembers."""
    rng = np.random.default_rng(seed)

    def infer(context: str, draft: str, edited: str) -> str:
        return next(rule for _, rule in TOPICS.values() if written(rule) == edited)

    def most(preferences: Sequence[str]) -> str:
        return max(dict.fromkeys(preferences), key=preferences.count)

    cipher = Cipher(memory=Memory(hashed_words), infer=infer, join=most)
    total, costs = 0, []
    for _ in range(90):
        topic, rule = TOPICS[str(rng.choice(sorted(TOPICS)))]
        context = " ".join(rng.choice(topic, size=3))
        used = cipher.preference(context) if remembers else ""
        draft = written(used)
        total += cipher.observe(context, draft, written(rule), used=used).cost
        costs.append(total)
    return costs


def test_preferences_from_edits_save_edits() -> None:
    for seed in range(5):
        with_memory, without = (cumulative_cost(seed, remembers=one) for one in (True, False))
        assert with_memory[-1] < 0.25 * without[-1]
        assert with_memory[-1] == with_memory[40]  # every topic is known: nothing is left to edit


def test_a_user_who_changes_nothing_confirms_what_was_used() -> None:
    cipher = Cipher(memory=Memory(hashed_words), infer=lambda context, draft, edited: f"not {draft}", least=2)
    first = cipher.observe("tea", "a b", "c d")
    assert (first.cost, first.stored) == (2, "not a b")
    typo = cipher.observe("coffee", "a b", "a c", used="be kind")
    assert (typo.cost, typo.stored) == (1, "be kind")
    assert cipher.observe("milk", "a", "a").stored is None
    assert [one.text for one in cipher.memory.entries] == ["not a b", "be kind"]
    assert set(cipher.preference("coffee tea").split("\n")) == {"not a b", "be kind"}


def test_cases_that_helped_come_before_cases_that_are_near() -> None:
    rng = np.random.default_rng(1)
    words = ["alpha", "beta", "gamma", "delta"]
    memory = Memory(hashed_words)
    for word in words:
        memory.add(*(Entry(context=f"{word} task {n}", text=f"{word} {n}", value=float(n % 2)) for n in range(4)))
    trials = []
    for _ in range(300):
        word, entry = str(rng.choice(words)), memory.entries[int(rng.integers(len(memory.entries)))]
        same = entry.context.startswith(word)
        chance = 0.9 if same and entry.value else 0.3 if same else 0.05
        trials.append(Trial(f"{word} task", entry, float(rng.random() < chance)))
    scorer = CaseScorer.fit(trials, hashed_words)
    for word in words:
        chosen = scorer.choose(memory, f"{word} task", 2)
        assert {one.entry.text for one in chosen} == {f"{word} 1", f"{word} 3"}
        assert all(0 <= one.similarity <= 1 for one in chosen)
    assert scorer.choose(Memory(hashed_words), "alpha") == []


def test_lessons_come_from_mixed_groups_and_are_edited_in_place() -> None:
    assert [mixed(one) for one in ([1, 0], [1, 1], [0], [float("nan"), 1], [])] == [True, False, False, False, False]
    reply = 'So:\n```json\n[{"option": "add", "experience": "Check the units. "}]\n```'
    lessons = revised({}, operations_in(reply))
    assert lessons == {"E1": "Check the units."}
    batch = [
        {"option": "modify", "experience": "Check units first.", "modified_from": "E1"},
        {"option": "add", "experience": "Draw it."},
    ]
    lessons = revised(lessons, batch)
    assert in_prompt(lessons) == "[E1] Check units first.\n[E2] Draw it."
    assert revised(lessons, [{"option": "delete", "delete_id": "E1"}]) == {"E2": "Draw it."}
    assert revised({"E2": "Draw it."}, [{"option": "add", "experience": "x"}]) == {"E2": "Draw it.", "E3": "x"}
    for wrong in ({"option": "drop"}, {"option": "add"}, {"option": "delete", "delete_id": "E9"}):
        with pytest.raises(DataError):
            revised(lessons, [wrong])
    with pytest.raises(DataError, match="no JSON array"):
        operations_in("none [1, 2]")


def test_a_memory_on_the_command_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": f"task {name}", "response": f"did {name}", "score": at} for at, name in enumerate(("tea", "soup"))
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["ingest", str(tmp_path / "cases.jsonl")]) == 0
    store = str(tmp_path / "memory.jsonl")
    assert cli.main(["memory", "add", store, "cases", "--aspect", "score"]) == 0
    assert cli.main(["memory", "add", store, "cases", "--aspect", "score"]) == 0  # known entries are not added again
    capsys.readouterr()
    assert cli.main(["memory", "search", store, "another task soup", "-k", "1", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert (entry["text"], entry["value"]) == ("did soup", 1)
    assert len((tmp_path / "memory.jsonl").read_text().splitlines()) == 2
    assert cli.main(["memory", "search", str(tmp_path / "none"), "x"]) == 2
