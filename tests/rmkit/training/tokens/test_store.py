"""The token store: rows come back as they went in, and are encoded once, whoever asks and whatever kills it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from rmkit.chat.encode import Chat, TruncationPolicy  # noqa: E402
from rmkit.data.example import EXAMPLE_SCHEMA, read_examples  # noqa: E402
from rmkit.errors import DataError  # noqa: E402
from rmkit.training.data import read_rows  # noqa: E402
from rmkit.training.objectives.bradley_terry import BradleyTerry  # noqa: E402
from rmkit.training.objectives.rankings import PlackettLuce  # noqa: E402
from rmkit.training.objectives.ratings import RatingObjective  # noqa: E402
from rmkit.training.objectives.regression import Regression  # noqa: E402
from rmkit.training.rows import Preference, TrainingRow  # noqa: E402
from rmkit.training.tokens import encode  # noqa: E402
from rmkit.training.tokens.encode import drawn, stored_head, stored_rows  # noqa: E402
from rmkit.training.tokens.store import INDEX, LOCK, UNUSED_DAYS, Changed, remove_unused, write_part  # noqa: E402
from tests.rmkit.training.test_training import example, export, sample  # noqa: E402

Make = Callable[..., Any]


def chat_of(make_tokenizer: Make, chatml: str, **policy: Any) -> Chat:
    return Chat(make_tokenizer(chatml), TruncationPolicy(**{"max_length": 100, "response_reserve_tokens": 50} | policy))


def rows_of(n: int) -> list[dict[str, Any]]:
    """Pairs, ties, lists with ranks, over-long responses and rows of several splits, in no order."""
    rows = sample(n)
    rows[3] |= {"p": [0.5, 0.5]}
    rows[7] |= {"responses": [*rows[7]["responses"], rows[6]["responses"][0]], "p": None, "ranks": [2, 0, 1]}
    rows[9]["responses"] = [rows[9]["responses"][0], example(9, ["x", "quick fox " * 80])["responses"][1]]
    rows[11] |= {"weight": 0.1 + 0.2, "margin": -1.5, "family": 2**40}
    return rows


def test_the_store_has_the_rows_of_the_path_in_memory(
    make_tokenizer: Make, chatml: str, home: Path, tmp_path: Path
) -> None:
    folder, chat = export(tmp_path / "data", rows_of(60)), chat_of(make_tokenizer, chatml)
    for objective, validation in ((BradleyTerry(), False), (BradleyTerry(), True), (PlackettLuce(), False)):
        split = "validation" if validation else "train"
        expected, skipped = read_rows(
            read_examples(folder, split=split), chat, objective=objective, validation=validation
        )
        stored = stored_rows(folder, (split,), chat, objective=objective, validation=validation)
        assert list(stored) == expected
        assert stored.skipped == skipped
        assert stored.truncated == sum(row.truncated for row in expected)
        assert stored.tokens == sum(len(ids) for row in expected for ids in row.ids)
        assert stored[-1] == expected[-1]
        assert stored[2:5] == expected[2:5]
        with pytest.raises(IndexError):
            stored[len(expected)]
    few = stored_rows(folder, ("dev", "train"), chat, objective=BradleyTerry(), at_most=7)
    wanted = drawn((row["id"] for row in rows_of(60) if row["split"] == "train"), 7)
    assert len(few) <= 7
    assert {row.id for row in few} <= wanted
    with pytest.raises(DataError, match=r"no rows in split 'test'; it has: train, validation"):
        stored_rows(folder, ("test",), chat, objective=BradleyTerry())


def test_every_field_survives_to_the_last_bit(tmp_path: Path) -> None:
    row = TrainingRow(
        id="é",
        ids=((2**31, 5), (7,)),
        tokens=(1, 1),
        preferences=(Preference(0, 1, 1 / 3, 0.1), Preference(1, 0, 1.0, 0.9)),
        ranks=(-1, 0),
        margin=1e-300,
        weight=0.1 + 0.2,
        family=-(2**60),
        ratings=((1.5, -0.0), (math.inf, 2.0)),
        step_index=((0, 1), ()),
        step_labels=((0.25, 1 / 7), ()),
        truncated=True,
    )
    plain = replace(row, ids=((1,),), ratings=(), step_index=(), step_labels=(), preferences=(), ranks=(), tokens=(1,))
    part = write_part(tmp_path / "00000.arrow", [row, plain, row], {"a tie": 2})
    assert (part.rows, part.tokens, part.truncated) == (3, 7, 3)
    (tmp_path / LOCK).touch()
    (tmp_path / INDEX).write_text(json.dumps({"parts": [{"rows": 3, "tokens": 7, "truncated": 3, "skipped": {}}]}))
    stored = encode.StoredRows(tmp_path)
    assert repr(list(stored)) == repr([row, plain, row])
    nan = replace(row, step_labels=((math.nan, 1.0), ()))
    write_part(tmp_path / "00000.arrow", [nan] * 3, {})
    assert math.isnan(encode.StoredRows(tmp_path)[1].step_labels[0][0])
    assert Changed(stored, lambda one: replace(one, id="b"))[0] == replace(row, id="b")


def test_what_is_there_is_not_encoded_again_unless_something_changed(
    make_tokenizer: Make, chatml: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, chat = export(tmp_path / "data", rows_of(30)), chat_of(make_tokenizer, chatml)
    texts: list[str] = []
    original = Chat.encode_candidates
    monkeypatch.setattr(Chat, "encode_candidates", lambda *a: texts.append("") or original(*a))

    def encoded(chat: Chat = chat, objective: Any = BradleyTerry(), **more: Any) -> int:  # noqa: B008
        before = len(texts)
        stored_rows(folder, ("train",), chat, objective=objective, **more)
        return len(texts) - before

    assert encoded() > 20
    assert encoded() == 0
    assert encoded(chat_of(make_tokenizer, chatml)) == 0  # another object, the same chat
    assert encoded(chat_of(make_tokenizer, chatml, max_length=90)) > 20
    assert encoded(chat_of(make_tokenizer, chatml.replace("\\n", "\n "))) > 20
    assert encoded(objective=PlackettLuce()) > 20
    assert encoded(validation=True) > 20
    rows = rows_of(30)
    rows[1]["responses"] = rows[1]["responses"][::-1]  # the manifest says nothing of it
    pq.write_table(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), folder / "rows.parquet")
    assert encoded() > 20


def test_parts_that_a_killed_run_left_are_kept(
    make_tokenizer: Make, chatml: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "PART_ROWS", 10)
    folder, chat = export(tmp_path / "data", rows_of(60)), chat_of(make_tokenizer, chatml)
    original, done = encode.Job.encode, []

    def killed(job: encode.Job, number: int) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(number)
        original(job, number)

    monkeypatch.setattr(encode.Job, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        stored_rows(folder, ("train",), chat, objective=BradleyTerry())
    monkeypatch.setattr(encode.Job, "encode", lambda job, number: done.append(number) or original(job, number))
    stored = stored_rows(folder, ("train",), chat, objective=BradleyTerry())
    assert done == [0, 1, 2, 3, 4, 5]
    assert list(stored) == read_rows(read_examples(folder, split="train"), chat, objective=BradleyTerry())[0]


def test_what_ratings_mean_is_learned_once(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(30)
    for number, row in enumerate(rows):
        row["scores"] = [{"response": 0, "aspect": "help", "value": float(number % 4)}]
    folder = export(tmp_path / "data", rows)
    assert stored_head(folder, ("train",), BradleyTerry()) is None
    head = stored_head(folder, ("train",), Regression())
    assert head == Regression().head(read_examples(folder, split="train"))
    monkeypatch.setattr(RatingObjective, "head", lambda *_: pytest.fail("read again"))
    assert stored_head(folder, ("train",), Regression()) == head


@pytest.mark.slow
def test_processes_encode_the_same_rows(make_tokenizer: Make, chatml: str, home: Path, tmp_path: Path) -> None:
    """Two processes over row groups of several sizes; a worker's fault is this process's error of one line."""
    folder, chat = export(tmp_path / "data", rows_of(9000)), chat_of(make_tokenizer, chatml)
    table = pa.Table.from_pylist(rows_of(9000), schema=EXAMPLE_SCHEMA)
    pq.write_table(table, folder / "rows.parquet", row_group_size=5000)
    stored = stored_rows(folder, ("train",), chat, objective=BradleyTerry(), workers=2)
    assert len(stored.parts) == 3
    assert list(stored) == read_rows(read_examples(folder, split="train"), chat, objective=BradleyTerry())[0]
    assert not (stored.folder / "job.pickle").exists()
    size = sum(path.stat().st_size for path in stored.folder.glob("*.arrow"))
    assert size < 4 * stored.tokens + 220 * len(stored)
    os.truncate(stored.folder / "00001.arrow", 100)
    with pytest.raises(DataError, match=r"00001.arrow cannot be read"):
        list(encode.StoredRows(stored.folder))


def test_what_nobody_opens_for_a_month_goes(make_tokenizer: Make, chatml: str, home: Path, tmp_path: Path) -> None:
    folder, chat = export(tmp_path / "data", rows_of(20)), chat_of(make_tokenizer, chatml)
    open_store = stored_rows(folder, ("train",), chat, objective=BradleyTerry())
    idle = stored_rows(folder, ("train",), chat, objective=PlackettLuce()).folder
    used = stored_rows(folder, ("train",), chat, objective=BradleyTerry(), at_most=3).folder
    stale = time.time() - (UNUSED_DAYS + 1) * 86_400
    for store in (open_store.folder, idle, used):
        os.utime(store / LOCK, (stale, stale))
    stored_rows(folder, ("train",), chat, objective=BradleyTerry(), at_most=3)  # opened, though not for long
    remove_unused(home / "tokens")
    assert {path.parent for path in (home / "tokens").glob(f"*/{INDEX}")} == {open_store.folder, used}
    assert len(open_store[:]) == len(open_store)
