"""From the rows of a benchmark file to items: the spellings of the original data sets, and rmkit's own row forms; by
name in the group `forms` of `rmkit.plugins`.

    pairs       prompt, chosen, rejected (texts; prompt a text or a list of turns)
    best_of     prompt, chosen [texts], rejected [texts], num_correct           (RewardBench 2)
    rmbench     prompt, chosen [3], rejected [3], domain; or nine rows a prompt with meta.chosen_style, rejected_style;
                RM-Bench's files of one domain name it in the file's name alone (chat_filtered.json)
    judgebench  question, response_A, response_B, label A>B | B>A, source
    steps       problem or prompt, steps, label or first_error
    nway        prompt, responses [{text, score | rank | label}]
    annotators  prompt, response_a, response_b, labels [{preference a | b | tie}]
    absolute    prompt, response, label, and other spellings (evaluation.suites.absolute)

An item's cluster is the hash of its prompt. Ids are made unique by the subset where a file repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.suites.items import Item
from rmkit import plugins
from rmkit.chat.reader import read_candidates, read_conversation, read_steps
from rmkit.data.example import prompt_facts
from rmkit.errors import DataError
from rmkit.garbage import few_full_collections
from rmkit.ids import content_hash, messages_json
from rmkit.types import Candidates, Conversation

Row = Mapping[str, Any]


Form = Callable[[Sequence[Row], str], list[Item]]


@few_full_collections()
def read_items(form: str, rows: Iterable[Row], *, where: str) -> list[Item]:
    """The items of the rows. Raises DataError naming the row whose fields are missing or have the wrong type."""
    read: Form = plugins.resolve("forms", form, trusted=True)
    return _unique(read(list(rows), where))


def each(name: str, read: Callable[[Row, str], Item]) -> Form:
    """The form whose rows are one item each: `read` gets a row and its id, and may raise what a wrong row makes it."""

    def form(rows: Sequence[Row], where: str) -> list[Item]:
        items = []
        for number, row in enumerate(rows, start=1):
            try:
                item = read(row, str(row.get("id", number)))
                facts = prompt_facts(row)
                items.append(
                    replace(item, candidates=replace(item.candidates, **facts)) if facts and item.candidates else item
                )
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, DataError) as error:
                fields, why = ", ".join(row) if isinstance(row, Mapping) else repr(row)[:80], type(error).__name__
                raise DataError(
                    f"{where}, row {number}: not of form {name!r} ({why}: {error}); its fields: {fields}"
                ) from error
        return items

    return form


def conversation(prompt: Any) -> Conversation:
    """A prompt given as a text (one user turn) or as turns, in any spelling of `rmkit.chat.reader`."""
    if not prompt:
        raise ValueError("the prompt is empty")
    return read_conversation(prompt, role="user")


def item_of(row_id: str, subset: str, prompt: Any, replies: Sequence[Any], gold: Mapping[str, Any]) -> Item:
    """An item over replies, each a text or turns."""
    candidates = read_candidates(conversation(prompt), replies)
    return Item(f"{subset}/{row_id}", subset, content_hash(messages_json(candidates.prompt)), gold, candidates)


def subset_of(row: Row) -> str:
    """The subset that a row names: its `subset`, `domain` or `source`, else `all`."""
    return str(row.get("subset") or row.get("domain") or row.get("source") or "all")


def _pair(row: Row, row_id: str) -> Item:
    return item_of(row_id, subset_of(row), row["prompt"], (row["chosen"], row["rejected"]), {})


def _best_of(row: Row, row_id: str) -> Item:
    chosen, rejected = list(row["chosen"]), list(row["rejected"])
    correct = int(row.get("num_correct") or len(chosen))
    item = item_of(row_id, subset_of(row), row["prompt"], chosen + rejected, {"num_correct": correct})
    if not (chosen and rejected):
        raise ValueError("needs right and wrong replies")
    if row_id.startswith(("ref:", "tied:")):  # ref and tied prompts of one number stand and fall together
        cluster = f"{item.subset}/{row_id.split(':')[1]}"
        return Item(item.id, item.subset, cluster, item.gold, item.candidates)
    return item


def _rmbench(row: Row, row_id: str) -> Item:
    chosen, rejected = list(row["chosen"]), list(row["rejected"])
    if len(chosen) != 3 or len(rejected) != 3:
        raise ValueError(f"needs three chosen and three rejected replies, got {len(chosen)} and {len(rejected)}")
    return item_of(row_id, subset_of(row), row["prompt"], chosen + rejected, {})


def with_domain(row: Row, where: str) -> Row:
    """The row of RM-Bench with its domain as subset: that of the file's name (`math_filtered.json`, and score files
    named after it), whose rows may name the source of the prompt as `subset`, else the row's own `domain`."""
    of_file, filtered, _ = Path(where).name.partition("_filtered")
    if not isinstance(row, Mapping) or not (filtered or row.get("domain")):
        return row
    return {**row, "subset": of_file if filtered else row["domain"]}


def _regroup_rmbench(rows: Sequence[Row], *, where: str) -> list[Row]:
    """Nine rows of one prompt (every chosen style against every rejected style) back into one row."""
    groups: dict[str, dict[str, Any]] = {}
    for row in rows:
        meta = row["meta"]
        group = groups.setdefault(meta["group"], {"chosen": {}, "rejected": {}, "cells": set(), "row": row})
        group["chosen"].setdefault(int(meta["chosen_style"]), row["chosen"])
        group["rejected"].setdefault(int(meta["rejected_style"]), row["rejected"])
        group["cells"].add((meta["chosen_style"], meta["rejected_style"]))
    for name, group in groups.items():
        if len(group["cells"]) != 9:
            raise DataError(
                f"{where}: prompt {name} has {len(group['cells'])} of its nine style pairs; file is cut off?"
            )
    return [
        {
            "id": name,
            "prompt": group["row"]["prompt"],
            "subset": subset_of(group["row"]),
            "chosen": [group["chosen"][style] for style in range(3)],
            "rejected": [group["rejected"][style] for style in range(3)],
        }
        for name, group in groups.items()
    ]


JUDGEBENCH_CATEGORIES = {"mmlu": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math"}


def judgebench_category(source: str) -> str:
    """knowledge, reasoning, math or coding, from JudgeBench's `source`."""
    result = (category for start, category in JUDGEBENCH_CATEGORIES.items() if source.startswith(start))
    return next(result, "coding" if source.startswith("livecodebench") else source)


def _judgebench(row: Row, row_id: str) -> Item:
    label, replies = row["label"], [row["response_A"], row["response_B"]]
    if label not in ("A>B", "B>A"):
        raise ValueError(f"label must be A>B or B>A, got {label!r}")
    right_first = replies if label == "A>B" else replies[::-1]
    row_id = str(row.get("pair_id", row_id))
    return item_of(row_id, judgebench_category(subset_of(row)), row["question"], right_first, {})


def _steps(row: Row, row_id: str) -> Item:
    label = row["first_error"] if "first_error" in row else row["label"]
    completion = read_steps(row["steps"])
    if not -1 <= int(label) < len(completion.step_ends):
        raise ValueError(f"first error {label} of {len(completion.step_ends)} steps")
    subset = subset_of(row) if "subset" in row else row_id.rsplit("-", 1)[0]
    prompt = row["prompt"] if "prompt" in row else row["problem"]
    turns = conversation(prompt)
    candidates = Candidates(turns, (replace(completion, source=row.get("generator")),))
    cluster = content_hash(messages_json(turns))
    return Item(f"{subset}/{row_id}", subset, cluster, {"first_error": int(label)}, candidates)


def _nway(row: Row, row_id: str) -> Item:
    replies = list(row["responses"])
    if len(replies) < 2:
        raise ValueError(f"needs two replies or more, got {len(replies)}")
    values = [gold_value(reply) for reply in replies]
    return item_of(row_id, subset_of(row), row["prompt"], [reply["text"] for reply in replies], {"values": values})


def gold_value(reply: Mapping[str, Any]) -> float | None:
    """Up is better: the score, minus the rank, or 1 / 0 for right and wrong; None where there is none."""
    if reply.get("score") is not None:
        return float(reply["score"])
    if reply.get("rank") is not None:
        return -float(reply["rank"])
    return float(reply["correct"]) if reply.get("correct") is not None else None


def _annotators(row: Row, row_id: str) -> Item:
    replies = (row["response_a"], row["response_b"])
    return item_of(row_id, subset_of(row), row["prompt"], replies, {"votes": votes_of(row)})


def votes_of(row: Row) -> list[str]:
    """a, b or tie of every person."""
    votes = [label["preference"] for label in row["labels"]]
    if any(vote not in ("a", "b", "tie") for vote in votes):
        raise ValueError(f"a preference is a, b or tie, got {sorted(set(votes))}")
    return votes


def _unique(items: list[Item]) -> list[Item]:
    seen: dict[str, int] = {}
    results = []
    for item in items:
        seen[item.id] = seen.get(item.id, 0) + 1
        repeated = f"{item.id}#{seen[item.id]}" if seen[item.id] > 1 else item.id
        results.append(Item(repeated, item.subset, item.cluster, item.gold, item.candidates))
    return results


def rmbench(rows: Sequence[Row], where: str) -> list[Item]:
    """RM-Bench's rows, its nine rows a prompt put together first."""
    if rows and "chosen_style" in (rows[0].get("meta") or {}):
        rows = _regroup_rmbench(rows, where=where)
    return each("rmbench", _rmbench)([with_domain(row, where) for row in rows], where)


PAIRS = each("pairs", _pair)
BEST_OF = each("best_of", _best_of)
JUDGEBENCH = each("judgebench", _judgebench)
STEPS = each("steps", _steps)
NWAY = each("nway", _nway)
ANNOTATORS = each("annotators", _annotators)
