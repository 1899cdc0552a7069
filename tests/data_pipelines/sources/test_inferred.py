"""Files that a labelling team may hold and no form knows: read right, or refused with what is not clear. None may be
read the wrong way round.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest import preview, report
from data_pipelines.ingest.command import main
from data_pipelines.sources.inference.labels import open_values
from data_pipelines.sources.inference.raters import is_person
from data_pipelines.sources.verdicts import Verdict, parse_values, verdict
from rmkit.errors import DataError, RmkitError, UsageError
from tests.data_pipelines.sources.readings import Read, read, text, turns

TEXTS = [
    ("Name a red fruit.", "A cherry, of course.", "A banana, of course."),
    ("What is 3 plus 4?", "It is 8, I think.", "It is 7, I think."),
    ("Is ice cold?", "Yes, it is cold.", "No, it is warm."),
]
THIRD = "Hm, who knows."
Rows = list[dict[str, Any]]


def table(names: tuple[str, str, str], **columns: list[Any]) -> Rows:
    """The three pairs under these column names, with more columns beside them."""
    more = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = [dict(zip(names, texts, strict=True)) for texts in TEXTS]
    return [row | extra for row, extra in zip(rows, more or [{}] * 3, strict=True)]


AB = ("prompt", "response_a", "response_b")


def put(rows: Rows, folder: Path) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def ranks(result: Read) -> list[Any]:
    """The ranks of each unit's judgments, in the order of the replies in TEXTS; one judgment stands for itself."""
    found = []
    for unit, (prompt, first, _) in zip(result.units, TEXTS, strict=True):
        assert turns(unit["prompt"])[-1] == ["user", prompt]
        order = [text(answer) for answer in unit["responses"]]
        assert order[0] == first
        found += [judgment["ranks"] for judgment in unit["judgments"]]
    return found


A, B, TIE = [0, 1], [1, 0], [0, 0]
READ: dict[str, tuple[Rows, dict[str, Any], list[Any]]] = {
    "left and right": (
        table(("ask", "left", "right"), pick=["left", "right", "tie"], by=["ann", "bob", "ann"]),
        {},
        [A, B, TIE],
    ),
    "replies counted from 0": (
        table(("question", "response_0", "response_1"), preference=["Response 0", "response_1", "Response 1"]),
        {},
        [A, B, B],
    ),
    "another noun, counted from 0": (
        table(("question", "answer_0", "answer_1"), preference=["Response 1", "Option 0", "tie"]),
        {},
        [B, A, TIE],
    ),
    "sentences": (
        table(AB, preference=["A much better", "Response B is slightly better than Response A", "Both equally good"]),
        {},
        [A, B, TIE],
    ),
    "winner and loser name models": (
        table(
            AB, winner=["m", "n", "m"], loser=["n", "m", "n"], model_a=["m", "m", "m"], model_b=["n", "n", "n"]
        ),
        {},
        [A, B, A],
    ),
    "a talk as the prompt": (
        [
            {"messages": [{"role": "user", "content": q}], "response_1": a, "response_2": b, "preferred": "response_2"}
            for q, a, b in TEXTS
        ],
        {},
        [B, B, B],
    ),
    "letters as columns": (table(("prompt", "A", "B"), best=["A", "B", "A"]), {}, [A, B, A]),
    "a scale of seven": (
        table(AB, preference=[1, 6, 4]),
        {"values": "1..3=a,4=tie,5..7=b"},
        [A, B, TIE],
    ),
    "rankings as text": (
        [{"prompt": q, "responses": [a, b, THIRD], "ranking": "B>A=C"} for q, a, b in TEXTS],
        {},
        [[1, 0, 1]] * 3,
    ),
    "rankings by number": (
        [{"prompt": q, "responses": [a, b, THIRD], "ranking": "3 > 1 > 2"} for q, a, b in TEXTS],
        {},
        [[1, 2, 0]] * 3,
    ),
    "the best by its column": (
        [
            {"prompt": q, "response_1": a, "response_2": b, "response_3": THIRD, "best": f"response_{at}"}
            for at, (q, a, b) in enumerate(TEXTS, 1)
        ],
        {},
        [[0, 1, 1], [1, 0, 1], [1, 1, 0]],
    ),
    "numbered scores": (
        [
            {"prompt": q, "response_1": a, "response_2": b, "response_3": THIRD}
            | {"score_1": 3, "score_2": 5, "score_3": 1}
            for q, a, b in TEXTS
        ],
        {},
        [[1, 0, 2]] * 3,
    ),
}  # fmt: skip
REFUSED: dict[str, tuple[Rows, str]] = {
    "numbers": (table(AB, label=[1, 2, 0]), r"values of label mean: '0' 1.*--values '0=\?,1=\?,2=\?'"),
    "Auto-J's columns without its scenario": (
        table(("prompt", "response 1", "response 2"), label=[1, 2, 0]),
        "values of label mean",
    ),
    "a seven-point scale": (
        [row for n in range(1, 8) for row in table(AB, preference=[n, 8 - n, 4])],
        r"Seen: preference \('4' 9, '1' 2, .*prompt \('Is ice cold\?' 7, .*--values '1..3=\?,4=\?,5..7=\?'",
    ),
    "a scale of a single reply": (
        [{"prompt": q, "response": a, "label": at % 2} for at, (q, a, _) in enumerate(TEXTS)],
        r"values of label mean.*write 1 for good",
    ),
    "who stood left differs by row": (
        table(AB, left=["response_b", "response_a", "response_a"], choice=["left", "right", "left"]),
        "which reply stood left or first: left may say so",
    ),
    "replies were swapped": (
        table(AB, swapped=[True, False, True], choice=["A", "B", "A"]),
        "swapped may say that places were swapped",
    ),
    "an arm of a trial is no verdict": (table(AB, arm=["A", "B", "A"]), "which column says which reply is better"),
    "grades are no verdicts": (table(AB, grade=["A", "B", "C"]), "which column says which reply is better"),
    "two verdicts that differ": (
        table(AB, preference=["A", "B", "A"], winner=["A", "A", "B"]),
        "preference or winner say different things",
    ),
    "only names of models": (
        [{"question": q, "winner": "mn"[n % 2], "loser": "nm"[n % 2]} for n, (q, _, _) in enumerate(TEXTS * 4)],
        "which columns are the prompt and the replies",
    ),
    "ranks or an order": (
        [{"prompt": q, "responses": [a, b, THIRD], "ranking": [2, 0, 1]} for q, a, b in TEXTS],
        "a rank for each reply or the replies' numbers from best to worst",
    ),
    "an index": (
        [{"question": q, "options": [a, b], "answer_index": 1} for q, a, b in TEXTS],
        "answer_index counts from 0 or from 1",
    ),
    "percent": (table(AB, preference=["70%", "20%", "50%"]), r"--values '20%=\?,50%=\?,70%=\?'"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_file_of_no_known_form_is_read_right(name: str, tmp_path: Path) -> None:
    rows, options, right = READ[name]
    assert ranks(read(put(rows, tmp_path), **options)) == right


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_mean_either_is_refused(name: str, tmp_path: Path) -> None:
    rows, reason = REFUSED[name]
    with pytest.raises(DataError, match=reason):
        read(put(rows, tmp_path))


def test_a_suggested_line_runs_only_once_it_is_filled_in(tmp_path: Path) -> None:
    path = put(table(AB, label=[1, 2, 0]), tmp_path)
    for values in ("0=?,1=?,2=?", "1=a,2=?"):
        with pytest.raises(UsageError, match=r"write for each \? what the value says: a \(the first reply is better\)"):
            read(path, values=values)
    assert ranks(read(path, values="0=tie,1=b,2=a")) == [B, A, TIE]


@pytest.mark.parametrize(
    ("values", "suggested"),
    [
        (["2", "1", "0"], "0=?,1=?,2=?"),
        (["-2", "0", "3"], "-2..-1=?,0=?,1..3=?"),
        (["5", "1", "2", "4", "3"], "1..2=?,3=?,4..5=?"),
        (["1", "2", "3", "4", "5", "6"], "1..3=?,4..6=?"),
        (["x", "b"], "b=?,x=?"),
    ],
)
def test_no_suggestion_says_which_reply_a_label_prefers(values: list[str], suggested: str) -> None:
    assert open_values(values) == suggested


@pytest.mark.parametrize(
    ("values", "label", "right"),
    [
        ("1..3=a,4=tie,5..7=b", 1, Verdict("a", 3.0)),  # from the middle, not from zero
        ("1..3=a,4=tie,5..7=b", 3, Verdict("a", 1.0)),
        ("1..3=a,4=tie,5..7=b", 7, Verdict("b", 3.0)),
        ("4..6=a,1..3=b", 6, Verdict("a", 2.5)),
        ("-3..-1=a,0=tie,1..3=b", -3, Verdict("a", 3.0)),
        ("1..3=a,x=b", 2, Verdict("a", None)),
    ],
)
def test_strength_is_the_distance_from_the_middle_of_a_scale(values: str, label: Any, right: Verdict) -> None:
    assert verdict(label, parse_values(values)) == right


@pytest.mark.parametrize("values", ["1=a,1=b", "1..4=a,4..7=b", "1..4=a,2..3=tie"])
def test_a_value_has_one_meaning(values: str) -> None:
    with pytest.raises(UsageError, match=r"is a and (b|tie)"):
        parse_values(values)


@pytest.mark.parametrize(
    "name",
    ["ann", "Ann Lee", "ann.lee@example.org", "w07", "annotator_3", "12", "A2X9QK7LMNOP", "5f3a9c0d1b2e4f6a7b8c9d0e"],
)
def test_names_of_people(name: str) -> None:
    assert is_person(name)


@pytest.mark.parametrize(
    "name",
    ["gpt-4o", "phi-4", "grok", "o3-mini", "weighted_alpaca_eval_v2", "Llama-3-70b", "judge-7", "my rm", "bot 2"],
)
def test_names_of_no_people(name: str) -> None:
    assert not is_person(name)


def kinds(result: Read) -> list[tuple[str, str]]:
    return [(one["rater"], one["rater_kind"]) for unit in result.units for one in unit["judgments"]]


def test_a_rater_is_a_person_only_where_every_name_is_one(tmp_path: Path) -> None:
    people = table(AB, preference=["a", "b", "a"], annotator=["ann", "w07", "bob"])
    assert kinds(read(put(people, tmp_path))) == [("ann", "human"), ("w07", "human"), ("bob", "human")]
    mixed = table(AB, preference=["a", "b", "a"], annotator=["ann", "phi-4", "bob"])
    assert {kind for _, kind in kinds(read(put(mixed, tmp_path)))} == {"unknown"}
    writers = table(AB, preference=["a", "b", "a"], annotator=["ann"] * 3, model_a=["ann"] * 3, model_b=["m"] * 3)
    assert {kind for _, kind in kinds(read(put(writers, tmp_path)))} == {"unknown"}
    late = [*people * 400, {**people[0], "annotator": "gpt-4o"}]  # after the sample from which columns are told
    assert kinds(read(put(late, tmp_path)))[-1] == ("gpt-4o", "unknown")
    assert {kind for _, kind in kinds(read(put(mixed, tmp_path), rater_kind="human"))} == {"human"}


def test_a_judge_beside_an_arenas_columns_is_no_person(tmp_path: Path) -> None:
    rows = table(AB, winner=["model_a"] * 3, model_a=["m"] * 3, model_b=["n"] * 3, judge=["o3-mini"] * 3)
    assert set(kinds(read(put(rows, tmp_path)))) == {("o3-mini", "unknown")}
    transcripts = [
        {side: f"\n\nHuman: {q}\n\nAssistant: {answer}" for side, answer in (("chosen", a), ("rejected", b))}
        for q, a, b in TEXTS
    ]
    assert read(put(transcripts, tmp_path)).form == "hh"
    judged = read(put([{**row, "rater": "gpt-4o"} for row in transcripts], tmp_path))
    assert (judged.form, set(kinds(judged)), ranks(judged)) == ("trl", {("gpt-4o", "unknown")}, [A, A, A])


def test_scores_beside_a_pair_are_nobodys_until_it_is_said(tmp_path: Path) -> None:
    rows = table(("prompt", "chosen", "rejected"), score_chosen=[4, 2, 3], score_rejected=[1, 1, 3])
    result = read(put(rows, tmp_path))
    assert (set(kinds(result)), ranks(result)) == ({("unstated", "unknown")}, [A, A, TIE])


def test_criteria_of_a_named_rater_are_scores_and_no_raters(tmp_path: Path) -> None:
    rows = table(AB, annotator=["ann"] * 3, helpful=["a", "b", "tie"], safe=["b", "", "a"])
    result = read(put(rows, tmp_path), wide=("helpful", "safe"))
    said = [[(s["response"], s["aspect"], s["value"]) for s in unit["judgments"][0]["scores"]] for unit in result.units]
    assert said == [
        [(0, "helpful", 1.0), (1, "helpful", 0.0), (0, "safe", 0.0), (1, "safe", 1.0)],
        [(0, "helpful", 0.0), (1, "helpful", 1.0)],
        [(0, "helpful", 0.5), (1, "helpful", 0.5), (0, "safe", 1.0), (1, "safe", 0.0)],
    ]
    assert ranks(result) == [None, None, None]


def test_columns_of_raters_for_a_single_reply(tmp_path: Path) -> None:
    rows = [{"prompt": q, "response": a, "r1": n, "r2": 5 - n if n else None} for n, (q, a, _) in enumerate(TEXTS)]
    result = read(put(rows, tmp_path), wide=("r1", "r2"))
    said = [[(j["rater"], j["scores"][0]["value"]) for j in unit["judgments"]] for unit in result.units]
    assert said == [[("r1", 0.0)], [("r1", 1.0), ("r2", 4.0)], [("r1", 2.0), ("r2", 3.0)]]
    lists = [{"prompt": q, "responses": [a, b], "r1": 1} for q, a, b in TEXTS]
    with pytest.raises(UsageError, match="--wide goes with two replies that are compared, or with one that is rated"):
        read(put(lists, tmp_path), wide=("r1",))


def test_an_id_that_repeats_with_other_texts_loses_no_row(tmp_path: Path) -> None:
    rows = [{"id": n // 2, **row} for n, row in enumerate(table(AB, preference=["a"] * 3) * 2)]
    rows = [{**row, "response_a": f"{row['response_a']} {n}"} for n, row in enumerate(rows)]
    result = read(put(rows, tmp_path))
    assert (len(result.units), result.stream.n_rejected) == (6, 0)
    assert "no row's own id" in " ".join(report.explanation(result.opened).notes)


def test_a_passage_that_is_left_out_of_the_prompt_is_said(tmp_path: Path) -> None:
    rows = table(("question", "chosen", "rejected"), context=["Cherries are red fruits, all of them."] * 3)
    notes = report.explanation(read(put(rows, tmp_path)).opened).notes
    assert notes == ["context is no part of the prompt; --map prompt=context+question,... joins them"]


def doubts(rows: Rows, folder: Path, **options: Any) -> str:
    return "; ".join(preview.doubts(read(put(rows, folder), **options).opened, rater=None))


def many(**changes: Any) -> Rows:
    """30 pairs with two raters and both verdicts."""
    rows = [
        {"prompt": f"{n}?", "response_a": f"{n} a", "response_b": f"{n} b", "preference": "ab"[n % 2],
         "annotator": ("ann", "bob")[n % 2]}
        for n in range(30)
    ]  # fmt: skip
    return [row | changes for row in rows]


def test_one_label_one_rater_or_one_prompt_for_all_is_doubted(tmp_path: Path) -> None:
    assert doubts(many(), tmp_path) == ""
    assert doubts(many(preference="a"), tmp_path) == "every verdict is a: is that the column of labels?"
    assert "every row has the same prompt: is prompt the column of prompts?" in doubts(many(prompt="Why?"), tmp_path)
    one = many(annotator="ann")
    assert "every label is by 'ann': is annotator the column of raters?" in doubts(one, tmp_path)
    assert doubts(one, tmp_path, rater_kind="human") == ""
    roles = {"prompt": "prompt", "response_a": "response_a", "response_b": "response_b"}
    assert doubts(many(annotator="ann", prompt="Why?"), tmp_path, roles={**roles, "rater": "annotator"}) == ""
    assert doubts(many(preference="a")[:10], tmp_path) == ""  # too few to tell


def test_a_doubt_stops_a_load_until_yes(home: Path, tmp_path: Path) -> None:
    path = put(many(annotator="ann"), tmp_path)
    with pytest.raises(RmkitError, match=r"every label is by 'ann'.*--yes stores it all the same"):
        main([str(path)])
    assert main([str(path), "--yes"]) == 0
