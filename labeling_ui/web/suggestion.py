"""A suggestion on the annotate page: in words beside the person's own first choice, or in the field of an edit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from labeling_ui.desk.answers import says
from labeling_ui.desk.desk import Desk
from labeling_ui.desk.leases import Lease
from labeling_ui.desk.suggestions import in_places
from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.web.answer_words import first_wrong, steps_in_words
from labeling_ui.web.forms import NAMES
from labeling_ui.web.texts import harmless


def in_words(task: TaskDefinition, n: int, values: Mapping[str, Any]) -> str:
    """`B is better`, `tie`, `1. C, 2. A = B`, `truth: A 4, B 2`, `step 3 is wrong`; `n` responses as shown."""
    if ranks := values.get("ranks"):
        places = sorted({rank for rank in ranks if rank is not None})
        named = [" = ".join(NAMES[at] for at, rank in enumerate(ranks) if rank == one) for one in places]
        if n == 2:
            return "tie" if len(named) == 1 else f"{named[0]} is better"
        return ", ".join(f"{number}. {who}" for number, who in enumerate(named, start=1))
    if scores := values.get("scores"):
        by_aspect: dict[str, list[str]] = {}
        for one in sorted(scores, key=lambda one: (one["aspect"], one["response"])):
            who = f"{NAMES[one['response']]} " if n > 1 else ""
            by_aspect.setdefault(one["aspect"], []).append(f"{who}{one['value']:g}")
        return "; ".join(f"{aspect}: {', '.join(rated)}" for aspect, rated in by_aspect.items())
    if steps := values.get("step_labels"):
        return steps_in_words(first_wrong(steps))
    if (value := values.get("value")) is not None:
        return str(task.reactions[round((value + 1) * (len(task.reactions) - 1) / 2)])
    return "an edit"


def show_suggestion(desk: Desk, hold: Lease) -> bool:
    """What the person may see by now; whether that is beside a choice of their own, which they may then keep."""
    suggestion, first = desk.suggested(hold), desk.first_choice(hold)
    if suggestion is None:
        return False
    if first is None:
        st.info("The text below is a suggestion: it may be wrong. Change what you would.", icon=":material/edit_note:")
        return False
    own = in_places(says(desk.task, desk.items[hold.item], hold.order, first), hold.order)
    yours, suggested = (in_words(desk.task, len(hold.order), values) for values in (own, suggestion))
    note = f"You said: {yours}. Suggested: {suggested}. It may be wrong: press K to keep yours, or answer again."
    st.info(harmless(note), icon=":material/assistant:")
    return True


def prefilled(desk: Desk, hold: Lease) -> dict[str, Any]:
    """The draft of an edit that begins with what is suggested; empty where nothing is."""
    suggestion = desk.suggested(hold) if desk.task.suggestions == "prefilled" else None
    if suggestion is None:
        return {}
    place = suggestion["edited"]
    text = next(turn["content"] for turn in reversed(suggestion["edit"]) if turn["role"] == "assistant")
    return {"place": place, "texts": {str(place): text}}
