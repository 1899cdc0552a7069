"""Which columns are the replies: two texts, several, a list of them, or one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from data_pipelines.sources.inference.columns import Column, Guess
from data_pipelines.sources.inference.names import BETTER, NO_REPLY, PROMPTS, REPLIES, SIDES, tokens
from data_pipelines.sources.talks import holds_prompt, is_turn
from data_pipelines.sources.verdicts import as_number, ranking, word


def replies(result: Guess, free: dict[str, Column]) -> None:
    for roles, markers in ((("chosen", "rejected"), BETTER), (("response_a", "response_b"), SIDES)):
        pairs = [pair for pair in _pairs(free, markers) if not _are_names(pair, free)]
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
            _numbers_beside(result, free, [name[len(stem) :] for name in numbered])
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
        if re.fullmatch(r"(responses|completions|answers|generations|outputs|candidates|choices|options)", name.lower())
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
    single = [name for name in free if name.lower() in REPLIES and free[name].is_reply()]
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


def _pairs(free: Mapping[str, Column], markers: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(first, second, stem) of columns whose names differ in one mark alone and whose values are replies."""
    result = []
    by_tokens = {tuple(tokens(name)): name for name in free}
    for words, name in sorted(by_tokens.items()):
        for first, second in markers:
            for at, one in enumerate(words):
                other = by_tokens.get((*words[:at], second, *words[at + 1 :])) if one == first else None
                stem = " ".join((*words[:at], *words[at + 1 :]))
                if other is None or any(NO_REPLY.fullmatch(one) for one in stem.split()):
                    continue
                plain = (name, other) == ("chosen", "rejected")  # these names mean nothing else
                if plain or (free[name].is_reply() and free[other].is_reply()):
                    result.append((name, other, stem))
    return result


def _are_names(pair: tuple[str, str, str], free: Mapping[str, Column]) -> bool:
    """Whether two columns name the replies, by column, side or model, and hold none."""
    one, other = (free[name] for name in pair[:2])
    texts = [{value for value in column.values if isinstance(value, str)} for column in (one, other)]
    known = {
        *free,
        *(value for name in free if {"model", "generator"} & set(tokens(name)) for value in free[name].counts),
    }
    if texts[0] | texts[1] and all(text in known or word(text) is not None for text in texts[0] | texts[1]):
        return any(not set(found[:2]) & set(pair[:2]) for found in _pairs(free, (*BETTER, *SIDES)))
    short = max((len(text) for text in texts[0] | texts[1]), default=0) <= 40
    few = 2 * len(texts[0] | texts[1]) <= len(one.values)
    return pair[:2] != ("chosen", "rejected") and bool(texts[0] & texts[1]) and short and few


def _clearest(pairs: list[tuple[str, str, str]], free: Mapping[str, Column]) -> tuple[str, str, str] | None:
    """The pair whose name says most: a reply's noun, or no noun at all; None where two say as much."""

    def weight(pair: tuple[str, str, str]) -> int:
        words = pair[2].split()
        return (
            2 if any(word.rstrip("s") in REPLIES or word == "conversation" for word in words) else 1 if not words else 0
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


def _numbers_beside(result: Guess, free: dict[str, Column], numbers: Sequence[str]) -> None:
    """score_1, score_2 ... beside response_1, response_2 ..."""
    for role, word_of in (("ranks", "rank"), ("scores", "score"), ("scores", "rating")):
        for sign in ("_", "", " ", "-"):
            names = [f"{word_of}{sign}{number}" for number in numbers]
            if role not in result.roles and all(name in free and free[name].is_number() for name in names):
                result.take(role, f"{word_of}{sign}{{{numbers[0]}..{numbers[-1]}}}", "numbered as the replies are")
                for name in names:
                    free.pop(name)


def _list_numbers(result: Guess, free: dict[str, Column]) -> None:
    if "ranks" in result.roles or "scores" in result.roles:
        return
    for role, names in (("ranks", ("ranks", "ranking", "rank")), ("scores", ("scores", "ratings", "rewards", "votes"))):
        for name in names:
            if name not in free or not free[name].values:
                continue
            texts = role == "ranks" and all(isinstance(v, str) and ranking(v) for v in free[name].values)
            if not texts and not all(isinstance(v, list) for v in free[name].values):
                continue
            if name == "ranking" and not texts and all(_is_permutation(v) for v in free[name].values):
                result.open.append(
                    "whether ranking holds a rank for each reply or the replies' numbers from best to worst; "
                    "--map ranks=ranking if it holds ranks, the lowest best"
                )
            result.take(role, name, "name")
            free.pop(name)
            return
    for name in ("answer_index", "answer_idx", "correct_index", "label_index", "best_index"):
        if name in free and "answer" not in free:
            result.open.append(f"whether {name} counts from 0 or from 1; write the option's letter or text instead")
            return
    for name in ("answer", "correct_answer", "label", "answerKey", "correct", "best", "winner", "preferred", "choice"):
        if name in free and "scores" not in result.roles and "ranks" not in result.roles:
            result.take("answer", name, "name")
            free.pop(name)
            return


def _is_permutation(values: Sequence[object]) -> bool:
    """Whether numbers are 0 to n-1, or 1 to n, each once."""
    numbers = sorted(number for value in values if (number := as_number(value)) is not None)
    return len(numbers) == len(values) > 1 and any(
        numbers == [first + at for at in range(len(values))] for first in (0, 1)
    )
