"""A row of a form that is data (see `form`) to its unit: the roles are looked up, then the shape they make is built."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipelines.sources import paths
from data_pipelines.sources.form import Form, shape_of
from data_pipelines.sources.infer import vote_keys
from data_pipelines.sources.rubric_text import criteria
from data_pipelines.sources.talks import (
    as_turns,
    body_of,
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
    Judgment,
    Response,
    Row,
    Unit,
    UnusableRowError,
    finite,
    in_steps,
    judgment,
    ranks_of,
    response,
    unit,
)
from data_pipelines.sources.verdicts import RANKS, Verdict, as_number, as_text, verdict
from rubrics.criteria import rubric_json
from warehouse.write.units import UNSTATED

NO_TEXTS = "the texts are in another file: --items FILE --on COLUMN joins them"
UNKNOWN_VERDICT = "preference is not a, b or tie"
_KINDS = {
    **dict.fromkeys(
        ("human", "person", "people", "annotation", "app", "user", "crowd", "expert", "annotator"), "human"
    ),
    **dict.fromkeys(("llm", "model", "eval", "ai", "auto_eval", "judge", "gpt", "llm-judge"), "llm"),
    **dict.fromkeys(("code", "verifier", "verified", "test", "rule"), "verifier"),
    **dict.fromkeys(("rm", "reward model", "reward_model"), "rm"),
    **dict.fromkeys(("constructed", "synthetic"), "constructed"),
    "unknown": "unknown",
}
_TRUE = ("1", "true", "yes", "desirable", "good", "thumbs_up", "up", "like", "liked", "👍")
_FALSE = ("0", "false", "no", "undesirable", "bad", "thumbs_down", "down", "dislike", "disliked", "-1", "👎")
_OPTION = re.compile(r"[(\[]?([A-Za-z])[)\].]?")


class UnknownVerdictError(UnusableRowError):
    """A label that nobody said the meaning of."""

    def __init__(self, value: Any):
        self.value = str(value).strip()[:40]
        super().__init__(f"{UNKNOWN_VERDICT}: {self.value!r}")


class TableReader:
    """Reads rows of one form. `parsed` are columns whose texts are known to be JSON already; see `cells`."""

    def __init__(self, form: Form):
        self.form = form
        self.shape = shape_of(form.roles)
        self._paths = {role: paths.parse(path) for role, path in form.roles.items()}
        self._aspects = {role[6:]: role for role in form.roles if role.startswith("score.")}
        self._used = {name for path in self._paths.values() for name in path.columns}
        self._wide = frozenset(form.wide)

    def __call__(self, row: Row) -> Iterator[Unit]:
        """One unit. Raises UnusableRowError where the row cannot be read as the form says."""
        form = self.form
        get = self._getter(row)
        if form.name in ("trl", "generic") and (row.get("images") or row.get("image")):
            raise UnusableRowError("the prompt holds images")
        if self.shape is None:
            raise UnusableRowError(NO_TEXTS if form.needs_items else "the roles make no unit")
        meta = {
            name: value
            for name, value in row.items()
            if value is not None and value != "" and name not in self._used and name not in self._wide
        }
        for name in form.repeats:
            if name in meta and meta[name] in (get("chosen"), get("responses")):
                del meta[name]
        own: dict[str, Any] = {name: get(name) for name in ("subset", "split", "license")}
        row_id = get("id") if "id" in form.roles else get("item") if "item" in form.roles else None
        own["row_id"] = row_id if isinstance(row_id, str | int) else None
        own["reference"] = _reference(get("reference"), meta)
        own["tools"] = _tools(get("tools"))
        if (rubric := get("rubric")) not in (None, "", []):
            own["rubric"] = rubric_json(criteria(rubric))
        yield self._unit(row, get, own, meta)

    def _getter(self, row: Row) -> Any:
        def get(role: str, *, must: bool = False) -> Any:
            path = self._paths.get(role)
            value = paths.MISSING if path is None else paths.value_at(row, path)
            if value is paths.MISSING or (must and value is None):
                if path is not None and must:
                    raise UnusableRowError(f"missing field {path.text.removesuffix('?')}")
                return None
            return None if isinstance(value, float) and value != value else value

        return get

    def _unit(self, row: Row, get: Any, own: dict[str, Any], meta: dict[str, Any]) -> Unit:
        match self.shape:
            case ("chosen", "rejected"):
                sides = [get("chosen", must=True), get("rejected", must=True)]
                names = [get("chosen_model"), get("rejected_model")]
                return self._compared(row, get, sides, names, own, meta)
            case ("talk", "rejected"):
                prompt, chosen = split_talk(get("talk", must=True))
                return self._compared(row, get, [chosen, get("rejected", must=True)], [None, None], own, meta, prompt)
            case ("response_a", "response_b"):
                sides = [get("response_a", must=True), get("response_b", must=True)]
                names = [get("model_a"), get("model_b")]
                return self._compared(row, get, sides, names, own, meta)
            case ("responses",):
                return self._list(row, get, own, meta)
            case ("steps",):
                return self._steps(row, get, own, meta)
            case ("prompt", "rubric"):
                meta_own = own | {"meta": meta}
                return unit(self._prompt(get, get("prompt", must=True)), [], kind="rubric", **meta_own)
            case _:
                return self._single(row, get, own, meta)

    def _prompt(self, get: Any, value: Any) -> Any:
        prompt = prompt_of(value)
        if (history := get("history")) not in (None, "", []):
            prompt = with_history(history, prompt)
        system = get("system")
        if isinstance(system, Mapping):
            prompt = [{**system, "role": "system"}, *as_turns(prompt)]
        elif isinstance(system, str) and system.strip():
            prompt = [{"role": "system", "content": system}, *as_turns(prompt)]
        elif system not in (None, "") and not isinstance(system, str):
            raise UnusableRowError("system is not text")
        return prompt

    def _compared(
        self,
        row: Row,
        get: Any,
        sides: list[Any],
        names: list[Any],
        own: dict[str, Any],
        meta: dict[str, Any],
        prompt: Any = None,
    ) -> Unit:
        """Two replies, or lists of better and worse ones."""
        if isinstance(models := get("models"), list) and len(models) == len(sides):
            names = models
        if any(isinstance(side, list) and side and not is_talk(side) for side in sides):
            return self._groups(get, sides, own, meta)
        ranked: list[int | None] | None
        for at, side in enumerate(sides):
            if isinstance(side, Mapping) and not is_turn(side):
                sides[at], author, others = body_of(side)
                names[at] = names[at] or author
                if others:
                    meta[("chosen", "rejected")[at] if "chosen" in self.form.roles else f"response_{'ab'[at]}"] = others
            elif is_turn(side):
                sides[at] = [side]
        prompt, sides = self._shared(get, prompt, sides)
        answers = [self._reply(side, name) for side, name in zip(sides, names, strict=True)]
        scores, gap = self._pair_scores(get)
        if "preference" in self.form.roles:
            said = self._verdict(get("preference"), names)
            ranked, strength = (None, None) if said.side == "none" else (RANKS[said.side], said.strength)
        elif self.form.wide or "votes" in self.form.roles:
            ranked, strength = None, None
        elif "response_a" in self.form.roles:
            ranked, strength = (ranks_of(scores), abs(gap)) if gap is not None else (None, None)
        elif gap == 0:
            ranked, strength = [0, 0], 0.0
        else:
            ranked, strength = [0, 1], gap
        margin = get("margin")
        if margin not in (None, ""):
            strength = finite(margin, "margin")
        triples = [(at, self.form.aspect, value) for at, value in enumerate(scores) if value is not None]
        verdicts = self._judgments(get, row, meta, ranks=ranked, strength=strength, scores=triples)
        verdicts += self._wide_votes(row, names)
        verdicts += self._listed_votes(get("votes"), names)
        return unit(prompt, answers, verdicts, in_columns="response_a" in self.form.roles, **own, meta=meta)

    def _wide_votes(self, row: Row, models: Sequence[Any]) -> Iterator[Judgment]:
        """One judgment a column of --wide, whose name is the rater; an empty cell is no vote."""
        for column in self.form.wide:
            said = self._verdict(row.get(column), models)
            if said.side != "none":
                yield judgment(column, self.form.kind or "unknown", ranks=RANKS[said.side], strength=said.strength)

    def _listed_votes(self, votes: Any, models: Sequence[Any]) -> Iterator[Judgment]:
        """One judgment an object of a list of votes."""
        if votes in (None, []):
            return
        keys = vote_keys(votes) if isinstance(votes, list) else None
        if keys is None:
            raise UnusableRowError("the votes are no list of objects with a verdict each")
        for vote in votes:
            said = self._verdict(vote[keys[0]], models)
            if said.side != "none":
                rater = vote.get(keys[1]) if keys[1] else None
                kind = self.form.kind or "unknown"
                extra = {name: value for name, value in vote.items() if name not in keys and value is not None}
                yield judgment(rater or UNSTATED, kind, ranks=RANKS[said.side], strength=said.strength, extra=extra)

    def _shared(self, get: Any, prompt: Any, sides: list[Any]) -> tuple[Any, list[Any]]:
        """The prompt and the two replies without it: a prompt column, or what two talks share."""
        stated = get("prompt") if prompt is None else prompt
        if stated == "":
            raise UnusableRowError("empty prompt")
        talks = [_as_talk(side, stated is None) for side in sides]
        if all(holds_prompt(talk) for talk in talks):
            shared, sides = shared_talk(talks)
            if stated is None:
                return self._prompt(get, shared), sides
            stated = prompt_of(stated)
            if isinstance(stated, str):
                if not any(_text(turn) == stated.strip() for turn in shared) and not _text(shared[-1]).endswith(stated):
                    raise UnusableRowError("the prompt column and the talk in the replies differ")
                return shared, sides  # the talk says more: its system turn, earlier turns
            whole = self._prompt(get, stated)
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
        whole = self._prompt(get, stated)
        return whole, [without_prompt(whole, side) for side in sides]

    def _groups(self, get: Any, sides: list[Any], own: dict[str, Any], meta: dict[str, Any]) -> Unit:
        """Several better and several worse replies: all of a side rank alike."""
        lists = [side if isinstance(side, list) and not is_talk(side) else [side] for side in sides]
        if "chosen" not in self.form.roles:
            raise UnusableRowError("a reply is a list of texts; whose turns they are is not said")
        answers = [self._reply(text, None) for side in lists for text in side]
        ranks: list[int | None] = [*[0] * len(lists[0]), *[1] * len(lists[1])]
        prompt = self._prompt(get, get("prompt", must=True))
        return unit(prompt, answers, self._judgments(get, {}, meta, ranks=ranks), **own, meta=meta)

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

    def _pair_scores(self, get: Any) -> tuple[list[float | None], float | None]:
        values = [get("score_a"), get("score_b")]
        if isinstance(both := get("scores"), list):
            if len(both) != 2:
                raise UnusableRowError("scores and responses have different lengths")
            values = both
        numbers = [None if value in (None, "") else self._number(value, "score") for value in values]
        first, second = numbers
        return numbers, None if first is None or second is None else first - second

    def _number(self, value: Any, what: str) -> float | None:
        """A number, or what the form's values say that a word stands for."""
        if isinstance(value, str) and (key := value.strip().lower()) in self.form.values.numbers:
            return self.form.values.numbers[key]
        if isinstance(value, str) and self.form.values.sides.get(value.strip().lower()) == "none":
            return None
        if isinstance(value, bool):
            return float(value)
        return finite(value, what)

    def _verdict(self, value: Any, models: Sequence[Any]) -> Verdict:
        if isinstance(value, Mapping | list):
            raise UnusableRowError("preference is an object or a list")
        columns = [self.form.roles.get("response_a"), self.form.roles.get("response_b")]
        names = [[name for name in (column, model) if name] for column, model in zip(columns, models, strict=False)]
        if len(names) == 2 and names[0][-1:] == names[1][-1:]:
            names = [one[:1] for one in names]  # both sides by one model: its name tells nothing
        said = verdict(value, self.form.values, names)
        if said is None:
            raise UnknownVerdictError(value)
        return said

    def _list(self, row: Row, get: Any, own: dict[str, Any], meta: dict[str, Any]) -> Unit:
        texts = get("responses", must=True)
        if isinstance(texts, Mapping):
            texts = list(texts.values())
        if not isinstance(texts, list) or not texts:
            raise UnusableRowError("responses is not a list of texts")
        models = get("models")
        names = models if isinstance(models, list) and len(models) == len(texts) else [None] * len(texts)
        answers = [self._reply(text, name) for text, name in zip(texts, names, strict=True)]
        numbers = {
            name: self._numbers(values, len(texts), name)
            for name in ("scores", "ranks")
            if (values := get(name)) is not None
        }
        ranks: list[int | None] | None = None
        if "ranks" in numbers:
            ranks = ranks_of(numbers["ranks"], best="low")
        elif "scores" in numbers:
            ranks = ranks_of(numbers["scores"])
        elif (right := get("answer")) not in (None, ""):
            ranks = _right_option(right, texts)
        if ranks is not None and sum(rank is not None for rank in ranks) < 2:
            ranks = None
        scores = [(at, self.form.aspect, v) for at, v in enumerate(numbers.get("scores", ())) if v is not None]
        verdicts = self._judgments(get, row, meta, ranks=ranks, scores=scores)
        return unit(self._prompt(get, get("prompt", must=True)), answers, verdicts, **own, meta=meta)

    def _numbers(self, values: Any, size: int, name: str) -> list[float | None]:
        if not isinstance(values, list) or len(values) != size:
            raise UnusableRowError(f"{name} and responses have different lengths")
        return [None if value in (None, "") else self._number(value, name) for value in values]

    def _steps(self, row: Row, get: Any, own: dict[str, Any], meta: dict[str, Any]) -> Unit:
        steps = get("steps", must=True)
        answer = in_steps(steps, generator=get("model"))
        labels = get("step_labels")
        if labels is None and (first := get("first_error")) is not None:
            at = finite(first, "first_error")
            labels = [True if at < 0 or n < at else False if n == at else None for n in range(len(steps))]
        if labels is not None and (not isinstance(labels, list) or len(labels) != len(steps)):
            raise UnusableRowError("the number of labels differs from the number of steps")
        numbers = None if labels is None else [None if v is None else self._step_label(v) for v in labels]
        verdicts = [] if numbers is None else self._judgments(get, row, meta, step_labels=numbers)
        return unit(self._prompt(get, get("prompt", must=True)), [answer], verdicts, kind="steps", **own, meta=meta)

    def _step_label(self, value: Any) -> float:
        number = 1.0 if value in ("+", True) else 0.0 if value in ("-", False) else self._number(value, "step label")
        if self.form.label_scale == "signed" and number in (-1, 0, 1):
            number = (number + 1) / 2
        if number is None or not 0 <= number <= 1:
            raise UnusableRowError("a step label is not between 0 and 1")
        return number

    def _single(self, row: Row, get: Any, own: dict[str, Any], meta: dict[str, Any]) -> Unit:
        prompt: Any
        reply: Any
        if self.shape == ("talk",):
            prompt, reply = split_talk(get("talk", must=True))
            prompt = self._prompt(get, prompt)
        elif self.shape == ("text",):
            prompt, reply = self._cut(get("text", must=True))
        else:
            prompt = self._prompt(get, get("prompt", must=True))
            reply = without_prompt(prompt, get("response", must=True))
        scores = [(0, str(name), value) for name, value in self._own_scores(row, get)]
        verdicts = self._judgments(get, row, meta, scores=scores)
        return unit(prompt, [self._reply(reply, get("model"))], verdicts, **own, meta=meta)

    def _cut(self, text: Any) -> tuple[str, str]:
        mark = self.form.split_text
        if not mark:
            raise UnusableRowError("one text holds prompt and reply: --split-text MARK says what stands between them")
        prompt, found, reply = str(text).partition(mark)
        if not found:
            raise UnusableRowError("the text lacks the mark of --split-text")
        return prompt.strip(), reply.strip()

    def _own_scores(self, row: Row, get: Any) -> Iterator[tuple[str, float]]:
        """(aspect, number) of a single reply."""
        for aspect, role in self._aspects.items():
            value = get(role)
            if value not in (None, "") and (number := self._number(value, aspect)) is not None:
                yield aspect, number
        score = get("score")
        if score not in (None, "") and (number := self._number(score, "score")) is not None:
            yield str(get("aspect") or self.form.aspect), number
        label = get("label")
        if label in (None, ""):
            return
        if isinstance(label, list):  # named classes: each a score 1 of that name
            yield from ((str(name), 1.0) for name in label)
            return
        yield "desirable", self._truth(label)

    def _truth(self, value: Any) -> float:
        text = as_text(value).lower()
        if text in self.form.values.numbers:
            return self.form.values.numbers[text]
        if text not in _TRUE and text not in _FALSE:
            raise UnusableRowError("label is not true or false")
        return float(text in _TRUE)

    def _judgments(
        self,
        get: Any,
        row: Row,
        meta: dict[str, Any],
        *,
        ranks: list[int | None] | None = None,
        strength: float | None = None,
        scores: Sequence[tuple[int, str, float]] = (),
        step_labels: list[float | None] | None = None,
    ) -> list[Judgment]:
        """The judgment of the row, none where it holds no opinion at all; who gave one stays in meta then."""
        rationale, edit = _as_note(get("rationale")), get("edit")
        if rationale and self.form.rationale_after:
            rationale = rationale.partition(self.form.rationale_after)[2] or rationale
        if isinstance(edit, Mapping) and not is_turn(edit):
            edit = next((value for value in edit.values() if isinstance(value, str) and value.strip()), None)
        if ranks is None and not scores and step_labels is None and not rationale and edit in (None, ""):
            return []
        extra = {name: value for name in ("language",) if (value := get(name)) not in (None, "")}
        rater, kind = self._rater(get, extra)
        said = judgment(
            rater,
            kind,
            ranks=ranks,
            strength=strength,
            scores=scores,
            step_labels=step_labels,
            edit=edit or None,
            rationale=rationale,
            extra=extra,
            time=get("time"),
            confidence=get("confidence"),
            duration_s=get("duration"),
        )
        order = get("shown_order")
        if isinstance(order, list) and all(isinstance(at, int) for at in order):
            said["shown_order"] = order
        return [said]

    def _rater(self, get: Any, extra: dict[str, Any]) -> tuple[str, str]:
        value = get("rater")
        if isinstance(value, Mapping):
            names = [value[key] for key in ("id", "email", "username", "name") if value.get(key) is not None]
            if not names:
                raise UnusableRowError("rater is an object without id, email or name")
            extra["rater"] = dict(value)
            value = names[0]
        elif isinstance(value, list):
            raise UnusableRowError("rater is a list")
        name = self.form.rater or UNSTATED if value in (None, "") else as_text(value)
        stated = get("rater_kind")
        if stated in (None, ""):
            return name, self.form.kind or "unknown"
        if stated == "API":  # Langfuse: sent by the program in which a person clicked
            return name, "human"
        return name, _KINDS.get(str(stated).strip().lower(), "unknown")


def common_beginning(first: str, second: str) -> tuple[str, list[str]]:
    """The words with which two texts begin alike as the prompt, and the rest of each."""
    if first == second:
        raise UnusableRowError("identical responses")
    size = next(
        (at for at in range(min(len(first), len(second))) if first[at] != second[at]), min(len(first), len(second))
    )
    while size and not (first[size - 1].isspace() or first[size : size + 1].isspace()):
        size -= 1
    while size and first[size - 1].isspace():  # the space belongs to the reply
        size -= 1
    if not size:
        raise UnusableRowError("no prompt: chosen and rejected share no beginning")
    return first[:size], [first[size:], second[size:]]


def _as_talk(side: Any, implicit: bool) -> Any:
    """A transcript as turns where no column is the prompt; anything else as it is."""
    return (marked_turns(side) or side) if implicit and isinstance(side, str) else side


def _text(turn: Mapping[str, Any]) -> str:
    value = turn.get("content") if "content" in turn else turn.get("value")
    return value.strip() if isinstance(value, str) else ""


def _as_note(value: Any) -> str | None:
    """A reason as text; an object or a list as its JSON, so that nothing of it is lost."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


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


def _right_option(value: Any, texts: Sequence[Any]) -> list[int | None]:
    """Ranks that put the right option first: its letter, or its text; a number could count from 0 or from 1."""
    text = as_text(value)
    same = [at for at, option in enumerate(texts) if option == value or str(option).strip() == text]
    if len(same) == 1:
        at = same[0]
    elif as_number(value) is None and (match := _OPTION.fullmatch(text)):
        at = ord(match[1].upper()) - ord("A")
    else:
        raise UnusableRowError("the answer is neither a letter nor the text of one option")
    if not 0 <= at < len(texts):
        raise UnusableRowError("the answer names no option")
    return [0 if n == at else 1 for n in range(len(texts))]
