"""Normalizing, exact duplicates, quality rules and contamination."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.algorithms.responses import ranks_of
from data_pipelines.algorithms.text import prompt_text, response_texts, words
from data_pipelines.steps.normalize import clean
from rmkit.errors import ConfigError, DataError
from rmkit.ids import assistant_message, canonical_json, content_hash, user_message
from tests.data_pipelines.frames import apply, first_text, frame, pair
from warehouse.write.identity import unit_hash

SAID = "Water the plant twice a week and keep it out of the midday sun."
ALSO = "Put it near a window, and ask again when the leaves turn brown."


def test_text_of_messages_with_tools_and_escapes() -> None:
    talk = canonical_json(
        [
            {"role": "user", "content": 'a "b"\n\u0001 é'},
            {"role": "assistant", "content": "c", "tool_calls": [{"id": 1}]},
            {"role": "tool", "content": "", "tool_call_id": "x"},
        ]
    )
    table = frame([pair(talk, "x", "y"), pair("p", "x", "y") | {"responses": None}])
    assert table.select(prompt_text())["prompt"].to_list() == ['a "b"\n\u0001 é\n\nc\n\n', "p"]
    assert table.select(response_texts())["responses"][1] is None
    assert pl.select(words(pl.lit("Don't 你好 x_1 สวย")))["literal"][0].to_list() == [
        "don",
        "t",
        "你",
        "好",
        "x_1",
        *"สวย",
    ]


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("e\u0301", "é", "nfc"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd", "newlines"),
        ("a\u200bb\ufeff\x00c\u202e", "abc", "invisible"),
        ("a \t\nb\u3000", "a\nb", "trailing_spaces"),
        ("\n\na\n\n\n\nb\n", "a\n\nb", "blank_lines"),
    ],
)
def test_each_rule(before: str, after: str, rule: str) -> None:
    assert clean(before) == (after, {rule})


@pytest.mark.parametrize(
    "text", ["👩\u200d💻 tabs\tstay", "می\u200cخواهم", "क्\u200dष", "  indented\n    code", "a\n\nb"]
)
def test_what_carries_meaning_stays(text: str) -> None:
    assert clean(text) == (text, set())


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once, _ = clean(text)
    assert clean(once) == (once, set())


def test_step_finds_exactly_the_rows_that_the_rules_change() -> None:
    texts = [
        "plain",
        "trail ",
        "trail \nx",
        "tab\t\nx",
        "a\r\nb",
        "x\n\n\ny",
        "\nx",
        "é",
        "e\u0301",
        '"',
        '"\n',
        "\\n\\n\\n",
        "a\x00",
        "z\u200b",
    ]
    rows = [pair(text, f"one{at}", f"two{at}") for at, text in enumerate(texts)]
    result = apply("normalize", rows)
    expected = [clean(text)[0] for text in texts]
    assert result.kept.select(prompt_text())["prompt"].to_list() == expected
    assert result.facts["rows_changed"] == sum(map(str.__ne__, texts, expected))


def test_changed_row_is_a_new_unit_and_its_positions_move_along() -> None:
    for at in range(40):  # some texts change order by hash, some do not
        a, b = f"first {at} \n\n", f"second {at}"
        row = pair(
            "q", a, b, [("ann", "a")], generators=["m", "n"], scores=[{"response": 0, "aspect": "x", "value": 1.0}]
        )
        before = first_text(row, a)
        row["votes"][0]["shown_order"] = [before, 1 - before]
        result = apply("normalize", [row])
        kept = result.kept.row(0, named=True)
        after = first_text(kept, a.strip())
        assert kept["responses"] == sorted(kept["responses"], key=content_hash)
        assert kept["unit"] == unit_hash("pair", kept["prompt"], responses=kept["responses"]) != row["unit"]
        assert kept["id"] == row["id"]
        assert kept["p"][after] == 1
        assert kept["votes"][0]["ranks"][after] == 0
        assert kept["votes"][0]["shown_order"] == [after, 1 - after]
        assert kept["generators"][after] == ["m", "n"][before]
        assert kept["scores"][0]["response"] == (after if before == 0 else 1 - after)


def test_rows_with_step_offsets_are_left_alone() -> None:
    row = pair("q ", "one \n", "two") | {"step_ends": [[3], []]}
    result = apply("normalize", [row])
    assert result.kept.equals(frame([row]))
    assert result.facts["rows_with_steps_left_alone"] == 1
    assert (
        apply("normalize", [row | {"step_ends": None}], trailing_spaces=False, blank_lines=False).facts["rows_changed"]
        == 0
    )


def test_exact_duplicates_merge_by_votes() -> None:
    many = pair("q", "x", "y", [("ann", "a"), ("bob", "a"), ("cho", "a")])
    one = pair("q", "x", "y", [("dee", "b")], margin=3.0)
    other = pair("q", "x", "z")
    result = apply("exact_dedup", [many, other, one])
    kept, dropped = sorted([many, one], key=lambda row: row["id"])
    assert result.dropped.rows() == [(dropped["id"], "exact duplicate, other label", f"kept {kept['id']}")]
    merged = next(row for row in result.kept.iter_rows(named=True) if row["unit"] == many["unit"])
    first = first_text(merged, "x")
    assert merged["p"][first] == 0.75  # three votes to one
    assert merged["ranks"][first] == 0
    assert (merged["n_votes"], merged["method"], merged["margin"], len(merged["votes"])) == (4, "merged", None, 4)
    assert result.kept["id"].to_list() == [row["id"] for row in (many, other, one) if row["id"] != dropped["id"]]


def test_equal_labels_keep_their_method_and_a_repeated_vote_counts_once() -> None:
    rows = [pair("q", "x", "y", [("ann", "a")], id=name * 32) for name in "ba"]
    result = apply("exact_dedup", rows)
    kept = result.kept.row(0, named=True)
    assert (kept["id"], kept["method"], kept["p"], len(kept["votes"])) == ("a" * 32, "votes", rows[0]["p"], 1)
    assert result.dropped["reason"].to_list() == ["exact duplicate"]


def test_three_equal_rows_leave_one() -> None:
    rows = [
        pair("q", "x", "y", [("ann", said)], id=name * 32) for name, said in zip("abc", ["a", "b", "b"], strict=True)
    ]
    kept = apply("exact_dedup", rows).kept.row(0, named=True)
    assert kept["p"][first_text(kept, "y")] == pytest.approx(2 / 3)
    unlabeled = [row | {"p": None, "votes": []} for row in rows]
    assert apply("exact_dedup", unlabeled).kept["p"].to_list() == [None]


def test_dense_ranks() -> None:
    assert ranks_of([0.2, 0.5, 0.2, 0.1]) == [1, 0, 1, 2]


SORRY = "I'm sorry, but I can't help with that request."
CUT = " ".join(f"word{at}" for at in range(60)) + " and then the"
LOOP = "the same three words " * 40
FOREIGN = "Сегодня хорошая погода, и мы идём гулять в парк."


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        (pair("q", "\u200b ", "y"), {}, "empty prompt or response"),
        (pair(" ", "x", "y"), {}, "empty prompt or response"),
        (pair("q", "\nSame thing \t\n  again", "Same thing\n  again\n\n"), {}, "identical responses"),
        (pair("q", "x", "y z"), {"min_words": 3}, "too short"),
        (pair("q", SAID, ALSO), {"max_chars": 50}, "too long"),
        (pair("q", LOOP, LOOP + "!"), {}, "repetitive responses"),
        (pair("q", "https://a.example/bcdefgh", "https://a.example/other"), {}, "mostly links or markup"),
        (pair("q", "x", SAID), {"length_ratio": 20.0}, "lengths too different"),
        (pair("q", CUT, CUT + " of"), {"truncated": True}, "cut off"),
        (pair("q", SORRY, "I cannot assist with this."), {"refusals": True}, "refusals only"),
        (pair("What is the weather like?", FOREIGN, FOREIGN + "!"), {"script": True}, "language differs from prompt"),
    ],
)
def test_each_quality_rule(row: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    fine = pair("How do I keep a plant alive?", SAID, ALSO) if "max_chars" not in options else pair("a", "b", "c")
    result = apply("quality", [fine, row], **options)
    assert result.dropped.select("id", "reason").rows() == [(row["id"], reason)]
    assert result.facts["rows_caught_by_rule"][reason] == 1


@pytest.mark.parametrize(
    "row",
    [
        pair("q", SORRY, SAID),
        pair("q", LOOP, SAID),
        pair("q", CUT, SAID),
        pair("q", "See https://a.example", ALSO),
        pair("Translate", FOREIGN, SAID),
        pair("q", "I'm sorry to hear that! Try this:", SAID),
        pair("问", "你好", "再见"),
        pair("q", "42", "43"),
    ],
)
def test_a_bad_response_beside_a_good_one_is_a_lesson(row: dict[str, Any]) -> None:
    assert len(apply("quality", [row], refusals=True, truncated=True, script=True).dropped) == 0


def calls(name: str, text: str = "", **more: Any) -> str:
    turn = {"role": "assistant", "content": text, "tool_calls": [{"function": {"name": name}}]}
    return canonical_json([turn | more])


@pytest.mark.parametrize(
    "responses",
    [
        [assistant_message("The capital is paris."), assistant_message("The capital is Paris.")],
        [assistant_message("def f():\n    return 1"), assistant_message("def f():\n  return 1")],
        [assistant_message("    return 1"), assistant_message("return 1")],
        [assistant_message("a  b"), assistant_message("a b")],
        [calls("add"), calls("sub")],
        [canonical_json([{"role": "assistant", "content": "4", "reasoning": why}]) for why in ("2 and 2", "a guess")],
    ],
)
def test_what_a_reader_can_see_differs(responses: list[str]) -> None:
    row = pair("q", "x", "y") | {"responses": sorted(responses, key=content_hash)}
    assert len(apply("quality", [row]).dropped) == 0


def test_tool_calls_without_words_are_compared_as_they_are() -> None:
    row = pair("q", "x", "y") | {"responses": [calls("add")] * 2}
    assert apply("quality", [row]).dropped["reason"].to_list() == ["identical responses"]


def test_quality_of_rows_without_responses() -> None:
    rows = [
        pair("q", "x", "y") | {"kind": "rubric", "responses": empty, "id": name}
        for name, empty in (("a", None), ("b", []))
    ]
    assert len(apply("quality", rows).kept) == 2
    assert len(apply("quality", frame(rows).clear()).kept) == 0


PROMPT = "Write a short poem about the old lighthouse on the hill above our quiet village by the sea"


def bench(*prompts: str) -> pl.DataFrame:
    lines = [
        ("held-out", f"row {at}", user_message(prompt), [assistant_message(SAID)]) for at, prompt in enumerate(prompts)
    ]
    return pl.DataFrame(
        lines,
        schema={"name": pl.String, "source_row": pl.String, "prompt": pl.String, "responses": pl.List(pl.String)},
        orient="row",
    )


def test_contamination_shows_benchmark_row_and_words() -> None:
    quoted = pair(
        f"Dear model! {PROMPT.upper()}, please. Thanks a lot for the help and have a nice day over there.", "x", "y"
    )
    clear = pair("Write a short note about the new bridge over the river near our town for the paper today", "x", "y")
    result = apply("contamination", [clear, quoted], benchmarks=bench("What is 2 + 2?", PROMPT), near=0.0)
    id_, reason, evidence = result.dropped.row(0)
    assert (id_, reason, len(result.kept)) == (quoted["id"], "in benchmark held-out", 1)
    assert evidence == "held-out row 1: write a short poem about the old lighthouse on the hill above our"
    assert result.facts["hits_by_benchmark"] == {"held-out": 1}


def test_twelve_words_in_common_are_not_thirteen() -> None:
    shared = " ".join(PROMPT.split()[:12])
    row = pair(f"{shared} street of a town that nobody has seen for a hundred years or more than that", "x", "y")
    assert len(apply("contamination", [row], benchmarks=bench(PROMPT), near=0.0).dropped) == 0
    assert len(apply("contamination", [row], benchmarks=bench(PROMPT), near=0.0, ngram=12).dropped) == 1


def test_short_prompts_are_compared_whole_with_each_turn() -> None:
    talk = canonical_json(
        [
            {"role": "user", "content": "what is 2+2"},
            {"role": "assistant", "content": "4"},
            {"role": "user", "content": "And more?"},
        ]
    )
    rows = [pair("What is 2 + 2", "x", "y"), pair(talk, "x", "y"), pair("So what is 2 + 2 then", "x", "y")]
    result = apply("contamination", rows, benchmarks=bench("What is 2 + 2?"))
    assert result.dropped["id"].to_list() == [rows[0]["id"], rows[1]["id"]]


def test_a_template_is_not_a_leak_and_an_edited_prompt_is() -> None:
    template = "Write a function in the language of your choice that solves the following small problem and returns"
    made = bench(*(f"{template} {word} {word}" for word in "abcdefghijklm"))
    row = pair(f"{template} zebra yak and wombat names from a list of all animals in the big zoo of the town", "x", "y")
    assert len(apply("contamination", [row], benchmarks=made, near=0.0).dropped) == 0
    assert len(apply("contamination", [row], benchmarks=made, near=0.0, max_occurrences=20).dropped) == 1
    edited = pair(PROMPT.replace("old", "red").replace("quiet", "loud"), "x", "y")
    result = apply("contamination", [edited], benchmarks=bench(PROMPT), near=0.4)
    assert result.dropped["evidence"].to_list() == ["held-out row 0: near-duplicate, Jaccard 0.455"]  # 10 of 22


def test_responses_are_searched_where_asked() -> None:
    row = pair("Any other question", SAID, "y")
    assert len(apply("contamination", [row], benchmarks=bench(PROMPT)).dropped) == 0
    assert len(apply("contamination", [row], benchmarks=bench(PROMPT), responses=True).dropped) == 1


def test_a_sentence_of_many_benchmark_responses_is_a_template() -> None:
    made = bench(*(f"question number {at} about the animal" for at in range(12)))  # all are answered with SAID
    row = pair("Any other question", SAID, "y")
    assert len(apply("contamination", [row], benchmarks=made, responses=True, near=0.0).dropped) == 0
    assert len(apply("contamination", [row], benchmarks=made[:10], responses=True, near=0.0).dropped) == 1


def test_benchmarks_and_rows_without_a_word_match_nothing() -> None:
    row = pair("?!", "x", "y")
    assert len(apply("contamination", [row], benchmarks=bench("?!", "...")).dropped) == 0
    assert len(apply("contamination", [row], benchmarks=bench(PROMPT)).dropped) == 0
    assert len(apply("contamination", [pair(PROMPT, "x", "y")], benchmarks=bench("...")).dropped) == 0


def test_no_benchmark_is_said() -> None:
    assert "no benchmark" in apply("contamination", [pair("q", "x", "y")]).facts["note"]


def test_known_leaks_of_real_data_are_all_found(shared_data: Path) -> None:
    def read(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in gzip.decompress((shared_data / name).read_bytes()).splitlines()]

    def prompts(rows: list[dict[str, Any]]) -> list[str]:
        return [canonical_json(row["prompt"]) for row in rows]

    lines = [
        (name, None, prompt, [])
        for name in ("bench_rmbench", "bench_xstest")
        for prompt in dict.fromkeys(prompts(read(f"{name}.jsonl.gz")))
    ]
    benchmarks = pl.DataFrame(lines, schema=bench().schema, orient="row")
    rows = read("pairs_hh_helpful.jsonl.gz")
    known = {row["id"] for row in rows if row["meta"].get("also_in")}
    given = [pair(prompt, "x", "y", id=row["id"]) for row, prompt in zip(rows, prompts(rows), strict=True)]
    found = set(apply("contamination", given, benchmarks=benchmarks).dropped["id"])
    assert len(known) > 50
    assert known <= found
    assert len(found - known) <= 0.1 * len(known)


@pytest.mark.parametrize(
    ("step", "options", "word"),
    [
        ("quality", {"repetition": 2.0}, "repetition"),
        ("quality", {"min_words": -1}, "min_words"),
        ("contamination", {"ngram": 1}, "ngram"),
        ("contamination", {"max_occurrences": 0}, "max_occurrences"),
        ("contamination", {"near": 1.5}, "near"),
        ("near_dedup", {"threshold": 0.0}, "threshold"),
        ("near_dedup", {"kinds": ["pairs"]}, "rubric"),
        ("split", {"train": 0.5}, "ratios"),
        ("subset", {"max_rows": 0}, "max_rows"),
        ("normalize", {"ncf": True}, "nfc"),
        ("nonsense", {}, "near_dedup"),
    ],
)
def test_bad_options_are_refused_by_name(step: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        apply(step, [pair("q", "x", "y")], **options)


def test_a_step_that_loses_a_row_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from data_pipelines.steps import exact_dedup, nothing_dropped

    monkeypatch.setattr(exact_dedup, "step", lambda table, config, context: nothing_dropped(table.head(1), {}))
    with pytest.raises(DataError, match="lost track of rows: 2 came in, 1 kept"):
        apply("exact_dedup", [pair("q", "x", "y"), pair("r", "x", "y")])
