"""Roles of the columns of a table that no published form knows: by name, type, length, distinct values and by how
columns relate (two texts of one kind and a column that names one of them are votes).

Only what is clear is taken; two columns that could both be the prompt, or numbers as verdicts, are left open and said.
Nothing here depends on the order of columns or rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from data_pipelines.sources import paths
from data_pipelines.sources.form import TEXT_ROLES
from data_pipelines.sources.inference import labels, raters
from data_pipelines.sources.inference.columns import Column, Guess, columns_of
from data_pipelines.sources.inference.names import CONTEXTS, EXTRAS, NO_REPLY, PROMPTS, is_extra, tokens
from data_pipelines.sources.inference.replies import replies
from data_pipelines.sources.unit_builder import Row
from data_pipelines.sources.verdicts import Values


def guess(
    rows: Sequence[Row],
    *,
    given: Mapping[str, str] | None = None,
    values: Values | None = None,
    wide: Sequence[str] = (),
) -> Guess:
    """Roles for a sample of rows. `given` are the user's, which stay; columns that they name are used up."""
    columns = columns_of(rows)
    result = Guess(dict(given or {}), dict.fromkeys(given or {}, "--map"))
    used = {name for path in (given or {}).values() for name in paths.parse(path).columns}
    free = {name: column for name, column in columns.items() if name not in used and name not in wide}
    texts = {
        role for role in ("chosen", "response_a", "responses", "response", "talk", "steps") if role in result.roles
    }
    if not texts:
        replies(result, free)
    if not given or "prompt" not in given:
        _prompt(result, free)
    if "response_a" in result.roles and "preference" not in result.roles and not wide:
        labels.preference(result, free, values)
    if "response" in result.roles:
        labels.score(result, free, values)
    _extras(result, free)
    _check_id(result, rows)
    _check_context(result, free)
    authors = ("model", "model_a", "model_b", "chosen_model", "rejected_model")
    models = {name for role in authors if (own := columns.get(result.roles.get(role, ""))) for name in own.counts}
    raters.take_kind(result, columns, wide, models)
    result.texts_left = [
        name for name, column in free.items() if column.is_reply() and not (column.is_number() or column.is_time())
    ]
    return result


def _prompt(result: Guess, free: dict[str, Column]) -> None:
    if "talk" in result.roles and "prompt" not in result.roles:
        return
    names = {name.lower(): name for name in free}
    for target in PROMPTS:
        name = names.get(target)
        if (
            name is None
            or not free[name].values
            or (free[name].is_number() and target in ("q", "x", "task", "input", "text"))
        ):
            continue
        if target == "instruction" and "input" in names:
            result.take("prompt", f"{name}+{names['input']}", "names")
            free.pop(names["input"])
        else:
            result.take("prompt", name, "name")
        free.pop(name)
        return
    sides = [result.roles[role] for role in ("chosen", "response_a") if role in result.roles]
    if not sides and "response" not in result.roles and "responses" not in result.roles:
        return
    texts = [
        n
        for n, c in free.items()
        if c.is_reply()
        and not c.is_time()
        and c.mean_length >= 12
        and len(c.counts) > min(3, len(c.values) - 1)
        and not any(NO_REPLY.fullmatch(token) for token in tokens(n))
        and not is_extra(n)
    ]
    if len(texts) == 1 and sides:
        result.take("prompt", texts[0], "the only other long text")
        free.pop(texts[0])
    elif len(texts) > 1:
        result.open.append(f"which is the prompt: {' or '.join(texts[:6])}")


def _extras(result: Guess, free: dict[str, Column]) -> None:
    names = {name.lower(): name for name in free}
    pair = "chosen" in result.roles
    for role, spellings in EXTRAS.items():
        target = {"score_chosen": "score_a", "score_rejected": "score_b"}.get(role, role)
        if target in result.roles or (role.startswith("score_") and not pair):
            continue
        if (role in ("chosen_model", "rejected_model") and not pair) or (role in ("model_a", "model_b") and pair):
            continue
        if role == "model" and "response" not in result.roles:
            continue
        name = next((names[spelling] for spelling in spellings if spelling in names and names[spelling] in free), None)
        if name is None or not _fits(role, free[name]):
            continue
        result.take(target, name, "name")
        free.pop(name)
    if ("score_a" in result.roles) != ("score_b" in result.roles) and pair:
        result.roles.pop("score_a", None)
        result.roles.pop("score_b", None)


def _fits(role: str, column: Column) -> bool:
    if role in ("margin", "score_chosen", "score_rejected", "duration"):
        return all(not isinstance(value, Mapping | list) for value in column.values)
    if role in ("subset", "split", "license", "system", "language"):
        return all(isinstance(value, str) for value in column.values)
    if role == "history":
        return all(isinstance(value, list) for value in column.values)
    if role in ("rubric", "reference"):
        return bool(column.values)
    return True


def _check_id(result: Guess, rows: Sequence[Row]) -> None:
    """An id whose rows hold different texts more often than not belongs to the prompt, or to anything but the row."""
    texts = [result.roles[role] for role in TEXT_ROLES if role in result.roles]
    if result.why.get("id") != "name" or not texts:
        return
    contents: dict[str, set[str]] = {}
    repeats = 0
    for row in rows:
        own = contents.setdefault(str(row.get(result.roles["id"])), set())
        repeats += bool(own)
        own.add(json.dumps([row.get(name) for name in texts], sort_keys=True, default=str))
    conflicts = [one for one in contents.values() if len(one) > 1]
    if len(conflicts) > 1 and 2 * sum(len(one) - 1 for one in conflicts) > repeats:
        result.notes.append(f"{result.roles['id']} repeats with other texts: it is no row's own id and stays in meta")
        del result.roles["id"], result.why["id"]


def _check_context(result: Guess, free: Mapping[str, Column]) -> None:
    """Say so where a text that the replies may rest on is left out of the prompt."""
    left = [name for name, column in free.items() if name.lower() in CONTEXTS and column.is_reply()]
    if left and "prompt" in result.roles and result.why.get("prompt") != "--map":
        joined = "+".join([*left, result.roles["prompt"]])
        result.notes.append(f"{', '.join(left)} is no part of the prompt; --map prompt={joined},... joins them")
