"""Experience as text: lessons from groups with both right and wrong answers, edited in place (training-free GRPO).

A group whose answers all came out alike says nothing. From the others a language model writes operations on the list of
lessons, a JSON array of

    {"option": "add", "experience": TEXT}
    {"option": "modify", "experience": TEXT, "modified_from": ID}
    {"option": "delete", "delete_id": ID}            arXiv:2510.08191; converter `requests`, ask = "lesson"

Operations of one batch refer to the list as it stood before the batch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from rmkit.errors import DataError

Lessons = Mapping[str, str]


def mixed(outcomes: Sequence[float], *, right: float = 0.5) -> bool:
    """Whether a group holds a right and a wrong answer; unknown outcomes (NaN) are neither."""
    known = [value >= right for value in outcomes if not math.isnan(value)]
    return any(known) and not all(known)


def revised(lessons: Lessons, operations: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """The lessons after a batch of operations; ids (E1, E2 ...) are never used twice.

    Raises DataError for an unknown operation, id, or an operation without its text.
    """
    result = dict(lessons)
    number = max((int(name[1:]) for name in lessons if re.fullmatch(r"E\d+", name)), default=0)
    for one in operations:
        option, text = one.get("option"), one.get("experience")
        target = str(one.get("delete_id" if option == "delete" else "modified_from"))
        if option not in ("add", "modify", "delete"):
            raise DataError(f"an operation is add, modify or delete, got {option!r}")
        if option != "delete" and (not isinstance(text, str) or not text.strip()):
            raise DataError(f"operation {option} has no experience")
        if option != "add" and target not in lessons:
            raise DataError(f"operation {option} names {target}; there are {', '.join(lessons) or 'no lessons'}")
        if option == "delete":
            result.pop(target, None)
        elif option == "modify":
            result[target] = str(text).strip()
        else:
            number += 1
            result[f"E{number}"] = str(text).strip()
    return result


def operations_in(reply: str) -> list[dict[str, object]]:
    """The operations in a model's reply: its last JSON array, in a fence or not. Raises DataError without one."""
    decoder = json.JSONDecoder()
    for start in reversed([match.start() for match in re.finditer(r"\[", reply)]):
        try:
            value, _ = decoder.raw_decode(reply, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return value
    raise DataError("the reply holds no JSON array of operations")


def in_prompt(lessons: Lessons) -> str:
    """The lessons as a part of a prompt; empty without any."""
    return "\n".join(f"[{name}] {text}" for name, text in lessons.items())
