"""One small project for each task, and the keys with which one of its items is answered."""

from __future__ import annotations

from typing import Any

N = 3  # items of each project

PAIRS = [
    {"prompt": f"Question {n}?", "chosen": f"Yes, {n} is right. It is right twice.", "rejected": f"No {n}."}
    for n in range(N)
]
LISTS = [
    {
        "prompt": f"Name {n}",
        "responses": [f"Name {n} is {k}." for k in range(4)],
        "scores": [float(k) for k in range(4)],
        "rubric": [{"criterion": "Is it right?"}, {"criterion": "Is it short?", "levels": {"1": "no", "2": "yes"}}],
    }
    for n in range(N)
]
SINGLES = [{"prompt": f"Question {n}?", "completion": f"Answer {n}.", "label": True} for n in range(N)]
STEPS = [
    {
        "problem": f"Problem {n}?",
        "steps": [f"{n} + {k}." for k in range(12)],
        "label": -1,
        "final_answer_correct": True,
    }
    for n in range(N)
]
TRACES = [
    {
        "prompt": [{"role": "user", "content": f"Fix {n}"}],
        "completion": [
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "name": "read", "content": "it is broken\n" * 50},
            {"role": "assistant", "content": "Done."},
        ],
        "label": True,
    }
    for n in range(N)
]

# What is pressed for one item of each task, and what the first answer must say.
TASKS: dict[str, tuple[list[dict[str, Any]], str, list[str]]] = {
    "pairwise": (PAIRS, "pairwise", ["7"]),
    "reason": (PAIRS, "pairwise", ["t", "text:B is right", "Escape", "1"]),
    "reaction": (SINGLES, "reaction", ["2"]),
    "steps": (STEPS, "steps", ["1", "2"]),
    "ranking": (LISTS, "ranking", ["2", "1", "1", "4", "Enter"]),
    "ratings": (LISTS, "ratings", ["5", "ArrowRight", "3", "ArrowLeft", "Backspace", "Enter"]),
    "rubric": (LISTS, "rubric", ["1", "0", "1", "ArrowDown", "2", "Enter"]),
    "rubric_review": (LISTS, "rubric_review", ["1", "2", "t", "text: And is it kind?", "Escape", "Enter"]),
    "turns": (TRACES, "turns", ["1", "3", "Enter"]),
    "trace": (TRACES, "trace", ["ArrowDown", "3", "Enter"]),
    "spans": (PAIRS, "spans", ["ArrowRight", "Shift+ArrowRight", "1", "n", "3", "Backspace", "Enter"]),
    "edit": (PAIRS, "edit", ["2", "t", "text: Or so.", "Control+Enter"]),
}
