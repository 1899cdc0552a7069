"""Rubrics and references of single items, from a client over a real service to what a judge is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("fastapi")

from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from evaluation.front import evaluate
from rmkit.models import load_model
from rmkit.serve.http.app import create_app
from rmkit.serve.settings import ServeSettings
from rmkit.types import Candidates, Completion, Message
from tests.rmkit.curriculum.tiny_service import serving

SEA = Candidates(
    (Message("user", "Name a sea."),),
    tuple(Completion((Message("assistant", text),)) for text in ("The Baltic Sea!", "Aral, which is a lake")),
)


def rules(asked: dict[str, Any]) -> Reply:
    """Yes, or the response, where the word that the rubric or the reference quotes stands in it."""
    text = asked["messages"][-1]["content"]
    responses = re.findall(r"(?s)<response-\w \w+>\n(.*?)\n</response", text)
    reference = re.search(r"(?s)<reference \w+>\n(.*?)\n</reference", text)
    quoted = re.search(r'the word "(\w+)"', text)
    word = quoted[1] if quoted else (reference[1] if reference else "?")
    met = [word in response for response in responses]
    if len(met) == 1:
        return Reply(text=f"Verdict: {'yes' if met[0] else 'no'}")
    return Reply(text=f"Verdict: {'tie' if met[0] == met[1] else 'AB'[met[1]]}")


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint(rules) as started:
        yield started


@pytest.fixture
def judges(endpoint: ScriptedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The TOMLs of a pairwise judge, and of a model whose items bring the criteria."""
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RMKIT_LEDGER", raising=False)
    generator = f'[generator]\nmodel = "m"\nbase_url = "{endpoint.base_url}"\nattempts = 1\n'
    pairs, clauses = tmp_path / "pairs.toml", tmp_path / "clauses.toml"
    pairs.write_text(f'[judge]\nname = "pairs"\nties = true\nverdict = "parse"\n{generator}')
    clauses.write_text(
        f'[judge]\nname = "clauses"\nform = "yes_no"\nverdict = "parse"\n{generator}[rubric]\nrule = "weighted"\n'
    )
    return pairs, clauses


def test_a_client_sends_them_and_the_judge_sees_them(judges: tuple[Path, Path], endpoint: ScriptedEndpoint) -> None:
    models = {path.stem: load_model(path) for path in judges}
    with serving(create_app(models, ServeSettings())) as url:
        pairs: Any = load_model(f"{url}#pairs")
        clauses: Any = load_model(f"{url}#clauses")
        rubric = ({"criterion": 'It holds the word "Aral".'},)
        plain, by_rubric, by_reference = pairs.compare(
            [SEA, replace(SEA, rubric=rubric), replace(SEA, reference="Baltic")]
        )
        assert [one.p_first for one in (plain, by_rubric, by_reference)] == [0.5, 0.0, 1.0]

        criteria = (
            {"criterion": 'It holds the word "Baltic".', "weight": 3},
            {"criterion": "Short.", "check": {"rule": "max_words", "value": 4}},
        )
        [[sea, lake], missing, faulty] = clauses.score(
            [replace(SEA, rubric=criteria), SEA, replace(SEA, rubric=({"criterion": "x", "wieght": 2},))]
        )
        assert (sea.value, lake.value) == (1.0, 0.0)
        assert sea.aspects == {'It holds the word "Baltic".': 1.0, "Short.": 1.0}
        assert {one.unscored for one in missing} == {"the item brings no rubric"}
        assert "unknown field of a criterion: wieght" in str(faulty[0].unscored)
        pairs.close()
        clauses.close()
    for model in models.values():
        model.close()  # type: ignore[attr-defined]
    assert any("<reference" in body["messages"][-1]["content"] for body in endpoint.bodies)


def test_rows_of_a_suite_keep_them(judges: tuple[Path, Path], tmp_path: Path) -> None:
    row = {"prompt": "Name a sea.", "chosen": "The Baltic Sea!", "rejected": "Aral, which is a lake"}
    data = tmp_path / "rows.jsonl"

    def accuracy(path: Path, *more: dict[str, Any]) -> float | None:
        data.write_text("".join(json.dumps({"id": str(at), **row, **one}) + "\n" for at, one in enumerate(more)))
        return evaluate(path, suite="pairs", data=str(data)).models[0].measures["overall"].percent

    assert accuracy(judges[0], {"reference": "Baltic"}, {"rubric": 'It holds the word "Baltic".'}, {}) == pytest.approx(
        100 * 2.5 / 3
    )
    assert accuracy(judges[0], {"reference": "Aral"}) == 0.0  # not the answer kept of the same texts
    assert accuracy(judges[1], {"rubric": [{"criterion": 'It holds the word "Baltic".'}]}) == 100.0
