"""CIPHER: preferences inferred from a user's edits, and found again for the next context (arXiv:2404.15269).

    cost = edit distance of draft and edit in words
    cost >= least    infer a preference from (context, draft, edit) and store it
    else             the user was content: what was used is stored once more, under this context
    next context     the preferences of its k nearest, joined

What infers and joins comes from the caller, usually a language model; without `join` the distinct texts are listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rmkit.memory.edit_distance import edit_distance
from rmkit.memory.memory import Entry, Memory

Infer = Callable[[str, str, str], str]
Join = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class Observation:
    """`cost` in words; `stored` is the preference that is now remembered for the context, None where there is none."""

    cost: int
    stored: str | None


def listed(preferences: Sequence[str]) -> str:
    """The distinct preferences, one a line."""
    return "\n".join(dict.fromkeys(preferences))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cipher:
    """`least`: an edit of fewer words says nothing."""

    memory: Memory
    infer: Infer
    join: Join = listed
    k: int = 3
    least: int = 1

    def preference(self, context: str) -> str:
        """What to add to the prompt for this context; empty where nothing is remembered."""
        near = self.memory.nearest(context, self.k)
        return self.join([one.entry.text for one in near]) if near else ""

    def observe(self, context: str, draft: str, edited: str, *, used: str = "") -> Observation:
        """Learn from what a user made of a draft that was written under the preference `used`."""
        cost = edit_distance(draft, edited)
        preference = self.infer(context, draft, edited) if cost >= self.least else used
        if preference.strip():
            self.memory.add(Entry(context=context, text=preference))
        return Observation(cost, preference.strip() or None)
