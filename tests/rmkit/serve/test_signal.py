"""Signals in the service: models and verifiers in one request, chains over columns, spans, and what is logged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from rmkit.errors import ConfigError, UsageError
from rmkit.ledger import open_ledger
from rmkit.serve.front import serve_app
from rmkit.serve.http.app import create_app
from rmkit.serve.settings import ServeSettings
from rmkit.shaping.spans import on_tokens, sequence_value, token_offsets
from rmkit.signal import Signal, Span
from rmkit.signal.columns import as_rubric, as_text, value_at
from rmkit.signal.mix import exact_sum
from rmkit.types import Score
from tests.rmkit.serve.serving import Steered, local_client

TOML = """
mix = {right = 2.0, short = 1.0, steered = 0.1}
chain = ["center"]

[verifiers.right]
use = "exact_match"
column = "extra.gold"

[verifiers.short]
use = "length"
max = 2
slack = 4

[columns]
group = "id"
components = {tests = "extra.tests"}
"""


def ask(app: Any, body: Any) -> Any:
    answer = local_client(app).post("/rmkit/v1/score", json=body)
    return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json()["error"])


def test_a_file_brings_verifiers_beside_a_model(tmp_path: Path) -> None:
    """Lengths 1, 3, 6; right 2, 0, 0; short 1, .75, 0; 0.1 * length: 3.1, 1.05, 0.6 about their mean."""
    (tmp_path / "sums.toml").write_text(TOML)
    app = serve_app({"steered": Steered()}, signal=tmp_path / "sums.toml")
    row = {"id": 7, "extra": {"gold": "4"}}
    items = [{"prompt": "2 + 2", "completions": ["4", "abc", "abcdef"], "row": row}]
    [scores] = ask(app, {"items": items})["scores"]
    raw = [3.1, 1.05, 0.6]
    assert [one["raw"] for one in scores] == pytest.approx(raw)
    assert [one["reward"] for one in scores] == pytest.approx([one - sum(raw) / 3 for one in raw])
    assert [one["value"] for one in scores] == [1, 3, 6]
    assert scores[0]["components"] == {"right": 1, "short": 1, "steered": 1}
    missing = [{"prompt": "2 + 2", "completions": ["4"], "row": {"id": 7}}]
    [[score]] = ask(app, {"items": missing})["scores"]
    assert (score["reward"], score["unscored"]) == (None, "right: there is no reference answer to verify against")
    assert ask(app, {"items": missing, "mix": {"reward": 1}})["scores"][0][0]["reward"] == 1  # the request's own


def test_an_unreadable_gold_answer_is_unscored_over_http() -> None:
    pytest.importorskip("math_verify")
    app = serve_app(signal=Signal.of({"mix": {"answer": 1}, "verifiers": {"answer": {}}}, name="math"))
    items = [
        {"prompt": "q", "completions": ["\\boxed{No}", "72"], "reference": "No"},
        {"prompt": "q", "completions": ["72", "99"], "reference": "72"},
    ]
    first, second = ask(app, {"items": items})["scores"]
    assert [one["reward"] for one in first + second] == [None, None, 1, 0]
    assert "cannot be read as mathematics" in first[1]["unscored"]


def test_what_a_signal_cannot_be(tmp_path: Path) -> None:
    for text, why in (
        ('mix = {a = "x"}', "expected a finite number|must be a finite number"),
        ("mixx = {}", "did you mean 'mix'"),
        ("[verifiers.right]\nuse = 3", "use and column are texts"),
    ):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(ConfigError, match=why):
            Signal.read(tmp_path / "bad.toml")
    for values, error in (
        ({"mix": {"nothing": 1}}, ConfigError),
        ({"chain": ["z_scores"]}, ConfigError),
        ({"verifiers": {"w": {"use": "length"}}}, UsageError),  # a model of that name is served
        ({"verifiers": {"v": {"use": "nonsense"}}}, UsageError),
    ):
        with pytest.raises(error):
            create_app({"w": Steered()}, signals={"s": Signal.of(values, name="s")})
    with pytest.raises(UsageError, match="nothing to serve"):
        create_app({})


def test_requests_that_make_no_sense() -> None:
    app = create_app({"w": Steered()}, signals={"s": Signal.of({}, name="s")})
    item = {"prompt": "p", "completions": ["a", "abc"]}
    assert ask(app, {"items": [item], "signal": "t"}) == (404, "no signal 't' here; one of: s")
    assert ask(app, {"items": [item], "signal": "s", "mix": {"w": 1}})[0] == 400
    status, why = ask(app, {"items": [item], "chain": [{"use": "clip", "column": "entropy"}]})
    assert (status, "'entropy'" in why) == (400, True)
    status, why = ask(app, {"items": [item], "chain": ["z_score", "nonsense"]})
    assert (status, "unknown transform 'nonsense'" in why) == (400, True)
    status, why = ask(app, {"items": [{**item, "columns": {"length": [1]}}]})
    assert (status, "has 1 values for 2 completions" in why) == (422, True)


def test_a_chain_reads_columns_and_lists() -> None:
    """A factor per completion, and a component that is a list: its sum is mixed, 3 and 1."""
    app = create_app({"w": Steered()})
    item = {
        "prompt": "p",
        "completions": ["a", "abc"],
        "components": {"steps": [[1, 2], [0.5, 0.5]]},
        "columns": {"factor": [2, 10]},
    }
    chain = [{"use": "multiply", "by": "factor"}]
    [scores] = ask(app, {"items": [item], "mix": {"steps": 1}, "chain": chain})["scores"]
    assert [(one["raw"], one["reward"]) for one in scores] == [(3, 6), (1, 10)]
    body = {"items": [item], "mix": {"reward": 1}, "chain": [{"use": "place", "onto": "steps", "divided": True}]}
    [scores] = ask(app, body)["scores"]
    assert [(one["rewards"], one["reward"]) for one in scores] == [([0.5, 0.5], 1), ([1.5, 1.5], 3)]


class Stepwise(Steered):
    def _score(self, completion: Any) -> Score:
        return Score(0.25, steps=(0.75, 0.25))


def test_spans_of_steps_and_their_tokens() -> None:
    completion = {"messages": [{"role": "assistant", "content": "one. two."}], "step_ends": [4, 9]}
    body = {"items": [{"prompt": "p", "completions": [completion]}], "spans": True}
    [[score]] = ask(create_app({"w": Stepwise()}), body)["scores"]
    assert score["spans"] == [[0.75, 0, 4], [0.25, 4, 9]]
    spans = [Span(*one) for one in score["spans"]]
    offsets = [(0, 3), (3, 4), (4, 8), (8, 9)]
    assert on_tokens(spans, offsets).tolist() == [0, 0.75, 0, 0.25]
    assert on_tokens(spans, offsets, at="all").tolist() == [0.75, 0.75, 0.25, 0.25]
    assert on_tokens(spans, [(0, 9)]).tolist() == [1.0] == [sequence_value(spans)]  # one token: the sum


def test_offsets_of_a_trainers_tokens() -> None:
    class Tokenizer:
        words = ("<s>", "Hé", "llo", " you")

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return "".join(self.words[one] for one in ids if one or not skip_special_tokens)

    assert token_offsets(Tokenizer(), [0, 1, 2, 3]) == [(0, 0), (0, 2), (2, 5), (5, 9)]


def test_values_by_path() -> None:
    row = {"a.b": 1, "extra": '{"gold": [1, 2]}', "label": {"answer": 72}}
    assert [value_at(row, path) for path in ("a.b", "extra.gold", "label.answer", "label.none", "x.y")] == [
        1, [1, 2], 72, None, None,
    ]  # fmt: skip
    assert (as_text(72), as_text("72"), as_text(None), as_text([1, "a"])) == ("72", "72", None, '[1, "a"]')
    assert as_rubric('["kind"]') == as_rubric("kind") == ({"criterion": "kind"},)
    assert as_rubric([{"criterion": "kind", "weight": 2}]) == ({"criterion": "kind", "weight": 2},)


def test_the_log_holds_raw_values_components_and_what_the_trainer_said(home: Path) -> None:
    ledger = open_ledger()
    app = create_app({"w": Steered()}, ServeSettings(), ledger=ledger)
    item = {
        "prompt": "2 + 2",
        "completions": ["4", "abc"],
        "row": {"answer": "4", "difficulty": 0.5},
        "columns": {"length": [1, 3]},
        "group_id": "g",
    }
    body = {
        "items": [item],
        "mix": {"exact_match": 1, "reward": 0.5},
        "chain": ["center"],
        "columns": {"reference": "answer"},
        "step": 12,
        "policy_version": "v3",
    }
    with local_client(app) as client:  # whose end writes the log
        client.post("/rmkit/v1/score", json=body)
    [event] = [one.event for one in ledger.events(kinds=["reward"])]
    payload = event.payload
    assert (payload["step"], payload["policy_version"], payload["signal"]) == (12, "v3", "request")
    [logged] = payload["items"]
    assert [one["value"] for one in logged["completions"]] == [1, 3]
    assert (logged["group"], logged["row"]) == ("g", {"difficulty": 0.5})  # the answer is a text: hashed texts only
    assert logged["rewards"] == [
        {"raw": 1.5, "reward": 0, "components": {"exact_match": 1, "reward": 1}, "columns": {"length": 1}},
        {"raw": 1.5, "reward": 0, "components": {"exact_match": 0, "reward": 3}, "columns": {"length": 3}},
    ]
    ledger.close()


HUGE = "1" + 400 * "0"
NUMBERS = ["NaN", "-Infinity", "1e400", HUGE, "[1e308, 1e308]", "[Infinity, -Infinity]", f"[-{HUGE}, 1]", "[null, 1]"]


def test_an_odd_number_leaves_its_own_completion_alone_unscored_and_is_logged(home: Path) -> None:
    """The other two lie one apart, wherever the odd one stands: a component, a column, a row; sums are no error."""
    ledger = open_ledger()
    app = create_app({"w": Steered()}, ServeSettings(), ledger=ledger)
    places = ['"components": {{"t": [{}, 1, 2]}}', '"columns": {{"t": [{}, 1, 2]}}', '"row": {{"t": {}}}']
    bodies = [
        f'{{"items": [{{"prompt": "p", "completions": ["a", "b", "c"], {place.format(one)}}}], '
        '"mix": {"t": 1}, "chain": ["center"]}'
        for place in places
        for one in NUMBERS
    ]
    with local_client(app) as client:
        for body in bodies:
            answer = client.post("/rmkit/v1/score", content=body, headers={"content-type": "application/json"})
            [scores] = answer.json()["scores"]
            others = [None, None] if '"row"' in body else [-0.5, 0.5]
            assert [one["reward"] for one in scores] == [None, *others], body[:120]
            assert "the component 't' is " in scores[0]["unscored"]
    logged = [one.event.payload["items"][0]["rewards"][0] for one in ledger.events(kinds=["reward"])]
    ledger.close()
    assert len(logged) == len(bodies)
    assert {one["raw"] for one in logged} == {None}
    assert logged[0]["columns"] == {"t": None}
    assert logged[len(NUMBERS) - 1]["columns"] == {"t": [None, 1]}


def test_parts_that_add_up_to_no_number_are_a_reason(home: Path) -> None:
    """A chain over lists gives parts; the reward is their sum."""
    app = create_app({"w": Steered()}, ServeSettings())
    item = {"prompt": "p", "completions": ["a", "b"], "columns": {"t": [[1e308, 1e308], [1.0, 2.5]]}}
    chain = [{"use": "affine", "column": "t", "into": "reward"}]
    [scores] = ask(app, {"items": [item], "mix": {"reward": 1}, "chain": chain})["scores"]
    assert [one["reward"] for one in scores] == [None, 3.5]
    assert scores[0]["unscored"] == "its parts add up to inf"


def test_sums_beyond_the_largest_number() -> None:
    assert exact_sum([1e308, 1e308, -1e308, -1e308, 3]) == pytest.approx(0, abs=1e293)
    assert exact_sum([1e308, 1e308]) == math.inf
    assert exact_sum([-(10**400), 1]) == -math.inf
    assert math.isnan(exact_sum([math.inf, -math.inf]))
    assert exact_sum([0.1] * 10) == 1.0


def test_items_keep_their_verifiers_reference() -> None:
    """Two items of one prompt with different gold answers are two, though the batch joins equal prompts."""
    app = create_app(
        {"w": Steered()}, signals={"s": Signal.of({"mix": {"v": 1}, "verifiers": {"v": {"use": "number"}}})}
    )
    items = [{"prompt": "p", "completions": ["4"], "reference": gold} for gold in ("4", "5", "4.0")]
    assert [row[0]["reward"] for row in ask(app, {"items": items})["scores"]] == [1, 0, 1]
