"""Which column says what was judged: a verdict on two replies, or a number or truth of one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_pipelines.sources.inference.columns import Column, Guess
from data_pipelines.sources.inference.names import EXTRAS, LABELS, tokens
from data_pipelines.sources.verdicts import Values, Verdict, as_number, as_text, verdict

# words in names of columns that say where a reply stood, or how rows were grouped, and never which reply is better
_MOVED = {"swap", "swapped", "swaps", "flip", "flipped", "reversed", "mirrored"}
_PLACES = {"left", "right", "first", "order", "shown", "position", "screen", "display", "displayed"}
_NO_VERDICT = {
    *("order", "shown", "first", "position", "side", "arm", "group", "variant", "condition", "random", "batch", "type"),
    *("category", "class", "split", "model", "which", "target", "control"),
}


def preference(result: Guess, free: dict[str, Column], values: Values | None) -> None:
    sides = [[result.roles[role]] for role in ("response_a", "response_b")]
    for at, role in enumerate(("model_a", "model_b")):
        sides[at] += [name for name in EXTRAS[role] if name in free]

    names = [name for role in ("model_a", "model_b") for name in EXTRAS[role] if name in free]
    models = {name for column in names for name in free[column].counts}

    def read(value: Any) -> Verdict | None:
        return verdict(value, values, sides)

    def known(column: Column) -> bool:
        """Whether its values are verdicts: half of them where the name says so, else all."""
        texts = {str(value) for value in column.values if not isinstance(value, Mapping | list)}
        n_known = sum(text in models or read(text) is not None for text in texts) if len(texts) <= 40 else 0
        return bool(n_known) and (2 * n_known >= len(texts) if _label_word(column.name) else n_known == len(texts))

    if shown_elsewhere := [name for name in free if _MOVED & set(tokens(name)) and len(free[name].counts) > 1]:
        result.open.append(
            "whether the verdict names the reply's column or its place on the screen: "
            f"{', '.join(shown_elsewhere)} may say that places were swapped; put them back first, or --map "
            "preference=COLUMN if it names the columns"
        )
        return
    listed = [name for name, column in free.items() if _vote_keys(column) is not None]
    if len(listed) == 1:
        key, _ = _vote_keys(free[listed[0]]) or ("", "")
        result.take("votes", listed[0], f"a list of verdicts ({key})")
        free.pop(listed[0])
        return
    hot = _one_hot(free)
    named = [name for name in free if _label_word(name) is not None]
    telling = [name for name in free if known(free[name]) and (name in named or not _NO_VERDICT & set(tokens(name)))]
    places = [name for name in free if name not in named and _PLACES & set(tokens(name)) and known(free[name])]
    if places and any(_is_of_places(free[name]) for name in telling if name not in places):
        result.open.append(
            f"which reply stood left or first: {', '.join(places)} may say so, a row at a time; write the reply's own "
            "column as the verdict, or --map preference=COLUMN if left always is the first reply"
        )
        return
    both = [name for name in _by_rank(named) if name in telling]
    if hot and not both:
        result.take("preference", "|".join(hot), "one of these is set")
        for name in hot:
            free.pop(name)
    elif len(both) > 1 and _differ(free, both, read):
        result.open.append(f"which holds the verdict: {' or '.join(both)} say different things")
    elif both:
        result.take("preference", both[0], f"name; {shown(free[both[0]])}")
        free.pop(both[0])
    elif len(telling) == 1 and not named:
        result.take("preference", telling[0], f"its values name the replies; {shown(free[telling[0]])}")
        free.pop(telling[0])
    elif named:
        name = _by_rank(named)[0]
        counts = free[name].counts
        if len(counts) <= 40:
            result.open.append(f"what the values of {name} mean: {shown(free[name])}")
            result.suggestion = f"--values {shlex.quote(open_values(list(counts)))}"
            result.take("preference", name, f"name; {shown(free[name])}")
            free.pop(name)
    elif len(telling) > 1:
        result.open.append(
            f"which holds the verdict: {' or '.join(telling)}; if each is a rater, --wide {','.join(telling)}"
        )


def _is_of_places(column: Column) -> bool:
    """Whether verdicts name places on a screen."""
    return any({"left", "right", "first", "second"} & set(tokens(value)) for value in column.counts)


def _differ(free: Mapping[str, Column], names: Sequence[str], read: Callable[[Any], Verdict | None]) -> bool:
    """Whether columns give different verdicts, as far as a sample without empty cells tells."""
    sizes = {len(free[name].values) for name in names}
    rows = zip(*(free[name].values for name in names), strict=False)
    return len(sizes) > 1 or any(len({v.side for one in row if (v := read(one))}) > 1 for row in rows)


def open_values(values: Sequence[str]) -> str:
    """What --values could say of labels, with a ? for each meaning: which reply a label prefers is never suggested,
    since what is suggested gets pasted. Of a signed or an odd scale the ends are ranges.
    """
    numbers = sorted(number for value in values if (number := as_number(value)) is not None)
    if len(numbers) == len(values) and numbers and numbers[0] < 0:
        return f"{numbers[0]:g}..-1=?,0=?,1..{max(numbers[-1], 1):g}=?"
    if len(numbers) == len(values) and len(numbers) > 4 and numbers == [numbers[0] + at for at in range(len(numbers))]:
        low, high, size = numbers[0], numbers[-1], len(numbers) // 2
        middle = f"{low + size:g}=?," if len(numbers) % 2 else ""
        return f"{low:g}..{low + size - 1:g}=?,{middle}{high - size + 1:g}..{high:g}=?"
    ordered = [as_text(number) for number in numbers] if len(numbers) == len(values) else sorted(values)
    return ",".join(f"{value}=?" for value in ordered)


def _vote_keys(column: Column) -> tuple[str, str | None] | None:
    """(key of the verdict, key of the rater) where every value is a list of objects that each hold a verdict."""
    votes = [vote for value in column.values if isinstance(value, list) for vote in value]
    if not votes or not all(isinstance(vote, Mapping) for vote in votes):
        return None
    keys = sorted({str(key) for vote in votes for key in vote})
    labels = [key for key in keys if key.lower() in LABELS and all(isinstance(vote.get(key), str) for vote in votes)]
    raters = [key for key in keys if key.lower() in EXTRAS["rater"]]
    return (labels[0], raters[0] if len(raters) == 1 else None) if len(labels) == 1 else None


def vote_keys(votes: Sequence[Any]) -> tuple[str, str | None] | None:
    """The same of the list of one row."""
    return _vote_keys(Column("votes", (list(votes),)))


def _by_rank(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (LABELS.index(_label_word(name) or ""), name))


def _label_word(name: str) -> str | None:
    """The label's word that a column is named, alone or as the first part of "preference.selection"; None for
    others.
    """
    spelled = re.split(r"[.: ]", name.lower(), maxsplit=1)[0]
    return spelled if spelled in LABELS else None


def _one_hot(free: Mapping[str, Column]) -> list[str]:
    """Columns WINNER_a, WINNER_b, WINNER_tie that hold 0 and 1."""
    ones = [
        name
        for name, c in free.items()
        if c.values and {as_text(v).lower() for v in c.values} <= {"0", "1", "true", "false"}
    ]
    sides: dict[str, dict[str, str]] = {}
    for name in ones:
        words = tokens(name)
        if words and words[-1] in ("a", "b", "tie") and len(words) > 1:
            stem = " ".join(word for word in words[:-1] if word != "model")
            sides.setdefault(stem, {})[words[-1]] = name
    full = [group for group in sides.values() if {"a", "b"} <= set(group)]
    return [full[0][side] for side in ("a", "b", "tie") if side in full[0]] if len(full) == 1 else []


def score(result: Guess, free: dict[str, Column], values: Values | None) -> None:
    for name in ("score", "rating", "overall_score", "reward", "grade", "overall"):
        if name in free and "score" not in result.roles:
            result.take("score", name, "name")
            free.pop(name)
            return
    if "score" in result.roles or any(role.startswith("score.") for role in result.roles):
        return
    for name in ("label", "is_good", "thumb", "thumbs", "liked", "desirable", "is_correct", "correct"):
        if name in free and free[name].values and len(free[name].counts) <= 4:
            stated = values is not None and set(free[name].counts) <= set(values.numbers)
            if name == "label" and free[name].is_number() and not stated:
                result.open.append(f"what the values of {name} mean: {shown(free[name])}")
                result.suggestion = f"--values {shlex.quote(open_values(list(free[name].counts)))}"
            result.take("label", name, f"name; {shown(free[name])}")
            free.pop(name)
            return


def shown(column: Column, limit: int = 8) -> str:
    counts = column.counts
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]
    more = f", {len(counts) - limit} more" if len(counts) > limit else ""
    return ", ".join(f"{value!r} {count}" for value, count in top) + more
