"""Who has passed the quiz of a task; every attempt stays in the ledger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.people import Person
from rmkit.errors import DataError, UsageError
from rmkit.ledger import Ledger
from rmkit.types import Event

KIND = "label_quiz"


@dataclass(frozen=True, slots=True)
class QuizResult:
    """`wrong` holds the positions of the questions answered wrongly or not at all."""

    n: int
    needed: int
    wrong: tuple[int, ...]

    @property
    def right(self) -> int:
        return self.n - len(self.wrong)

    @property
    def passed(self) -> bool:
        return self.right >= self.needed


def is_admitted(ledger: Ledger, task: TaskDefinition, person: Person) -> bool:
    """Whether the task has no quiz, or the person has passed this very one (a changed task asks again)."""
    return not task.quiz or ledger.record(KIND, _key(task, person)) is not None


def tries_left(ledger: Ledger, task: TaskDefinition, person: Person) -> int | None:
    """How often the person may still try, None where the task sets no limit."""
    if not task.quiz_tries:
        return None
    tries = (recorded.event.payload for recorded in ledger.events(kinds=[KIND]))
    return task.quiz_tries - sum(bool(one["task"] == task.id and one["rater"] == person.name) for one in tries)


def admit(ledger: Ledger, task: TaskDefinition, person: Person, chosen: Sequence[int | None]) -> QuizResult:
    """Mark an attempt: `chosen` is a choice per question, None where nothing was chosen.

    Raises UsageError where the person has no try left, DataError where there are more or fewer choices than questions.
    """
    if len(chosen) != len(task.quiz):
        raise DataError(f"quiz: {len(chosen)} choices for {len(task.quiz)} questions")
    left = tries_left(ledger, task, person)
    if left is not None and left <= 0:
        raise UsageError(f"{person.name} has used all {task.quiz_tries} tries of this quiz; talk to your lead")
    answers = zip(chosen, task.quiz, strict=True)
    wrong = tuple(position for position, (choice, one) in enumerate(answers) if choice != one.answer)
    result = QuizResult(len(task.quiz), math.ceil(task.quiz_pass * len(task.quiz) - 1e-9), wrong)
    summary = {"task": task.id, "rater": person.name, "chosen": list(chosen), "right": result.right}
    ledger.append(Event(kind=KIND, actor=person.name, payload=summary | {"passed": result.passed}))
    if result.passed:
        ledger.put(KIND, _key(task, person), {"right": result.right, "n": result.n})
    return result


def feedback(task: TaskDefinition, result: QuizResult) -> list[str]:
    """What the task's lead wants said after a try that did not pass, a line each."""
    lines = [f"{result.right} of {result.n} right, {result.needed} are needed. Read the guidelines again, then retry."]
    if task.quiz_feedback == "count":
        return lines
    for position in result.wrong:
        question = task.quiz[position]
        right = f" Right is: {question.choices[question.answer]}" if task.quiz_feedback == "answers" else ""
        lines.append(f"Not right: {question.text}{right}")
    return lines


def _key(task: TaskDefinition, person: Person) -> str:
    return f"{task.id}/{person.name}"
