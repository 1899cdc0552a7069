"""Units of another kind out of a dataset version, and the way back to where they come from."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_pipelines.converters import Derived, Example, NotConvertibleError, demonstrations, edits
from data_pipelines.converters.runner import convert, convert_rows
from data_pipelines.ingest.command import ingest
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError
from rmkit.ids import assistant_message
from warehouse.lineage.why import why
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve

GOOD, BAD, FAIR = (assistant_message(text) for text in ("He goes.", "He go.", "He does go."))


def vote(edit: str | None = None, kind: str = "human") -> dict[str, Any]:
    return {"rater": "s/h", "rater_kind": kind, "edit": edit, "ranks": None, "scores": None}


def example(*responses: str, votes: tuple[dict[str, Any], ...] = (), **more: Any) -> Example:
    blank = dict.fromkeys(("ranks", "p", "scores", "step_ends"))
    return {"kind": "single", "responses": list(responses), "votes": list(votes)} | blank | more


def texts(row: dict[str, Any]) -> list[str]:
    return [json.loads(text)[-1]["content"] for text in row["responses"]]


def stored(ref: str) -> list[dict[str, Any]]:
    with open_warehouse(read_only=True) as connection:
        return checkout(connection, resolve(connection, ref), votes=True).to_pylist()


def origins(row: dict[str, Any]) -> list[str]:
    """The source's rows that a unit of its own names."""
    with open_warehouse(read_only=True) as connection:
        sql = "SELECT source_row FROM unit_source JOIN unit USING (unit_id) WHERE h = ?::UUID ORDER BY 1"
        return [name for (name,) in connection.execute(sql, [row["unit"]]).fetchall()]


def test_each_correction_beats_what_it_corrects() -> None:
    row = example(BAD, votes=(vote(GOOD), vote(BAD), vote(FAIR, "llm"), vote(GOOD), vote()))
    pairs = list(edits.convert(row, edits.Config()))
    assert [(list(one.responses), list(one.origins), one.p, one.n_votes) for one in pairs] == [
        ([GOOD, BAD], [None, 0], [1.0, 0.0], 2),
        ([FAIR, BAD], [None, 0], [1.0, 0.0], 1),
    ]
    assert [one.responses[0] for one in edits.convert(row, edits.Config(rater_kind="llm"))] == [FAIR]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (example(BAD), "no correction"),
        (example(BAD, votes=(vote(BAD),)), "the correction changes nothing"),
        (example(BAD, FAIR, votes=(vote(GOOD),)), "a correction of one of several responses"),
    ],
)
def test_no_pair_follows(row: Example, reason: str) -> None:
    with pytest.raises(NotConvertibleError, match=reason):
        list(edits.convert(row, edits.Config()))


def score(response: int, value: float, aspect: str = "clear") -> dict[str, Any]:
    return {"response": response, "aspect": aspect, "value": value}


@pytest.mark.parametrize(
    ("row", "config", "expected"),
    [
        (example(BAD), {}, [(BAD, 0)]),
        (example(BAD, votes=(vote(GOOD), vote(GOOD), vote(BAD))), {}, [(GOOD, None), (BAD, 0)]),
        (example(BAD, votes=(vote(GOOD),)), {"corrected": False}, [(BAD, 0)]),
        (example(BAD, GOOD, FAIR, ranks=[2, 0, 1]), {}, [(GOOD, 1)]),
        (example(BAD, GOOD, p=[0.25, 0.75]), {}, [(GOOD, 1)]),
        (example(GOOD, scores=[score(0, 4), score(0, 1, "brief")]), {"min_score": 3, "aspect": "clear"}, [(GOOD, 0)]),
        (example(BAD, GOOD, FAIR, ranks=[1, 0, 0]), {}, "several responses share the first place"),
        (example(BAD, GOOD), {}, "no preference"),
        (example(), {}, "no response"),
        (example(GOOD, scores=[score(0, 4), score(0, 1, "brief")]), {"min_score": 3}, "rated too low"),
        (example(GOOD, scores=[score(0, 4)]), {"min_score": 3, "aspect": "brief"}, "no rating"),
    ],
)
def test_the_reply_to_imitate(row: Example, config: dict[str, Any], expected: Any) -> None:
    def run() -> list[Derived]:
        return list(demonstrations.convert(row, demonstrations.Config(**config)))

    if isinstance(expected, str):
        with pytest.raises(NotConvertibleError, match=expected):
            run()
    else:
        assert [(one.responses[0], one.origins[0]) for one in run()] == expected
        assert all((one.p, one.scores, one.n_votes) == (None, (), 0) for one in run())


def test_an_unknown_kind_of_rater_is_refused() -> None:
    with pytest.raises(ConfigError, match="human"):
        edits.Config(rater_kind="person")


def house(number: int, original: str, *corrected: str) -> dict[str, Any]:
    made = [{"annotator": f"h{at}", "text": text} for at, text in enumerate(corrected)]
    meta = {"label_type": "human"}
    row = {"id": f"e{number}", "source": "toy", "prompt": "Correct it.", "original": original, "meta": meta}
    return row | ({"edits": made} if made else {"edited": original})


@pytest.fixture
def corrected(home: Path, tmp_path: Path) -> None:
    """Dataset `toy`: e1 corrected twice to the same and once otherwise, e2 to what e1 was, e3 left as it was."""
    rows = [house(1, "He go.", "He goes.", "He goes.", "He went."), house(2, "He goes.", "He go."), house(3, "Fine.")]
    path = tmp_path / "toy.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest(path)


@pytest.mark.usefixtures("corrected")
def test_pairs_are_stored_with_votes_and_lineage() -> None:
    result = convert("edits", "toy", "toy-pairs", edits.Config())
    (step,) = result["steps"]
    assert (step["n_in"], step["n_kept"], step["reasons"]) == (3, 2, {"no correction": 1})
    assert step["facts"] == {"units": 2, "equal_units_united": 1}
    rows = {frozenset(texts(row)): row for row in stored("toy-pairs")}
    contested, clear = rows[frozenset({"He goes.", "He go."})], rows[frozenset({"He went.", "He go."})]
    place = texts(contested).index("He goes.")  # two said so, one said the reverse
    assert (round(contested["p"][place], 6), contested["ranks"][place], contested["n_votes"]) == (0.666667, 0, 3)
    assert (clear["p"][texts(clear).index("He went.")], clear["n_votes"], clear["method"]) == (1, 1, "edits")
    assert (clear["kind"], clear["source"]) == ("pair", "toy")
    with open_warehouse(read_only=True) as connection:
        facts = why(connection, clear["unit"])
    parents = {unit["unit"]: unit["rewritten_from"] for unit in facts["units"]}
    assert parents[clear["unit"]] == facts["units"][0]["unit"]
    assert origins(clear) == ["e1"]
    assert json.loads(clear["meta"]) == {"source": "toy", "label_type": "human", "words_edited": 1}
    assert origins(contested) == ["e1", "e2"]


@pytest.mark.usefixtures("corrected")
def test_the_same_conversion_again_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    first = convert("edits", "toy", "toy-pairs", edits.Config())
    again = convert("edits", "toy", "toy-pairs", edits.Config())
    assert (first["changed"], again["changed"]) == (True, False)
    assert (again["version"], again["digest"], again["run"]) == (first["version"], first["digest"], first["run"])


@pytest.mark.usefixtures("corrected")
def test_demonstrations_leave_as_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert", "demonstrations", "--data", "toy", "--out", "toy-sft"]) == 0
    assert "3 of 3 rows gave 4 units" in capsys.readouterr().out
    assert cli.main(["export", "toy-sft", "--format", "sft", "-o", str(tmp_path / "sft")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "sft" / "rows-00000.jsonl").read_text().splitlines()]
    assert sorted(line["completion"][0]["content"] for line in lines) == ["Fine.", "He go.", "He goes.", "He went."]
    assert {json.dumps(line["prompt"]) for line in lines} == {json.dumps([{"content": "Correct it.", "role": "user"}])}
    assert cli.main(["export", "--verify", str(tmp_path / "sft")]) == 0


@pytest.mark.usefixtures("corrected")
def test_nothing_to_convert_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    convert("demonstrations", "toy", "toy-sft", demonstrations.Config())
    assert cli.main(["convert", "edits", "--data", "toy-sft", "--out", "none", "--set", "rater_kind=llm"]) == 2
    assert "gives no unit for the 4 rows of toy-sft@v1 (no correction: 4)" in capsys.readouterr().err
    assert cli.main(["convert", "edit", "--data", "toy", "--out", "none"]) == 2
    assert "did you mean 'edits'" in capsys.readouterr().err.replace('"', "'")


def test_a_converter_that_miscounts_is_named(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> None:
    def wrong(row: Example, config: Any) -> Iterator[Derived]:
        yield Derived(responses=[GOOD, BAD], origins=[None])

    path = tmp_path / "toy.jsonl"
    path.write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"}) + "\n")
    ingest(path)
    with open_warehouse(read_only=True) as connection:
        table = checkout(connection, resolve(connection, "toy"), votes="full")
    monkeypatch.setattr("data_pipelines.converters.runner.converter", lambda name: SimpleNamespace(convert=wrong))
    with pytest.raises(DataError, match="converter wrong: 2 responses and 1 origins"):
        convert_rows("wrong", table, None)


@pytest.mark.parametrize(
    "name",
    ["edits_ilf_code", *(pytest.param(f"edits_{one}", marks=pytest.mark.slow) for one in ("jfleg", "qa_feedback"))],
)
def test_real_corrections(name: str, home: Path, shared_data: Path) -> None:
    """Counted anew from the file: a pair for each different correction of an original, its editors as votes."""
    path = shared_data / f"{name}.jsonl.gz"
    counted: Counter[tuple[str, str, str]] = Counter()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
            for one in row.get("edits") or [{"text": row.get("edited")}]:
                if one["text"] != row["original"]:
                    counted[prompt, row["original"], one["text"]] += 1
    dataset = ingest(path).dataset
    convert("edits", dataset, "pairs", edits.Config())
    rows = stored("pairs")
    assert len(rows) == len(counted)
    for row in rows:
        prompt = json.loads(row["prompt"])[-1]["content"]
        better, worse = (texts(row)[row["ranks"].index(rank)] for rank in (0, 1))
        assert counted[prompt, worse, better] == row["n_votes"]
    with open_warehouse(read_only=True) as connection:
        facts = why(connection, rows[0]["unit"])
    assert facts["units"][0]["kind"] == "single"
    assert rows[0]["unit"] in {unit["unit"] for unit in facts["units"]}
