"""Other people's stored scores: result files of reward-bench, RM-Bench, JudgeBench, ProcessBench, and plain rows.

A file, or a folder whose files are one model's run together, by the suite's rule:

    pairs         one JSON object of columns (id, subset, scores_chosen, scores_rejected; results where a judge or a
                  custom classifier stored no scores), or a list or JSON Lines of such rows  (RewardBench 1)
    best_of       the same with `scores` (lists, the right answers first) and num_correct, or `results` alone, but for
                  Ties, which needs scores  (RewardBench 2)
    pairs, best_of  one JSON object of accuracies by subset, as in the `eval-set/` folders of both
    rmbench       a JSON list of rows with score_chosen [3], score_rejected [3] and domain, or one such file a domain
                  (chat_filtered_MODEL.json)
    judgebench    JSON Lines with pair_id, label, source, judgments[].decision, judgments[].judgment.scores
    first_error   rows with label and prediction, null where there is none  (ProcessBench)
    nway          rows with responses [{score | rank | correct}] and scores [N]
    annotators    rows with labels [{preference a | b | tie}] and scores [2] of response_a and response_b, or p

`p` is a judge's: one or two probabilities that the first reply (chosen, response_a) is the better one, as shown and
swapped, null where it could not be read; rows of pairs may have it too. Scores are taken as they are; a score may be
wrapped in a list of one. Clusters are prompts where the file has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.suites.forms import gold_value, judgebench_category, subset_of, votes_of, with_domain
from evaluation.suites.items import Answer, Item
from evaluation.suites.load import SUFFIXES, Loaded, check, read_rows
from evaluation.suites.suite import Subset, Suite
from rmkit.errors import DataError
from rmkit.ids import content_hash, digest, file_sha256
from rmkit.models.artifact.folder import CARD
from rmkit.types import ModelInfo

Row = Mapping[str, Any]
Scored = tuple[Item, Answer]


def load_stored(
    suite: Suite, path: Path, *, allow_changed: bool = False
) -> tuple[Loaded, dict[str, Answer], ModelInfo]:
    """Items without texts, their answers, and what is known of the model. Raises DataError for another format."""
    files = stored_files(path)
    check_stored(path)
    name, result = path.stem, []
    for file in files:
        rows = read_rows(file)
        table = rows[0] if len(rows) == 1 and isinstance(rows[0], Mapping) else {}
        name = str(table.get("model") or name)
        if _is_summary(suite, table):
            result += _summary(suite, table)
        else:
            rows = _unpivot(table) if isinstance(table.get("subset"), list) else rows
            result += [_read(suite, row, number, file) for number, row in enumerate(rows, start=1)]
    result = _numbered(result, path)
    items = [item for item, _ in result]
    loaded = check(suite, items, source=path.name, local=False, allow_changed=allow_changed)
    content = digest([file_sha256(file) for file in files])
    return (
        loaded,
        {answer.item: answer for _, answer in result},
        ModelInfo(name, "explicit", "logit", True, f"stored:{content}"),
    )


def check_stored(path: Path) -> None:
    """Raises DataError where there are no stored scores."""
    if not stored_files(path):
        raise DataError(f"no such file, or a folder without files of scores ({', '.join(SUFFIXES)}): {path}")


def stored_files(path: Path) -> list[Path]:
    """The files of scores that a path means: itself, or those in a folder that is no model; empty for anything else."""
    if path.is_file():
        return [path] if path.suffix != ".toml" else []  # a .toml is a judge
    if not path.is_dir() or (path / CARD).exists():
        return []
    return sorted(file for file in path.iterdir() if file.is_file() and file.name.endswith(SUFFIXES))


def _numbered(result: Sequence[Scored], path: Path) -> list[Scored]:
    """Items of one name get a running number; the same name with the same scores is one run stored twice."""
    seen: dict[str, list[Answer]] = {}
    results = []
    for item, answer in result:
        before = seen.setdefault(item.id, [])
        if any(repr(answer) == repr(other) for other in before):
            raise DataError(f"{path}: {item.id} appears twice with the same scores; one run's scores are expected")
        before.append(answer)
        name = item.id if len(before) == 1 else f"{item.id}#{len(before)}"
        results.append((replace(item, id=name), replace(answer, item=name)))
    return results


def _unpivot(table: Row) -> list[Row]:
    """Columns of equal length as rows; plain values (model, chat_template) are left out."""
    n = len(table["subset"])
    columns = {key: values for key, values in table.items() if isinstance(values, list) and len(values) == n}
    return [{key: values[index] for key, values in columns.items()} for index in range(n)]


def _read(suite: Suite, row: Any, number: int, path: Path) -> Scored:
    readers: dict[str, Callable[[Suite, Row, str], Scored]] = {
        "pairs": _pair,
        "best_of": _list,
        "rmbench": _rmbench,
        "judgebench": _judgebench,
        "first_error": _first_error,
        "nway": _nway,
        "annotators": _annotators,
    }
    if suite.rule not in readers:
        raise DataError(f"suite {suite.name}: no stored format is known for the rule {suite.rule!r}")
    if suite.rule == "rmbench":
        row = with_domain(row, path.name)
    try:
        return readers[suite.rule](suite, row, str(row.get("id", number)))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        fields = ", ".join(row) if isinstance(row, Mapping) else repr(row)[:80]
        raise DataError(
            f"{path}, row {number}: not stored scores for suite {suite.name} ({type(error).__name__}: {error}); "
            f"its fields: {fields}"
        ) from error


def _cluster(row: Row, fallback: str) -> str:
    prompt = row.get("prompt") or row.get("question") or row.get("problem")
    return content_hash(str(prompt)) if prompt else fallback


def _number(value: Any) -> float:
    """A score, perhaps in a list of one; NaN for null."""
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"expected one score, got {len(value)}")
        value = value[0]
    return math.nan if value is None else float(value)


def _item(row: Row, row_id: str, subset: str, gold: Mapping[str, Any] | None = None, cluster: str = "") -> Item:
    name = f"{subset}/{row_id}"
    return Item(name, subset, cluster or _cluster(row, name), gold or {})


def _answer(item: Item, scores: Sequence[float]) -> Answer:
    lost = any(map(math.isnan, scores))
    return Answer(item.id, tuple(scores), unscored="no score is stored" if lost else None)


def _pair(suite: Suite, row: Row, row_id: str) -> Scored:
    item = _item(row, row_id, str(row["subset"]))
    if row.get("p") is not None:
        return item, _verdicts(item, row["p"])
    scores = [_number(row.get("scores_chosen")), _number(row.get("scores_rejected"))]
    if any(map(math.isnan, scores)) and row.get("results") is not None:
        return item, _verdicts(item, [row["results"]])
    return item, _answer(item, scores)


def _verdicts(item: Item, values: Sequence[Any]) -> Answer:
    """One or two probabilities that the first candidate is the better one, or one stored credit."""
    p = tuple(_number(value) for value in values)
    if not 1 <= len(p) <= 2 or any(value < 0 or value > 1 for value in p):
        raise ValueError(f"expected one or two numbers from 0 to 1, got {values!r}")
    return Answer(item.id, p=p, unscored="no verdict could be read" if any(map(math.isnan, p)) else None)


def _list(suite: Suite, row: Row, row_id: str) -> Scored:
    subset = str(row["subset"])
    declared = next((s.name for s in suite.subsets if s.name.lower() == subset.lower()), subset)
    cluster = f"{declared}/{row_id.split(':')[1]}" if row_id.startswith(("ref:", "tied:")) else ""
    item = _item(row, row_id, declared, {"num_correct": int(row.get("num_correct") or 1)}, cluster)
    scores = [_number(value) for value in row.get("scores") or ()]
    if not any(not math.isnan(score) for score in scores) and row.get("results") is not None:
        if suite.rule_of(declared) != "best_of":
            raise ValueError(f"prompts of {declared} need their scores, `results` alone is not enough")
        return item, _verdicts(item, [row["results"]])
    if len(scores) < 2:
        raise ValueError(f"needs two scores or more, or results; got {len(scores)} scores")
    return item, _answer(item, scores)


def _rmbench(suite: Suite, row: Row, row_id: str) -> Scored:
    scores = [_number(value) for value in [*row["score_chosen"], *row["score_rejected"]]]
    if len(scores) != 6:
        raise ValueError(f"needs three and three scores, got {len(scores)} in all")
    item = _item(row, row_id, str(row["subset"]))
    return item, _answer(item, scores)


def _judgebench(suite: Suite, row: Row, row_id: str) -> Scored:
    """One judgment is a single game by its decision; two are both orders, the second one shown swapped."""
    label, judgments = row["label"], row["judgments"]
    if label not in ("A>B", "B>A") or not 1 <= len(judgments) <= 2:
        raise ValueError(f"needs a label A>B or B>A and one or two judgments, got {label!r} and {len(judgments)}")
    item = _item(row, str(row.get("pair_id", row_id)), judgebench_category(str(row["source"])))
    scores = ((judgments[0] or {}).get("judgment") or {}).get("scores")
    if scores:  # a reward model: the same two scores in both judgments
        right_first = [_number(value) for value in (scores if label == "A>B" else scores[::-1])]
        return item, _answer(item, right_first)
    shown = [(judgment or {}).get("decision") for judgment in judgments]
    p = tuple(_p_right(decision, label, swapped=order == 1) for order, decision in enumerate(shown))
    return item, Answer(item.id, p=p, unscored=None if any(shown) else "no verdict could be read")


def _p_right(decision: str | None, label: str, *, swapped: bool) -> float:
    if decision is None:
        return math.nan
    if decision not in ("A>B", "B>A"):
        return 0.5
    return float((decision == label) != swapped)


def _first_error(suite: Suite, row: Row, row_id: str) -> Scored:
    subset = str(row.get("subset") or row_id.rsplit("-", 1)[0])
    item = _item(row, row_id, subset, {"first_error": int(row["label"])})
    return item, _answer(item, [_number(row["prediction"])])


def _nway(suite: Suite, row: Row, row_id: str) -> Scored:
    values = [gold_value(reply) for reply in row["responses"]]
    scores = [_number(value) for value in row["scores"]]
    if len(scores) != len(values):
        raise ValueError(f"{len(values)} responses and {len(scores)} scores")
    item = _item(row, row_id, subset_of(row), {"values": values})
    return item, _answer(item, scores)


def _annotators(suite: Suite, row: Row, row_id: str) -> Scored:
    item = _item(row, row_id, subset_of(row), {"votes": votes_of(row)})
    if row.get("p") is not None:
        return item, _verdicts(item, row["p"])
    scores = [_number(value) for value in row["scores"]]
    if len(scores) != 2:
        raise ValueError(f"needs the scores of response_a and response_b, got {len(scores)}")
    return item, _answer(item, scores)


# What one item may earn is a multiple of 1 / this: halves of a pair, 1/2, 1/3 or 1/4 of a shared maximum of four.
GRAIN = {"pairs": 2, "best_of": 12}
UNITS = {"pairs": "pairs", "best_of": "prompts"}


def _is_summary(suite: Suite, table: Row) -> bool:
    """Accuracies by subset (fractions), as in reward-bench's `eval-set/`."""
    return suite.rule in GRAIN and any(isinstance(_stated(table, subset), float | int) for subset in suite.subsets)


def _stated(table: Row, subset: Subset) -> Any:
    return table.get(subset.name, table.get(subset.name.lower()))


def _summary(suite: Suite, table: Row) -> list[Scored]:
    """As many right items of each subset as its accuracy says, and one item with what is left over (ties of judges). A
    subset with a score of its own (Ties) has that score in each of its items."""
    results: list[Scored] = []
    for subset in suite.subsets:
        stated = _stated(table, subset)
        if not isinstance(stated, float | int) or not subset.items:
            continue
        if suite.rule_of(subset.name) not in GRAIN:
            results += [_graded(subset.name, i, float(stated)) for i in range(subset.items)]
            continue
        grain = GRAIN[suite.rule_of(subset.name)]
        parts = stated * subset.items * grain
        if not 0 <= stated <= 1 or abs(parts - round(parts)) > 1e-6 * subset.items:
            raise DataError(f"{subset.name}: {stated} is not a number right of {subset.items} {UNITS[suite.rule]}")
        right, rest = divmod(round(parts), grain)
        results += [
            _graded(subset.name, i, 1.0 if i < right else rest / grain if i == right else 0.0)
            for i in range(subset.items)
        ]
    return results


def _graded(subset: str, index: int, p: float) -> Scored:
    item = Item(f"{subset}/{index}", subset, f"{subset}/{index}", {"num_correct": 1})
    return item, Answer(item.id, p=(p,))
