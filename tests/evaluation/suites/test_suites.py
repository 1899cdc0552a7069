"""Suite files, the forms of benchmark rows, and the check that the data is what the suite declares."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluation.suites.forms import read_items
from evaluation.suites.load import load_items, read_rows
from evaluation.suites.suite import load_suite, names
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, MissingExtraError, UsageError
from tests.exports import row, write_export


@pytest.mark.parametrize("name", names())
def test_every_shipped_suite_loads_and_says_where_it_comes_from(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.license
    assert suite.open or suite.subsets
    assert suite.headline in suite.measures


def test_counts_of_the_published_benchmarks() -> None:
    def total(name: str) -> int:
        return sum(subset.items or 0 for subset in load_suite(name).subsets if not subset.optional)

    assert total("rewardbench") == 2985
    assert total("rewardbench2") == 1865
    assert total("rm-bench") == 1327
    assert total("judgebench") == 350
    assert total("judgebench-claude") == 270
    assert total("processbench") == 3400


MINIMAL = """
name = "mine"
title = "Mine"
rule = "pairs"
form = "pairs"
subset = [{ name = "easy", items = 2 }, { name = "hard", items = 1 }]
[[measure]]
name = "macro"
mean = ["easy", "hard"]
"""


def own_suite(folder: Path, text: str = MINIMAL) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('rule = "pairs"', 'rule = "pears"'), "unknown rule 'pears'; did you mean 'pairs'"),
        (('form = "pairs"', 'form = "x"'), "unknown form 'x'"),
        (('title = "Mine"', 'title = "Mine"\ncolor = "red"'), "unknown key 'color'"),
        (('mean = ["easy", "hard"]', 'mean = ["easy", "harder"]'), "needs 'harder'"),
        (('mean = ["easy", "hard"]', 'mean = ["easy"]\npool = ["hard"]'), "exactly one of mean, sum, harmonic, pool"),
        (('mean = ["easy", "hard"]', "mean = []"), "expected parts"),
        (("items = 2", 'items = "two"'), "items: expected int"),
        (('title = "Mine"', 'title = "Mine"\nthreshold = 1.5'), "threshold is a probability"),
        (('[[measure]]\nname = "macro"\nmean = ["easy", "hard"]', ""), "no [[measure]]"),
        (('subset = [{ name = "easy", items = 2 }, { name = "hard", items = 1 }]', ""), "no [[subset]]"),
    ],
)
def test_bad_suite_files_are_refused_by_name(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in MINIMAL
    with pytest.raises(ConfigError) as caught:
        load_suite(own_suite(tmp_path, MINIMAL.replace(*change)))
    assert message in str(caught.value)


def test_unknown_suite_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no suite 'reward-bench'; one of: .*rewardbench, .*or the path"):
        load_suite("reward-bench")


def pair(name: str, subset: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "subset": subset, "prompt": f"about {name}?", "chosen": "yes indeed", "rejected": "no", **more}


ROWS = [pair("1", "easy"), pair("2", "easy"), pair("3", "hard")]


def write(folder: Path, rows: list[dict[str, Any]], name: str = "mine.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_own_suite_over_own_file(tmp_path: Path) -> None:
    suite = load_suite(own_suite(tmp_path))
    loaded = load_items(suite, write(tmp_path, ROWS))
    assert [item.id for item in loaded.items] == ["easy/1", "easy/2", "hard/3"]
    assert (loaded.missing, loaded.changed) == ((), ())
    assert load_items(suite, str(tmp_path)).items == loaded.items  # found in a folder by the suite's name


@pytest.mark.parametrize("wrap", ["jsonl.gz", "json", "parquet"])
def test_file_kinds_give_the_same_items(tmp_path: Path, wrap: str) -> None:
    suite = load_suite(own_suite(tmp_path))
    plain = load_items(suite, write(tmp_path, ROWS))
    path = tmp_path / f"other.{wrap}"
    if wrap == "jsonl.gz":
        path.write_bytes(gzip.compress(Path(write(tmp_path, ROWS)).read_bytes()))
    elif wrap == "json":
        path.write_text(json.dumps(ROWS))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert load_items(suite, str(path)).digests == plain.digests


def test_missing_subset_is_reported_and_wrong_counts_are_refused(tmp_path: Path) -> None:
    suite = load_suite(own_suite(tmp_path))
    assert load_items(suite, write(tmp_path, ROWS[:2])).missing == ("hard",)
    with pytest.raises(DataError, match=r"easy has 1 items, expected 2; .*--allow-changed"):
        load_items(suite, write(tmp_path, ROWS[1:]))
    changed = load_items(suite, write(tmp_path, ROWS[1:]), allow_changed=True)
    assert changed.changed == ("easy has 1 items, expected 2",)
    with pytest.raises(DataError, match="unknown subset 'odd' \\(1 items\\)"):
        load_items(suite, write(tmp_path, [*ROWS, pair("4", "odd")]))


def test_changed_content_is_refused_by_its_digest(tmp_path: Path) -> None:
    suite = load_suite(own_suite(tmp_path))
    digest = load_items(suite, write(tmp_path, ROWS)).digests["hard"]
    pinned = load_suite(own_suite(tmp_path, MINIMAL.replace("items = 1", f'items = 1, digest = "{digest}"')))
    renamed = [*ROWS[:2], {**ROWS[2], "id": "another name"}]
    assert load_items(pinned, write(tmp_path, renamed)).changed == ()  # names are not content
    with pytest.raises(DataError, match=f"hard has content .*, expected {digest[:12]}"):
        load_items(pinned, write(tmp_path, [*ROWS[:2], {**ROWS[2], "chosen": "yes  indeed"}]))


def test_digest_changes_with_the_gold_facts() -> None:
    rows = [{"id": "a", "prompt": "p", "responses": [{"text": "x", "score": 1}, {"text": "y", "score": 0}]}]
    other = [{"id": "a", "prompt": "p", "responses": [{"text": "x", "score": 0}, {"text": "y", "score": 1}]}]
    assert read_items("nway", rows, where="t")[0].content != read_items("nway", other, where="t")[0].content


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nothing.jsonl", "no such file or folder"),
        (".", "holds no data for suite mine; expected one of: mine.jsonl.gz"),
    ],
)
def test_data_that_is_not_there(tmp_path: Path, data: str, message: str) -> None:
    suite = load_suite(own_suite(tmp_path))
    with pytest.raises(DataError, match=message):
        load_items(suite, str(tmp_path / data))


def test_suite_without_any_source_asks_for_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMKIT_BENCHMARKS", raising=False)
    with pytest.raises(UsageError, match="pass --data"):
        load_items(load_suite(own_suite(tmp_path)))
    monkeypatch.setenv("RMKIT_BENCHMARKS", str(tmp_path))
    write(tmp_path, ROWS)
    assert len(load_items(load_suite(own_suite(tmp_path))).items) == 3


def test_rows_of_another_form_name_the_row_and_its_fields(tmp_path: Path) -> None:
    suite = load_suite(own_suite(tmp_path))
    with pytest.raises(DataError, match=r"row 2: not of form 'pairs' \(KeyError: 'chosen'\); its fields: prompt"):
        load_items(suite, write(tmp_path, [ROWS[0], {"prompt": "p", "rejected": "x"}]))
    with pytest.raises(DataError, match=r"row 1: .*neither text nor a list of turns"):
        load_items(suite, write(tmp_path, [{**ROWS[0], "chosen": None}]))
    path = tmp_path / "cut.jsonl"
    path.write_text(json.dumps(ROWS[0]) + '\n{"id": ')
    with pytest.raises(DataError, match=r"cut\.jsonl, line 2: not JSON"):
        read_rows(path)


def test_hub_spellings_of_every_form() -> None:
    judge = {"pair_id": "u", "source": "mmlu-pro-law", "question": "q", "response_A": "x", "response_B": "y"}
    [item] = read_items("judgebench", [{**judge, "label": "B>A"}], where="t")
    assert item.id == "knowledge/u"
    assert [completion.text for completion in item.candidates.completions] == ["y", "x"]  # type: ignore[union-attr]
    sources = ("livebench-reasoning", "livebench-math", "livecodebench")
    rows = [{**judge, "source": source, "label": "A>B"} for source in sources]
    assert [item.subset for item in read_items("judgebench", rows, where="t")] == ["reasoning", "math", "coding"]

    steps = {"id": "gsm8k-0", "problem": "p", "steps": ["a", "bc"], "label": 1}
    [item] = read_items("steps", [steps], where="t")
    assert (item.subset, item.gold) == ("gsm8k", {"first_error": 1})
    assert item.candidates is not None
    assert item.candidates.completions[0].text == "a\n\nbc"
    assert item.candidates.completions[0].step_ends == (1, 5)

    best = {"id": "tied:7", "subset": "Ties", "prompt": "p", "chosen": ["a", "b"], "rejected": ["c"], "num_correct": 2}
    [tied, ref] = read_items("best_of", [best, {**best, "id": "ref:7", "prompt": "q", "num_correct": 1}], where="t")
    assert tied.cluster == ref.cluster == "Ties/7"

    matrix = {"id": 3, "domain": "code", "prompt": "p", "chosen": list("abc"), "rejected": list("def")}
    [item] = read_items("rmbench", [matrix], where="t")
    assert (item.id, item.subset) == ("code/3", "code")


def test_nine_rmbench_rows_become_one_matrix() -> None:
    rows = [
        {
            "id": f"{i}{j}",
            "subset": "chat",
            "prompt": "p",
            "chosen": f"c{i}",
            "rejected": f"r{j}",
            "meta": {"group": "g", "chosen_style": i, "rejected_style": j},
        }
        for j in (2, 0, 1)
        for i in (1, 0, 2)
    ]
    [item] = read_items("rmbench", rows, where="t")
    assert item.candidates is not None
    assert [c.text for c in item.candidates.completions] == ["c0", "c1", "c2", "r0", "r1", "r2"]
    with pytest.raises(DataError, match="8 of its nine"):
        read_items("rmbench", rows[:-1], where="t")


def test_repeated_ids_stay_apart_and_prompts_are_the_clusters() -> None:
    rows = [pair("1", "a"), {**pair("1", "a"), "chosen": "other"}, pair("2", "a")]
    items = read_items("pairs", rows, where="t")
    assert [item.id for item in items] == ["a/1", "a/1#2", "a/2"]
    assert items[0].cluster == items[1].cluster != items[2].cluster


def test_real_files_are_what_the_suites_declare(shared_data: Path) -> None:
    for name in ("rm-bench", "hep", "xstest", "faireval"):
        loaded = load_items(load_suite(name), str(shared_data))
        assert loaded.changed == ()
        assert loaded.missing == (("math",) if name == "rm-bench" else ())
    with pytest.raises(DataError, match="math has 999 items, expected 1000"):
        load_items(load_suite("processbench"), str(shared_data))


def version_folder(folder: Path) -> str:
    rows = [
        row("q1", ["short", "much longer"], p=[0.0, 1.0], family=1, subset="x", split="test"),
        row("q1b", ["a", "bb"], p=[1.0, 0.0], family=1, subset="x", split="test"),
        row("q2", ["a", "b"], p=[0.5, 0.5], family=2, subset="x", split="test"),
        row("q3", ["a", "bb", "ccc"], kind="list", ranks=[2, 0, 0], family=3, subset="y", split="test"),
        row("q4", ["a"], kind="single", family=4, split="test"),
        row("q5", ["a", "bb"], p=[1.0, 0.0], family=5, subset="x", split="train"),
    ]
    return str(write_export(folder / "data", rows))


def test_dataset_version_as_pairs_takes_the_test_split_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    loaded = load_items(load_suite("pairs"), version_folder(tmp_path))
    assert [[c.text for c in item.candidates.completions] for item in loaded.items] == [  # type: ignore[union-attr]
        ["much longer", "short"],
        ["a", "bb"],
        ["bb", "a"],  # a list: all its decided pairs, which count as one together
        ["ccc", "a"],
    ]
    assert [item.share for item in loaded.items] == pytest.approx([1, 1, 1 / 3, 1 / 3])
    assert [item.row for item in loaded.items[2:]] == [loaded.items[2].row] * 2
    assert loaded.left_out == {"pairs without a decision": 2, "rows: nothing to compare (kind single)": 1}
    train = load_items(load_suite("pairs"), f"{version_folder(tmp_path / 'again')}:train")
    assert len(train.items) == 1


def test_dataset_version_as_lists_keeps_gold_ties(tmp_path: Path) -> None:
    loaded = load_items(load_suite("nway"), version_folder(tmp_path))
    assert [item.gold["values"] for item in loaded.items] == [[-2.0, 0.0, 0.0]]
    with pytest.raises(UsageError, match="versions give pairs, nway, steps, absolute and annotators"):
        load_items(load_suite("rm-bench"), version_folder(tmp_path / "b"))


def test_dataset_version_as_steps_has_the_first_error_and_leaves_out_what_is_not_known(tmp_path: Path) -> None:
    def solution(name: str, labels: list[float | None], ends: list[int]) -> dict[str, Any]:
        return row(name, ["one two six"], kind="steps", step_labels=labels, step_ends=[ends], split="test", subset="x")

    rows = [
        solution("right", [1.0, 0.75, 1.0], [3, 7, 11]),
        solution("wrong", [1.0, 0.25, None], [3, 7, 11]),
        solution("unknown", [None, 0.0, None], [3, 7, 11]),
        solution("open", [1.0, None, None], [3, 7, 11]),
        solution("short", [1.0, 0.0], [3, 7, 11]),
        row("plain", ["a"], kind="single", split="test"),
    ]
    loaded = load_items(load_suite("steps"), str(write_export(tmp_path / "data", rows)))
    assert [item.gold["first_error"] for item in loaded.items] == [-1, 1]
    assert loaded.items[0].candidates is not None
    assert loaded.items[0].candidates.completions[0].step_ends == (3, 7, 11)
    assert loaded.left_out == {
        "rows with unlabeled steps before the first error": 2,
        "rows without one response in labeled steps": 2,
    }


class FakeHub:
    """Stands in for the datasets library: one split, all splits, or no network."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: tuple[Any, ...] = ()

    def load_dataset(self, path: str, config: str | None, *, split: str | None) -> Any:
        self.asked = (path, config, split)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_hub_data_by_split_and_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMKIT_BENCHMARKS", raising=False)
    row_ = {"prompt": "p", "chosen": list("abc"), "rejected": list("def"), "domain": "chat"}
    hub = FakeHub([{**row_, "id": i, "prompt": f"p{i}"} for i in range(129)])
    monkeypatch.setitem(sys.modules, "datasets", hub)
    loaded = load_items(load_suite("rm-bench"))
    assert hub.asked == ("THU-KEG/RM-Bench", None, "train")
    assert (loaded.source, len(loaded.items)) == ("hub:THU-KEG/RM-Bench", 129)
    assert loaded.changed == ()  # the hub's own revision is its identity; counts are checked, digests are for files
    steps = {"problem": "p", "steps": ["a"], "label": -1}
    hub = FakeHub({"gsm8k": [{**steps, "id": f"gsm8k-{i}", "problem": f"p{i}"} for i in range(400)]})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    assert {item.subset for item in load_items(load_suite("processbench")).items} == {"gsm8k"}
    monkeypatch.setitem(sys.modules, "datasets", FakeHub(ConnectionError("no route to host\nmore")))
    with pytest.raises(
        DataError, match=r"cannot be loaded from the hub \(ConnectionError: no route to host\); pass --data"
    ):
        load_items(load_suite("rm-bench"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"\[train\]'"):
        load_items(load_suite("rm-bench"))


@pytest.mark.slow
def test_rmbench_files_of_its_own_repository_are_the_same_data(shared_data: Path, tmp_path: Path) -> None:
    """chat_filtered.json and the like: a list a domain, three chosen and three rejected, the name alone says which."""
    suite = load_suite("rm-bench")
    known = load_items(suite, str(shared_data))
    by_domain: dict[str, list[dict[str, Any]]] = {}
    for item in known.items:
        assert item.candidates is not None
        texts = [completion.text for completion in item.candidates.completions]
        prompt = item.candidates.prompt[-1].content
        rows = by_domain.setdefault(item.subset, [])
        rows.append(
            {
                "id": len(rows),
                "subset": "where it is from",
                "prompt": prompt,
                "chosen": texts[:3],
                "rejected": texts[3:],
            }
        )
    for domain, rows in by_domain.items():
        (tmp_path / f"{domain}_filtered.json").write_text(json.dumps(rows))
    loaded = load_items(suite, str(tmp_path))
    assert loaded.digests == known.digests
    assert (loaded.missing, loaded.changed) == (("math",), ())
    total = [one | {"domain": domain} for domain, rows in by_domain.items() for one in rows]
    for one in total:
        del one["subset"]
    (tmp_path / "total_dataset.json").write_text(json.dumps(total))  # read instead of them, not beside them
    assert load_items(suite, str(tmp_path)).source == "total_dataset.json"
    assert load_items(suite, str(tmp_path)).digests == known.digests
    alone = load_items(suite, str(tmp_path / "chat_filtered.json"))
    assert alone.digests == {"chat": known.digests["chat"]}


def test_the_name_of_a_dataset_alone_is_its_last_version(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}", "split": "test"} for i in range(6)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["ingest", str(source), "--name", "mine", "--license", "MIT", "--rater", "me:human"]) == 0
    suite = load_suite("pairs")
    named, plain = load_items(suite, "mine@v1:all"), load_items(suite, "mine:all")
    assert plain.source == named.source == "mine@v1:all"
    assert plain.digests == named.digests
    with pytest.raises(DataError, match="no such file or folder: nobody, and no dataset of that name"):
        load_items(suite, "nobody")


def test_eval_of_labeled_steps_names_the_suite_that_reads_them(tmp_path: Path) -> None:
    steps = row("q", ["one two six"], kind="steps", step_labels=[1.0, 0.0], step_ends=[[3, 11]], split="test")
    folder = str(write_export(tmp_path / "data", [steps]))
    message = f"nothing to evaluate.*rmkit eval MODEL --suite steps --data {folder}:test"
    with pytest.raises(DataError, match=message):
        load_items(load_suite("pairs"), folder)
    assert len(load_items(load_suite("steps"), f"{folder}:test").items) == 1  # the command that it names
