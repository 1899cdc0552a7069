"""Who has passed the quiz of a task; every attempt stays in the ledger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.people import Person
from rmkit.ledger import Ledger
from rmkit.types import Event

KIND = "label_quiz"


@dataclass(frozen=True, slots=True)
class QuizResult:
    right: int
    n: int
    needed: int

    @property
    def passed(self) -> bool:
        return self.right >= self.needed


def is_admitted(ledger: Ledger, task: TaskDefinition, person: Person) -> bool:
    """Whether the task has no quiz, or the person has passed this very one (a changed task asks again)."""
    return not task.quiz or ledger.record(KIND, _key(task, person)) is not None


def admit(ledger: Ledger, task: TaskDefinition, person: Person, chosen: Sequence[int | None]) -> QuizResult:
    """Mark an attempt: `chosen` is a choice per question, None where nothing was chosen."""
    right = sum(inputs == question.answer for inputs, question in zip(chosen, task.quiz, strict=True))
    result = QuizResult(right, len(task.quiz), math.ceil(task.quiz_pass * len(task.quiz) - 1e-9))
    summary = {"task": task.id, "rater": person.name, "chosen": list(chosen), "right": right, "passed": result.passed}
    ledger.append(Event(kind=KIND, actor=person.name, payload=summary))
    if result.passed:
        ledger.put(KIND, _key(task, person), {"right": right, "n": result.n})
    return result


def _key(task: TaskDefinition, person: Person) -> str:
    return f"{task.id}/{person.name}"
