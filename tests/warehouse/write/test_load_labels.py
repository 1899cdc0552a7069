"""Labels from votes against hand-derived numbers and a second implementation, and ids from SQL against Python's."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmkit.ids import assistant_message, content_hash
from warehouse.write.identity import example_hash, example_hash_sql, hash_sql, unit_hash, unit_hash_sql
from warehouse.write.load import LoadReport

Make = Callable[..., dict[str, Any]]
Load = Callable[..., LoadReport]
LABEL = ("p", "ranks", "margin", "scores", "step_labels", "n_votes", "method")


def labels(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Labels in the order of the units, positions as in the given order of texts."""
    found = connection.sql(f"SELECT {', '.join(LABEL)} FROM example ORDER BY unit_id").fetchall()
    return [dict(zip(LABEL, row, strict=True)) for row in found]


def in_given_order(values: Sequence[Any], texts: Sequence[str]) -> list[Any]:
    order = sorted(texts, key=lambda text: content_hash(assistant_message(text)))
    return [values[order.index(text)] for text in texts]


def vote(*ranks: int | None, **more: Any) -> dict[str, Any]:
    return {"ranks": list(ranks), **more}


def test_pairs_by_hand(connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make) -> None:
    texts = ["x", "y"]
    cases: list[tuple[list[dict[str, Any]], tuple[Any, ...]]] = [  # votes -> p of x, ranks, margin, n_votes
        ([vote(0, 1, strength=3.0)], (1.0, [0, 1], 3.0, 1)),
        ([vote(1, 0, strength=2.0)], (0.0, [1, 0], 2.0, 1)),
        ([vote(0, 0, strength=1.0)], (0.5, [0, 0], 0.0, 1)),
        ([vote(0, 1, strength=3.0), vote(0, 1, rater="b"), vote(1, 0, strength=1.0)], (2 / 3, [0, 1], 1.0, 3)),
        ([vote(0, 1), vote(0, 1), vote(0, 1)], (1.0, [0, 1], None, 3)),  # equal anonymous votes of one line all count
        ([vote(0, 1, strength=5.0), vote(1, 0, strength=1.0)], (0.5, [0, 0], 0.0, 2)),
        ([vote(0, 1), vote(0, 0)], (0.75, [0, 1], None, 2)),
        ([vote(0, None)], (None, None, None, 1)),  # one ranked response compares nothing
        ([{"rationale": "hm"}], (None, None, None, 0)),
        ([], (None, None, None, 0)),
    ]
    load([make_unit(i + 1, f"p{i}", texts, *votes) for i, (votes, _) in enumerate(cases)])
    for (votes, (p, ranks, margin, n_votes)), label in zip(cases, labels(connection), strict=True):
        assert label["n_votes"] == n_votes, votes
        assert label["margin"] == pytest.approx(margin), votes
        if p is None:
            assert label["p"] is None, votes
            assert label["ranks"] is None, votes
        else:
            assert in_given_order(label["p"], texts) == pytest.approx([p, 1 - p]), votes
            assert in_given_order(label["ranks"], texts) == ranks, votes


def test_lists_scores_and_steps_by_hand(connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make) -> None:
    texts = ["x", "y", "z"]

    def score(response: int | None, aspect: str, value: float) -> dict[str, Any]:
        return {"response": response, "aspect": aspect, "value": value}

    load(
        [
            make_unit(1, "p1", texts, vote(0, 1, 2), vote(1, 1, 0), vote(0, 0, None)),
            make_unit(
                2, "p2", texts, {"scores": [score(0, "q", 4.0), score(1, "q", 1.0)]}, {"scores": [score(0, "q", 5.0)]}
            ),
            make_unit(3, "p3", ["s"], {"step_labels": [1.0, 1.0, None]}, {"step_labels": [1.0, 0.0]}, kind="steps"),
            make_unit(4, "p4", texts, vote(4, 2, 7)),
        ]
    )
    ranked, scored, steps, single = labels(connection)
    # first places: x gets 1 + 0 + 1/2, y 0 + 0 + 1/2, z 0 + 1 + 0, of three; mean ranks 1/3, 2/3, 1
    assert in_given_order(ranked["p"], texts) == pytest.approx([0.5, 1 / 6, 1 / 3])
    assert in_given_order(ranked["ranks"], texts) == [0, 1, 2]
    place = {text: in_given_order([0, 1, 2], texts)[i] for i, text in enumerate(texts)}
    expected = sorted([(place["x"], "q", 4.5), (place["y"], "q", 1.0)])
    assert [(s["response"], s["aspect"], s["value"]) for s in scored["scores"]] == expected
    assert (scored["p"], scored["n_votes"]) == (None, 2)
    assert steps["step_labels"] == [1.0, 0.5, None]
    assert in_given_order(single["ranks"], texts) == [4, 2, 7]  # a single ranking stays as it was given
    assert in_given_order(single["p"], texts) == [0.0, 1.0, 0.0]


def test_labels_agree_with_a_second_implementation(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make
) -> None:
    rng = random.Random(5)
    units, texts = [], []
    for line in range(1, 150):
        n = rng.choice([2, 2, 3, 5])
        own = [f"answer {rng.random()}" for _ in range(n)]
        votes = []
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            scores = [
                {"response": rng.randrange(n), "aspect": rng.choice("ab"), "value": rng.random()} for _ in range(3)
            ]
            votes.append(
                {
                    "rater": f"h{rng.randrange(9)}",
                    "ranks": [rng.choice([0, 1, 1, 2, None]) for _ in range(n)] if rng.random() < 0.9 else None,
                    "strength": rng.choice([None, rng.random()]),
                    "scores": scores if rng.random() < 0.5 else None,
                }
            )
        units.append(make_unit(line, f"p{line}", own, *votes))
        texts.append(own)
    load(units)
    for unit, own, label in zip(units, texts, labels(connection), strict=True):
        _check(unit["judgments"], own, label)
    unit_hashes = connection.sql("SELECT replace(h::VARCHAR, '-', '') FROM unit ORDER BY unit_id").fetchall()
    hashes = connection.sql("SELECT replace(h::VARCHAR, '-', '') FROM example ORDER BY unit_id").fetchall()
    for (unit_id,), (stored,), label in zip(unit_hashes, hashes, labels(connection), strict=True):
        assert example_hash(unit_id, label) == stored


def _check(votes: list[dict[str, Any]], texts: list[str], label: dict[str, Any]) -> None:
    n = len(texts)
    says = [v for v in votes if any(v[key] is not None for key in ("ranks", "scores", "strength"))]
    assert label["n_votes"] == len(says)
    ranked = [v["ranks"] for v in says if v["ranks"] and sum(r is not None for r in v["ranks"]) > 1]
    p = None
    if ranked:
        shares = [[(r == min(x for x in ranks if x is not None)) for r in ranks] for ranks in ranked]
        p = [math.fsum(share[i] / sum(share) for share in shares) / len(shares) for i in range(n)]
        assert in_given_order(label["p"], texts) == pytest.approx(p)
    else:
        assert label["p"] is None
    strengths = []
    for v in says:
        if v["strength"] is not None:
            a_b = v["ranks"] and n == 2
            sign = 1.0
            if a_b:
                first, second = v["ranks"]
                leads = 0 if p is None or math.isclose(p[0], p[1]) else math.copysign(1, p[0] - p[1])
                sign = (
                    0.0 if first is None or second is None or first == second else leads * (1 if first < second else -1)
                )
            strengths.append(sign * v["strength"])
    assert label["margin"] == (pytest.approx(sum(strengths) / len(strengths)) if strengths else None)
    said = [s for v in says for s in v["scores"] or ()]
    order = sorted(range(n), key=lambda i: content_hash(assistant_message(texts[i])))
    keys = sorted({(order.index(s["response"]), s["aspect"]) for s in said})
    assert [(s["response"], s["aspect"]) for s in label["scores"] or ()] == keys
    for entry in label["scores"] or ():
        values = [
            s["value"]
            for s in said
            if (order.index(s["response"]), s["aspect"]) == (entry["response"], entry["aspect"])
        ]
        assert entry["value"] == pytest.approx(sum(values) / len(values))


SQL = duckdb.connect()
numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20)


@settings(max_examples=100, deadline=None)
@given(
    p=st.none() | st.lists(numbers, max_size=4),
    ranks=st.none() | st.lists(st.none() | st.integers(-3, 2**31 - 1), max_size=4),
    step_labels=st.none() | st.lists(st.none() | numbers, max_size=4),
    margin=st.none() | numbers,
    scores=st.none()
    | st.lists(
        st.fixed_dictionaries(
            {"response": st.none() | st.integers(0, 9), "aspect": st.none() | texts, "value": st.none() | numbers}
        ),
        max_size=3,
    ),
    n_votes=st.integers(0, 99),
)
def test_example_hash_in_sql_and_python(**label: Any) -> None:
    label["method"] = "votes"
    kinds = (
        "p DOUBLE[], ranks INTEGER[], step_labels DOUBLE[], margin DOUBLE, n_votes INTEGER, method VARCHAR, "
        'scores STRUCT(response INTEGER, aspect VARCHAR, "value" DOUBLE)[]'
    )
    sql = f"SELECT {example_hash_sql(repr('ab12'))} FROM (SELECT unnest($row::STRUCT({kinds})))"
    assert SQL.execute(sql, {"row": label}).fetchall() == [(example_hash("ab12", label),)]


@settings(max_examples=60, deadline=None)
@given(
    prompt=texts,
    responses=st.dictionaries(texts, st.lists(st.integers(0, 10**6), max_size=3), max_size=4),
    rubric=st.none() | texts,
    tools=st.none() | texts,
    reference=st.none() | texts,
)
def test_unit_hash_in_sql_and_python(
    prompt: str, responses: dict[str, list[int]], rubric: str | None, tools: str | None, reference: str | None
) -> None:
    ordered = sorted(responses, key=content_hash)
    sql = unit_hash_sql(
        kind="'list'",
        prompt=hash_sql("$prompt"),
        responses=f"list_transform($responses::VARCHAR[], lambda r: {hash_sql('r')})",
        step_ends="$step_ends::INTEGER[][]",
        rubric=hash_sql("$rubric::VARCHAR"),
        tools=f"CASE WHEN $tools::VARCHAR <> '' THEN {hash_sql('$tools::VARCHAR')} END",
        reference=f"CASE WHEN $reference::VARCHAR <> '' THEN {hash_sql('$reference::VARCHAR')} END",
    )
    ends = [responses[text] for text in ordered] if any(responses.values()) else None
    facts = {"rubric": rubric, "tools": tools, "reference": reference}
    [(row,)] = SQL.execute(
        f"SELECT {sql}", {"prompt": prompt, "responses": ordered, "step_ends": ends} | facts
    ).fetchall()
    texts, lists = list(responses), list(responses.values())
    assert row == unit_hash("list", prompt, responses=texts, step_ends=lists, **facts)


def test_a_unit_without_the_newer_facts_is_hashed_as_before_them() -> None:
    a, b = sorted((content_hash("one"), content_hash("two")))
    lines = ["unit", "pair", content_hash("q"), f"{a},{b}", "null", "null"]
    assert unit_hash("pair", "q", responses=["two", "one"]) == content_hash("\n".join(lines))
    single = ["unit", "steps", content_hash("q"), content_hash("one"), "3,7", "null"]
    assert unit_hash("steps", "q", responses=["one"], step_ends=[[3, 7]]) == content_hash("\n".join(single))
    more = [*lines[:4], "5;" if a == content_hash("two") else ";5", "null", f"reference {content_hash('72')}"]
    assert unit_hash("pair", "q", responses=["two", "one"], step_ends=[[5], []], reference="72") == content_hash(
        "\n".join(more)
    )
