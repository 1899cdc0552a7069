"""Roles of the columns of a table that no published form knows: by name, type, length, distinct values and by how
columns relate (two texts of one kind and a column that names one of them are votes).

Only what is clear is taken; two columns that could both be the prompt, or numbers as verdicts, are left open and said.
Nothing here depends on the order of columns or rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.sources import paths
from data_pipelines.sources.talks import holds_prompt, is_talk, is_turn
from data_pipelines.sources.unit_builder import Row, moment
from data_pipelines.sources.verdicts import Values, as_number, as_text, verdict

PROMPTS = (
    *(
        "prompt",
        "instruction",
        "question",
        "query",
        "input",
        "request",
        "task",
        "problem",
        "post",
        "history",
        "context",
    ),
    *(
        "conversation",
        "chat_history",
        "messages",
        "user_prompt",
        "user_input",
        "user_message",
        "user",
        "q",
        "x",
        "text",
    ),
)
_BETTER = (
    *(("chosen", "rejected"), ("chosen", "reject"), ("accepted", "rejected"), ("better", "worse"), ("best", "worst")),
    *(("preferred", "rejected"), ("preferred", "dispreferred"), ("preferred", "nonpreferred"), ("winner", "loser")),
    *(
        ("winning", "losing"),
        ("win", "lose"),
        ("win", "loss"),
        ("good", "bad"),
        ("positive", "negative"),
        ("pos", "neg"),
    ),
)
_SIDES = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"), ("one", "two"), ("i", "ii"))
_NO_REPLY = re.compile(
    r"model|generator|author|source|score|rating|time|date|length|len|tokens?|count|lang|language|idx|index|hash|rank|"
    r"url|name|user|worker|annotator|rater|conf|confidence|safe|severity|category|win|logprobs?|ids?|sha256|latency"
)
_REPLIES = ("response", "answer", "completion", "output", "reply", "generation", "assistant", "summary", "model_output")
_LABELS = (
    *("preference", "winner", "label", "choice", "verdict", "vote", "preferred", "better", "judgment", "judgement"),
    *(
        "overall_preference",
        "pick",
        "selected",
        "selection",
        "decision",
        "best",
        "gt_label",
        "result",
        "human_preference",
    ),
)
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "rater": (
        *(
            "rater",
            "rater_id",
            "annotator",
            "annotator_id",
            "annotatorid",
            "worker",
            "worker_id",
            "workerid",
            "labeler",
        ),
        *("labeller", "labeler_id", "evaluator", "evaluator_id", "judge", "judge_model", "judge_id", "who", "reviewer"),
        *("user_id", "userid", "participant", "participant_id", "prolific_pid", "coder", "grader", "assessor", "by"),
    ),
    "rater_kind": ("rater_kind", "annotator_kind", "rater_type", "annotator_type"),
    "rationale": (
        *("rationale", "reason", "why", "explanation", "justification", "comment", "comments", "critique", "reasoning"),
        *("feedback", "note", "notes", "remark", "remarks"),
    ),
    "margin": ("margin", "strength", "preference_strength"),
    "chosen_model": ("chosen_model", "chosen-model", "model_chosen", "chosen_model_id"),
    "rejected_model": ("rejected_model", "rejected-model", "model_rejected", "rejected_model_id"),
    "model_a": ("model_a", "model_1", "model1", "generator_1", "modela", "generator_a"),
    "model_b": ("model_b", "model_2", "model2", "generator_2", "modelb", "generator_b"),
    "models": ("models",),
    "model": ("model", "model_name", "generator", "response_model"),
    "score_chosen": ("chosen_score", "score_chosen", "chosen_rating", "rating_chosen", "chosen-rating"),
    "score_rejected": ("rejected_score", "score_rejected", "rejected_rating", "rating_rejected", "rejected-rating"),
    "time": (
        "timestamp",
        "time",
        "created_at",
        "submitted_at",
        "annotated_at",
        "tstamp",
        "ts",
        "datetime",
        "date",
        "answered_at",
    ),
    "duration": ("duration", "duration_s", "secs", "time_spent", "lead_time", "seconds", "elapsed"),
    "confidence": ("confidence", "certainty"),
    "language": ("language", "lang"),
    "shown_order": ("shown_order",),
    "reference": ("reference", "reference_answer", "gold", "gold_answer", "ground_truth"),
    "rubric": ("rubric", "rubrics"),
    "tools": ("tools",),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "id": ("id",),
    "subset": ("subset",),
    "split": ("split",),
    "license": ("license",),
}
_MODEL = re.compile(
    r"gpt|claude|llama|gemini|qwen|mi[sx]tral|deepseek|llm|\bjudge|palm|gemma|-\d+b\b|\brm\b|reward", re.I
)
_PERSON = (
    "rater",
    "annotator",
    "worker",
    "labeler",
    "labeller",
    "evaluator",
    "participant",
    "prolific",
    "reviewer",
    "coder",
    "grader",
    "assessor",
    "who",
    "user",
)


@dataclass
class Guess:
    """Roles with the reason for each, what stays open, and the kind of rater that the names speak for."""

    roles: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    kind: str = ""
    suggestion: str = ""
    texts_left: list[str] = field(default_factory=list)  # columns of texts that play no role: one may be the prompt

    def take(self, role: str, path: str, why: str) -> None:
        self.roles[role], self.why[role] = path, why


@dataclass(frozen=True)
class Column:
    """What a sample says of a column."""

    name: str
    values: tuple[Any, ...]  # those that are not empty

    @property
    def counts(self) -> Counter[str]:
        return Counter(as_text(value) for value in self.values if not isinstance(value, Mapping | list))

    @property
    def mean_length(self) -> float:
        lengths = [len(value) if isinstance(value, str) else 40.0 for value in self.values]
        return sum(lengths) / len(lengths) if lengths else 0.0

    def is_reply(self) -> bool:
        """Whether most values could be a reply: a text, turns, or one object with a text."""
        fitting = sum(
            is_talk(value)
            or (isinstance(value, Mapping) and (is_turn(value) or any(isinstance(v, str) for v in value.values())))
            or isinstance(value, str)
            or (isinstance(value, list) and bool(value) and all(isinstance(item, str | Mapping) for item in value))
            for value in self.values
        )
        return bool(self.values) and 2 * fitting >= len(self.values)

    def is_time(self) -> bool:
        """Whether every value is a date or a time."""
        return bool(self.values) and all(isinstance(value, str) and moment(value) is not None for value in self.values)

    def is_number(self) -> bool:
        return bool(self.values) and all(as_number(value) is not None for value in self.values)


def columns_of(rows: Sequence[Row]) -> dict[str, Column]:
    """The columns of a sample by name, sorted."""
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            cells = values.setdefault(name, [])
            if value is not None and value != "" and value != []:
                cells.append(value)
    return {name: Column(name, tuple(values[name])) for name in sorted(values)}


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
        _replies(result, free)
    if not given or "prompt" not in given:
        _prompt(result, free)
    if "response_a" in result.roles and "preference" not in result.roles and not wide:
        _preference(result, free, values)
    if "response" in result.roles:
        _score(result, free)
    _extras(result, free)
    _kind(result, columns, wide)
    result.texts_left = [
        name for name, column in free.items() if column.is_reply() and not (column.is_number() or column.is_time())
    ]
    return result


def _tokens(name: str) -> list[str]:
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return re.findall(r"[a-z]+|\d+", name.lower())


def _pairs(free: Mapping[str, Column], markers: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(first, second, stem) of columns whose names differ in one mark alone and whose values are replies."""
    found = []
    by_tokens = {tuple(_tokens(name)): name for name in free}
    for tokens, name in sorted(by_tokens.items()):
        for first, second in markers:
            for at, token in enumerate(tokens):
                other = by_tokens.get((*tokens[:at], second, *tokens[at + 1 :])) if token == first else None
                stem = " ".join((*tokens[:at], *tokens[at + 1 :]))
                if other is None or any(_NO_REPLY.fullmatch(word) for word in stem.split()):
                    continue
                plain = (name, other) == ("chosen", "rejected")  # these names mean nothing else
                if plain or (free[name].is_reply() and free[other].is_reply()):
                    found.append((name, other, stem))
    return found


def _replies(result: Guess, free: dict[str, Column]) -> None:
    for roles, markers in ((("chosen", "rejected"), _BETTER), (("response_a", "response_b"), _SIDES)):
        pairs = _pairs(free, markers)
        if not pairs:
            continue
        pair = _clearest(pairs, free)
        if pair is None:
            result.open.append(f"which are the replies: {' or '.join(f'{a}, {b}' for a, b, _ in pairs)}")
            return
        numbered = _numbered(pair, free) if roles[0] == "response_a" else []
        if len(numbered) > 2:
            low, high = numbered[0], numbered[-1]
            stem = re.sub(r"\d+$", "", low)
            result.take("responses", f"{stem}{{{low[len(stem) :]}..{high[len(stem) :]}}}", "numbered texts")
            for name in numbered:
                free.pop(name)
            _list_numbers(result, free)
            return
        for role, name in zip(roles, pair[:2], strict=True):
            result.take(
                role, name, "names of a better and a worse reply" if roles[0] == "chosen" else "two texts, names"
            )
            free.pop(name)
        return
    plural = [
        name
        for name in free
        if re.fullmatch(r"(responses|completions|answers|generations|outputs|candidates|choices)", name.lower())
    ]
    lists = [name for name in plural if all(isinstance(value, list) for value in free[name].values)]
    if len(lists) == 1:
        name = lists[0]
        first = next((item for value in free[name].values for item in value), None)
        path = name
        if isinstance(first, Mapping) and not is_turn(first):
            keys = [key for key in ("text", "content", "response", "answer", "completion") if key in first]
            path = f"{name}[].{keys[0]}" if keys else name
            for role, names in (("ranks", ("rank",)), ("scores", ("score", "rating"))):
                if key := next((key for key in names if key in first), None):
                    result.take(role, f"{name}[].{key}", "beside the replies")
                    break
        result.take("responses", path, "list of replies")
        free.pop(name)
        _list_numbers(result, free)
        return
    single = [name for name in free if name.lower() in _REPLIES and free[name].is_reply()]
    if len(single) == 1:
        result.take("response", single[0], "name")
        free.pop(single[0])
        return
    talks = [
        name for name, column in free.items() if column.values and all(holds_prompt(value) for value in column.values)
    ]
    if not single and len(talks) == 1 and talks[0] not in PROMPTS:
        result.take("talk", talks[0], "talks")
        free.pop(talks[0])
    elif len(single) > 1:
        result.open.append(f"which is the reply: {' or '.join(single)}")


def _clearest(pairs: list[tuple[str, str, str]], free: Mapping[str, Column]) -> tuple[str, str, str] | None:
    """The pair whose name says most: a reply's noun, or no noun at all; None where two say as much."""

    def weight(pair: tuple[str, str, str]) -> int:
        words = pair[2].split()
        return (
            2
            if any(word.rstrip("s") in _REPLIES or word == "conversation" for word in words)
            else 1
            if not words
            else 0
        )

    best = max(map(weight, pairs))
    leading = [pair for pair in pairs if weight(pair) == best]
    if len(leading) > 1 and len({name for pair in leading for name in pair[:2]}) > len(leading) + 1:
        return None
    return leading[0]


def _numbered(pair: tuple[str, str, str], free: Mapping[str, Column]) -> list[str]:
    stem = re.sub(r"\d+$", "", pair[0])
    names = [name for name in free if re.fullmatch(re.escape(stem) + r"\d+", name) and free[name].is_reply()]
    return sorted(names, key=lambda name: int(name[len(stem) :])) if stem != pair[0] else []


def _list_numbers(result: Guess, free: dict[str, Column]) -> None:
    for role, names in (("ranks", ("ranks", "ranking", "rank")), ("scores", ("scores", "ratings", "rewards", "votes"))):
        for name in names:
            if name in free and role not in result.roles and all(isinstance(v, list) for v in free[name].values):
                result.take(role, name, "name")
                free.pop(name)
                return
    for name in ("answer", "correct_answer", "label", "answerKey", "correct"):
        if name in free and "scores" not in result.roles and "ranks" not in result.roles:
            result.take("answer", name, "name")
            free.pop(name)
            return


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
        and not any(_NO_REPLY.fullmatch(token) for token in _tokens(n))
        and not _is_extra(n)
    ]
    if len(texts) == 1 and sides:
        result.take("prompt", texts[0], "the only other long text")
        free.pop(texts[0])
    elif len(texts) > 1:
        result.open.append(f"which is the prompt: {' or '.join(texts[:6])}")


def _is_extra(name: str) -> bool:
    return any(name.lower() in names for names in EXTRAS.values())


def _preference(result: Guess, free: dict[str, Column], values: Values | None) -> None:
    sides = [[result.roles[role]] for role in ("response_a", "response_b")]
    for at, role in enumerate(("model_a", "model_b")):
        sides[at] += [name for name in EXTRAS[role] if name in free]

    def known(column: Column) -> bool:
        texts = [value for value in column.values if not isinstance(value, Mapping | list)]
        said = (
            [verdict(value, values, sides) for value in set(map(str, texts))] if len(set(map(str, texts))) <= 40 else []
        )
        return bool(said) and sum(one is not None for one in said) * 2 >= len(said)

    listed = [name for name, column in free.items() if _vote_keys(column) is not None]
    if len(listed) == 1:
        key, _ = _vote_keys(free[listed[0]]) or ("", "")
        result.take("votes", listed[0], f"a list of verdicts ({key})")
        free.pop(listed[0])
        return
    hot = _one_hot(free)
    named = [name for name in free if _label_word(name) is not None]
    telling = [name for name in free if known(free[name])]
    both = [name for name in _by_rank(named) if name in telling]
    if hot and not both:
        result.take("preference", "|".join(hot), "one of these is set")
        for name in hot:
            free.pop(name)
    elif both:
        result.take("preference", both[0], f"name; {_shown(free[both[0]])}")
        free.pop(both[0])
    elif len(telling) == 1 and not named:
        result.take("preference", telling[0], f"its values name the replies; {_shown(free[telling[0]])}")
        free.pop(telling[0])
    elif named:
        name = _by_rank(named)[0]
        counts = free[name].counts
        if len(counts) <= 40:
            result.open.append(f"what the values of {name} mean: {_shown(free[name])}")
            example = ",".join(
                f"{value}={side}" for value, side in zip(sorted(counts), ("a", "b", "tie"), strict=False)
            )
            if free[name].is_number() and any(as_number(v) < 0 for v in counts):  # type: ignore[operator]
                numbers = sorted(as_number(v) or 0 for v in counts)
                example = f"{numbers[0]:g}..-1=a,0=tie,1..{numbers[-1]:g}=b"
            result.suggestion = f"--values '{example}'"
            result.take("preference", name, f"name; {_shown(free[name])}")
            free.pop(name)
    elif len(telling) > 1:
        result.open.append(
            f"which holds the verdict: {' or '.join(telling)}; if each is a rater, --wide {','.join(telling)}"
        )


def _vote_keys(column: Column) -> tuple[str, str | None] | None:
    """(key of the verdict, key of the rater) where every value is a list of objects that each hold a verdict."""
    votes = [vote for value in column.values if isinstance(value, list) for vote in value]
    if not votes or not all(isinstance(vote, Mapping) for vote in votes):
        return None
    keys = sorted({str(key) for vote in votes for key in vote})
    labels = [key for key in keys if key.lower() in _LABELS and all(isinstance(vote.get(key), str) for vote in votes)]
    raters = [key for key in keys if key.lower() in EXTRAS["rater"]]
    return (labels[0], raters[0] if len(raters) == 1 else None) if len(labels) == 1 else None


def vote_keys(votes: Sequence[Any]) -> tuple[str, str | None] | None:
    """The same of the list of one row."""
    return _vote_keys(Column("votes", (list(votes),)))


def _by_rank(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (_LABELS.index(_label_word(name) or ""), name))


def _label_word(name: str) -> str | None:
    """The label's word that a column is named, alone or as the first part of "preference.selection"; None for
    others.
    """
    spelled = re.split(r"[.: ]", name.lower(), maxsplit=1)[0]
    return spelled if spelled in _LABELS else None


def _one_hot(free: Mapping[str, Column]) -> list[str]:
    """Columns WINNER_a, WINNER_b, WINNER_tie that hold 0 and 1."""
    ones = [
        name
        for name, c in free.items()
        if c.values and {as_text(v).lower() for v in c.values} <= {"0", "1", "true", "false"}
    ]
    sides: dict[str, dict[str, str]] = {}
    for name in ones:
        tokens = _tokens(name)
        if tokens and tokens[-1] in ("a", "b", "tie") and len(tokens) > 1:
            stem = " ".join(token for token in tokens[:-1] if token != "model")
            sides.setdefault(stem, {})[tokens[-1]] = name
    full = [group for group in sides.values() if {"a", "b"} <= set(group)]
    return [full[0][side] for side in ("a", "b", "tie") if side in full[0]] if len(full) == 1 else []


def _score(result: Guess, free: dict[str, Column]) -> None:
    for name in ("score", "rating", "overall_score", "reward", "grade", "overall"):
        if name in free and "score" not in result.roles:
            result.take("score", name, "name")
            free.pop(name)
            return
    if "score" in result.roles or any(role.startswith("score.") for role in result.roles):
        return
    for name in ("label", "is_good", "thumb", "thumbs", "liked", "desirable", "is_correct", "correct"):
        if name in free and free[name].values and len(free[name].counts) <= 4:
            result.take("label", name, f"name; {_shown(free[name])}")
            free.pop(name)
            return


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


def _kind(result: Guess, columns: Mapping[str, Column], wide: Sequence[str]) -> None:
    """Human where a column is named for people and no value looks like a model; otherwise unknown."""
    name = result.roles.get("rater")
    if name is None or name not in columns:
        if wide:
            result.kind = "unknown" if any(_MODEL.search(one) for one in wide) else "human"
        return
    people = any(word in name.lower() for word in _PERSON)
    values = columns[name].counts
    result.kind = "human" if people and not any(_MODEL.search(value) for value in values) else "unknown"
    result.why["rater"] = f"{len(values)} distinct, name"


def _shown(column: Column, limit: int = 8) -> str:
    counts = column.counts
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]
    more = f", {len(counts) - limit} more" if len(counts) > limit else ""
    return ", ".join(f"{value!r} {count}" for value, count in top) + more
