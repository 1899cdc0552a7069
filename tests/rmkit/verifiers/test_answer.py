"""math-verify in processes: what it knows, what cannot be read, a comparison that never ends, a worker that dies."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from rmkit.verifiers.process_pool import ProcessPool
from tests.rmkit.verifiers.verified import scores, value

pytest.importorskip("math_verify")


def test_answers_by_meaning_from_any_thread() -> None:
    rows: list[object] = []

    def verify() -> None:
        rows.extend(scores("answer", r"2\sqrt{3}", r"so \boxed{\sqrt{12}}", r"\boxed{\sqrt{11}}", "no answer"))

    thread = threading.Thread(target=verify)
    thread.start()
    thread.join()
    assert [one.value for one in rows] == [1, 0, 0]  # type: ignore[attr-defined]
    assert value("answer", "x+1", r"\boxed{1+x}") == 1
    assert value("answer", "x<3", r"\boxed{(-\infty,3)}") == 1
    assert value("answer", "10:30", "the answer is 10:30") == 1
    assert value("answer", "0.333333", r"\boxed{\frac{1}{3}}") == 1
    assert value("answer", "0.333333", r"\boxed{\frac{1}{3}}", digits=8) == 0
    assert value("answer", "72", "the answer is 72.0") == 1


@pytest.mark.parametrize("reference", ["No", r"\text{A}", r"\frac{"])
def test_a_reference_that_is_no_mathematics_is_unscored_even_for_the_same_words(reference: str) -> None:
    why = f"the reference answer {reference!r} cannot be read as mathematics"
    assert [one.unscored for one in scores("answer", reference, reference, "5")] == [why, why]
    assert value("answer", None, "72") == "there is no reference answer to verify against"


def test_a_task_that_never_ends_is_killed_and_the_next_one_served() -> None:
    pool = ProcessPool("time:sleep", processes=1)
    try:
        [late, after] = pool.map([(60,), (0,)], timeout_s=0.3)
        assert (late.failure, after.failure) == ("no result within 0.3 s", None)
        worker = pool._workers.get_nowait()
        pool._workers.put(worker)
        assert worker._process is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        assert pool.map([(0,)], timeout_s=5)[0].failure is None  # a new worker
        assert "TypeError" in str(pool.map([("x",)], timeout_s=5)[0].failure)
    finally:
        pool.close()


@pytest.mark.slow
def test_a_tower_of_powers_does_not_stall() -> None:
    assert value("answer", "9^{9^{9}}", r"\boxed{3}", timeout_s=2) == (
        "the answers could not be compared: no result within 2 s"
    )


@pytest.mark.slow
def test_puzzles_by_their_own_solver() -> None:
    import json

    gym = pytest.importorskip("reasoning_gym")
    entry = gym.create_dataset("basic_arithmetic", size=1, seed=3)[0]
    reference = json.dumps(entry)
    assert value("puzzle", reference, f"so <answer>{entry['answer']}</answer>") == 1
    assert value("puzzle", reference, "<answer>x</answer>") < 1
    assert "no entry of reasoning-gym" in str(value("puzzle", "{}", "x"))
    assert "could not be scored" in str(value("puzzle", '{"metadata": {"source_dataset": "nonsense"}}', "x"))
