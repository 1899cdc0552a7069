"""Rows that need no teacher, from labels alone.

    verdict tokens (GenRM, arXiv 2408.15240)   the reply is the verdict line and nothing else, so SFT is classification
                                               at the verdict's token, and p(verdict) is read there later. Forms
                                               pairwise (both orders) and yes_no (better: yes, other: no). `solutions`
                                               (GenRM's lambda) adds that share of rows in which the better response
                                               itself is the reply to its own prompt.
    both orders (J1, arXiv 2505.10320)         prompts with the right letter, the two orders of a pair on neighboring
                                               rows: what GRPO's consistency reward needs.

Row: id, order, verdict, prompt, completion (verdict tokens only), task, length_gap, source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from data_pipelines.judge.data.folder import Built, Row
from data_pipelines.judge.data.items import Item, as_dicts, by_hash, prompts_of, reply
from rmkit.errors import UsageError
from rmkit.judge import Judge


def verdict_rows(judge: Judge, items: Sequence[Item], *, skipped: Mapping[str, int], solutions: float = 0.0) -> Built:
    """Two rows per pair, balanced by construction, and `solutions` rows in [0, 1] of those many.

    Raises UsageError for a judge whose verdict is neither A or B nor yes or no.
    """
    if judge.config.form not in ("pairwise", "yes_no"):
        raise UsageError(f"verdict tokens are for the forms pairwise and yes_no, the judge's is {judge.config.form}")
    if not 0 <= solutions <= 1:
        raise UsageError(f"--solutions must be 0 to 1, got {solutions:g}")
    rows = [row for item in items for row in _rows(judge, item)]
    n = round(solutions * len(rows))
    chosen = sorted(items, key=lambda item: by_hash(item.id))[:n]
    return Built([*rows, *map(_solution, chosen)], [], skipped)


def both_orders(judge: Judge, items: Sequence[Item], *, skipped: Mapping[str, int]) -> Built:
    """Two neighboring rows per pair, without a reply. Raises UsageError for a judge that is not pairwise."""
    if judge.config.form != "pairwise" or judge.config.orders != "both":
        raise UsageError("the both-order reward is for a pairwise judge that asks in both orders")
    rows = [row | {"task": "both orders"} for item in items for row in _verdict_rows(judge, item)]
    return Built(rows, [], skipped)


def _rows(judge: Judge, item: Item) -> Iterator[Row]:
    for row in _verdict_rows(judge, item):
        yield row | {"completion": reply(f"Verdict: {row['verdict']}"), "task": "verification"}


def _verdict_rows(judge: Judge, item: Item) -> Iterator[Row]:
    for shown, prompt in prompts_of(judge, item).items():
        verdict = item.verdict(shown) if len(shown) == 2 else "yes" if shown[0] == item.better else "no"
        yield {
            "id": item.id,
            "order": list(shown),
            "verdict": verdict,
            "prompt": prompt,
            "length_gap": item.length_gap,
            "source": item.source,
        }


def _solution(item: Item) -> Row:
    better = item.candidates.completions[item.better]
    return {
        "id": item.id,
        "order": [item.better],
        "verdict": None,
        "prompt": as_dicts(item.candidates.prompt),
        "completion": as_dicts(better.messages),
        "task": "solution",
        "length_gap": item.length_gap,
        "source": item.source,
    }
