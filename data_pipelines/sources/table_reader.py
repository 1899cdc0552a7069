"""A row of a form that is data (see `form`) to its unit: the roles are looked up, then the shape they make is built."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipelines.sources import paths
from data_pipelines.sources.form import Form, shape_of
from data_pipelines.sources.role_values import RoleValues
from data_pipelines.sources.rubric_text import criteria
from data_pipelines.sources.talks import (
    as_turns,
    body_of,
    common_beginning,
    holds_prompt,
    is_talk,
    is_turn,
    marked_turns,
    prompt_of,
    shared_talk,
    split_talk,
    with_history,
    without_prompt,
)
from data_pipelines.sources.unit_builder import (
    Response,
    Row,
    Unit,
    UnusableRowError,
    finite,
    in_steps,
    ranks_of,
    response,
    unit,
)
from data_pipelines.sources.verdicts import RANKS, as_number, as_text
from rubrics.criteria import rubric_json

NO_TEXTS = "the texts are in another file: --items FILE --on COLUMN joins them"
_OPTION = re.compile(r"[(\[]?([A-Za-z])[)\].]?")


class TableReader:
    """Reads rows of one form, whose columns of JSON texts are parsed already (see `cells`)."""

    def __init__(self, form: Form):
        self.form = form
        self.shape = shape_of(form.roles)
        self._paths = {role: paths.parse(path) for role, path in form.roles.items()}
        self._used = {name for path in self._paths.values() for name in path.columns} | set(form.wide)

    def __call__(self, row: Row) -> Iterator[Unit]:
        """One unit. Raises UnusableRowError where the row cannot be read as the form says."""
        form = self.form
        cells = RoleValues(form, self._paths, row)
        if form.name in ("trl", "generic") and (row.get("images") or row.get("image")):
            raise UnusableRowError("the prompt holds images")
        if self.shape is None:
            raise UnusableRowError(NO_TEXTS if form.needs_items else "the roles make no unit")
        meta = {
            name: value for name, value in row.items() if value is not None and value != "" and name not in self._used
        }
        for name in form.repeats:
            if name in meta and meta[name] in (cells.get("chosen"), cells.get("responses")):
                del meta[name]
        own: dict[str, Any] = {name: cells.get(name) for name in ("subset", "split", "license")}
        row_id = cells.get("id") if "id" in form.roles else cells.get("item")
        own["row_id"] = row_id if isinstance(row_id, str | int) else None
        own["reference"] = _reference(cells.get("reference"), meta)
        own["tools"] = _tools(cells.get("tools"))
        if (rubric := cells.get("rubric")) not in (None, "", []):
            own["rubric"] = rubric_json(criteria(rubric))
        own["meta"] = meta
        yield self._unit(cells, own)

    def _unit(self, cells: RoleValues, own: dict[str, Any]) -> Unit:
        match self.shape:
            case ("chosen", "rejected"):
                sides = [cells.get("chosen", must=True), cells.get("rejected", must=True)]
                return self._compared(cells, sides, [cells.get("chosen_model"), cells.get("rejected_model")], own)
            case ("talk", "rejected"):
                prompt, chosen = split_talk(cells.get("talk", must=True))
                return self._compared(cells, [chosen, cells.get("rejected", must=True)], [None, None], own, prompt)
            case ("response_a", "response_b"):
                sides = [cells.get("response_a", must=True), cells.get("response_b", must=True)]
                return self._compared(cells, sides, [cells.get("model_a"), cells.get("model_b")], own)
            case ("responses",):
                return self._list(cells, own)
            case ("steps",):
                return self._steps(cells, own)
            case ("prompt", "rubric"):
                return unit(self._prompt(cells, cells.get("prompt", must=True)), [], kind="rubric", **own)
            case _:
                return self._single(cells, own)

    def _prompt(self, cells: RoleValues, value: Any) -> Any:
        prompt = prompt_of(value)
        if (history := cells.get("history")) not in (None, "", []):
            prompt = with_history(history, prompt)
        system = cells.get("system")
        if isinstance(system, Mapping):
            prompt = [{**system, "role": "system"}, *as_turns(prompt)]
        elif isinstance(system, str) and system.strip():
            prompt = [{"role": "system", "content": system}, *as_turns(prompt)]
        elif system not in (None, "") and not isinstance(system, str):
            raise UnusableRowError("system is not text")
        return prompt

    def _compared(
        self, cells: RoleValues, sides: list[Any], names: list[Any], own: dict[str, Any], prompt: Any = None
    ) -> Unit:
        """Two replies, or lists of better and worse ones."""
        form = self.form
        if isinstance(models := cells.get("models"), list) and len(models) == len(sides):
            names = models
        if any(isinstance(side, list) and side and not is_talk(side) for side in sides):
            return self._groups(cells, sides, own)
        for at, side in enumerate(sides):
            if isinstance(side, Mapping) and not is_turn(side):
                sides[at], author, others = body_of(side)
                names[at] = names[at] or author
                if others:
                    own["meta"][("chosen", "rejected")[at] if "chosen" in form.roles else f"response_{'ab'[at]}"] = (
                        others
                    )
            elif is_turn(side):
                sides[at] = [side]
        prompt, sides = self._shared(cells, prompt, sides)
        answers = [self._reply(side, name) for side, name in zip(sides, names, strict=True)]
        ranks, strength, numbers = self._compared_ranks(cells, names)
        if (margin := cells.get("margin")) not in (None, ""):
            strength = finite(margin, "margin")
        scores = [(at, form.aspect, value) for at, value in enumerate(numbers) if value is not None]
        if form.wide and "rater" in form.roles:
            scores += cells.criteria_scores(names)
        verdicts = cells.judgments(ranks=ranks, strength=strength, scores=scores)
        if form.wide and "rater" not in form.roles:
            verdicts += cells.wide_votes(names)
        verdicts += cells.listed_votes(names)
        return unit(prompt, answers, verdicts, in_columns="response_a" in form.roles, **own)

    def _compared_ranks(
        self, cells: RoleValues, names: Sequence[Any]
    ) -> tuple[list[int | None] | None, float | None, list[float | None]]:
        """(ranks, strength, the numbers of the two): by a verdict, by numbers, or by which column is which."""
        numbers, gap = cells.pair_scores()
        if "preference" in self.form.roles:
            verdict = cells.verdict(cells.get("preference"), names)
            return (None, None, numbers) if verdict.side == "none" else (RANKS[verdict.side], verdict.strength, numbers)
        if self.form.wide or "votes" in self.form.roles:
            return None, None, numbers
        if "response_a" in self.form.roles:
            return (None, None, numbers) if gap is None else (ranks_of(numbers), abs(gap), numbers)
        return ([0, 0] if gap == 0 else [0, 1]), gap, numbers

    def _shared(self, cells: RoleValues, prompt: Any, sides: list[Any]) -> tuple[Any, list[Any]]:
        """The prompt and the two replies without it: a prompt column, or what two talks share."""
        stated = cells.get("prompt") if prompt is None else prompt
        if stated == "":
            raise UnusableRowError("empty prompt")
        talks = [_as_talk(side, stated is None) for side in sides]
        if all(holds_prompt(talk) for talk in talks):
            shared, sides = shared_talk(talks)
            if stated is None:
                return self._prompt(cells, shared), sides
            stated = prompt_of(stated)
            if isinstance(stated, str):
                if not any(_text(turn) == stated.strip() for turn in shared) and not _text(shared[-1]).endswith(stated):
                    raise UnusableRowError("the prompt column and the talk in the replies differ")
                return shared, sides  # the talk says more: its system turn, earlier turns
            whole = self._prompt(cells, stated)
            first = [without_prompt(whole, talk) for talk in talks]
            if all(len(one) < len(talk) for one, talk in zip(first, talks, strict=True)):
                return whole, first
            raise UnusableRowError("the prompt column and the talk in the replies differ")
        if stated is None and "prompt" in self.form.roles:
            raise UnusableRowError(f"missing field {self.form.roles['prompt']}")
        if stated is None and self.form.implicit and all(isinstance(side, str) for side in sides):
            return common_beginning(sides[0], sides[1])
        if stated is None:
            raise UnusableRowError("no prompt: no column is one, and the replies hold no user's turn")
        whole = self._prompt(cells, stated)
        return whole, [without_prompt(whole, side) for side in sides]

    def _groups(self, cells: RoleValues, sides: list[Any], own: dict[str, Any]) -> Unit:
        """Several better and several worse replies: all of a side rank alike."""
        lists = [side if isinstance(side, list) and not is_talk(side) else [side] for side in sides]
        if "chosen" not in self.form.roles:
            raise UnusableRowError("a reply is a list of texts; whose turns they are is not said")
        answers = [self._reply(text, None) for side in lists for text in side]
        ranks: list[int | None] = [*[0] * len(lists[0]), *[1] * len(lists[1])]
        prompt = self._prompt(cells, cells.get("prompt", must=True))
        return unit(prompt, answers, cells.judgments(ranks=ranks), **own)

    def _reply(self, value: Any, author: Any, steps: Sequence[int] | None = None) -> Response:
        if isinstance(value, Mapping) and not is_turn(value):
            value, inner, _ = body_of(value)
            author = author or inner
        if is_turn(value):
            value = [value]
        if self.form.strip and isinstance(value, str):
            value = value.strip()
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = as_text(value)  # a reply that is a number, as CSV and JSON write "7"
        return response(value, generator=author, step_ends=steps)

    def _list(self, cells: RoleValues, own: dict[str, Any]) -> Unit:
        texts = cells.get("responses", must=True)
        if isinstance(texts, Mapping):
            texts = list(texts.values())
        if not isinstance(texts, list) or not texts:
            raise UnusableRowError("responses is not a list of texts")
        models = cells.get("models")
        names = models if isinstance(models, list) and len(models) == len(texts) else [None] * len(texts)
        answers = [self._reply(text, name) for text, name in zip(texts, names, strict=True)]
        numbers, places = cells.numbers("scores", len(texts)), cells.numbers("ranks", len(texts))
        ranks: list[int | None] | None = None
        if places is not None:
            ranks = ranks_of(places, best="low")
        elif numbers is not None:
            ranks = ranks_of(numbers)
        elif (right := cells.get("answer")) not in (None, ""):
            ranks = _right_option(right, texts, self._paths["responses"].numbered)
        if ranks is not None and sum(rank is not None for rank in ranks) < 2:
            ranks = None
        scores = [(at, self.form.aspect, value) for at, value in enumerate(numbers or ()) if value is not None]
        verdicts = cells.judgments(ranks=ranks, scores=scores)
        return unit(self._prompt(cells, cells.get("prompt", must=True)), answers, verdicts, **own)

    def _steps(self, cells: RoleValues, own: dict[str, Any]) -> Unit:
        steps = cells.get("steps", must=True)
        answer = in_steps(steps, generator=cells.get("model"))
        labels = cells.get("step_labels")
        if labels is None and (first := cells.get("first_error")) is not None:
            at = finite(first, "first_error")
            labels = [True if at < 0 or n < at else False if n == at else None for n in range(len(steps))]
        if labels is not None and (not isinstance(labels, list) or len(labels) != len(steps)):
            raise UnusableRowError("the number of labels differs from the number of steps")
        numbers = None if labels is None else [None if v is None else cells.step_label(v) for v in labels]
        verdicts = [] if numbers is None else cells.judgments(step_labels=numbers)
        return unit(self._prompt(cells, cells.get("prompt", must=True)), [answer], verdicts, kind="steps", **own)

    def _single(self, cells: RoleValues, own: dict[str, Any]) -> Unit:
        prompt: Any
        reply: Any
        if self.shape == ("talk",):
            prompt, reply = split_talk(cells.get("talk", must=True))
            prompt = self._prompt(cells, prompt)
        elif self.shape == ("text",):
            prompt, reply = self._cut(cells.get("text", must=True))
        else:
            prompt = self._prompt(cells, cells.get("prompt", must=True))
            reply = without_prompt(prompt, cells.get("response", must=True))
        scores = [(0, aspect, value) for aspect, value in cells.single_scores()]
        if self.form.wide and "rater" in self.form.roles:
            scores += cells.criteria_scores(None)
        verdicts = cells.judgments(scores=scores)
        if self.form.wide and "rater" not in self.form.roles:
            verdicts += cells.wide_scores()
        return unit(prompt, [self._reply(reply, cells.get("model"))], verdicts, **own)

    def _cut(self, text: Any) -> tuple[str, str]:
        mark = self.form.split_text
        if not mark:
            raise UnusableRowError("one text holds prompt and reply: --split-text MARK says what stands between them")
        prompt, sign, reply = str(text).partition(mark)
        if not sign:
            raise UnusableRowError("the text lacks the mark of --split-text")
        return prompt.strip(), reply.strip()


def _as_talk(side: Any, implicit: bool) -> Any:
    """A transcript as turns where no column is the prompt; anything else as it is."""
    return (marked_turns(side) or side) if implicit and isinstance(side, str) else side


def _text(turn: Mapping[str, Any]) -> str:
    value = turn.get("content") if "content" in turn else turn.get("value")
    return value.strip() if isinstance(value, str) else ""


def _reference(value: Any, meta: dict[str, Any]) -> str | None:
    if isinstance(value, list | Mapping):
        meta["reference"] = value
        return None
    return None if value in (None, "") else str(value)


def _tools(value: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            raise UnusableRowError("tools is not JSON") from None
    if value in (None, "", []):
        return ()
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise UnusableRowError("tools is not a list of objects")
    return value


def _right_option(value: Any, texts: Sequence[Any], columns: Sequence[str]) -> list[int | None]:
    """Ranks that put the right option first: its letter, its text or its column; a number could count from 0 or from
    1.
    """
    text = as_text(value)
    same = (
        [columns.index(text)]
        if text in columns
        else [at for at, option in enumerate(texts) if option == value or str(option).strip() == text]
    )
    if len(same) == 1:
        at = same[0]
    elif as_number(value) is None and (match := _OPTION.fullmatch(text)):
        at = ord(match[1].upper()) - ord("A")
    else:
        raise UnusableRowError("the answer is neither a letter nor the text of one option")
    if not 0 <= at < len(texts):
        raise UnusableRowError("the answer names no option")
    return [0 if n == at else 1 for n in range(len(texts))]
