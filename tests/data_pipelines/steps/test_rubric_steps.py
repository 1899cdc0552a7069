"""Rubrics on the rows they were drawn from, as judges then see them; utilities from verdicts; pairs of two models."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.sources.rubric_text import criteria
from data_pipelines.sources.unit_builder import UnusableRowError
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError
from rmkit.judge import load_judge
from rmkit.ledger import open_ledger
from rmkit.reliability.utilities import utilities
from rmkit.types import Candidates, Comparison, Completion, Message, ModelInfo, Score
from rmkit.verifiers.verdict import verdict_of
from rmkit.verifiers.verifier import load_verifier
from rubrics.row_context import context_of
from tests.data_pipelines.frames import apply, first_text, frame, pair
from tests.data_pipelines.steps.test_rewards import order, scored
from warehouse.versions.dataset import load_dataset

RULE = "The response has at most 5 words. [hard rule]"
PRINCIPLE = "The response is modest. [principle]"


def test_utilities_by_hand() -> None:
    """Two responses: the optimum solves 2 ridge u = 2 votes (p - sigmoid(2 u)) with u_0 = -u_1 = u."""
    found = utilities({(0, 1): 0.8}, 2, ridge=0.5, votes=3.0)
    assert found is not None
    assert found[0] == pytest.approx(-found[1])
    assert 0.5 * found[0] == pytest.approx(3 * (0.8 - 1 / (1 + math.exp(-2 * found[0]))))
    weak = utilities({(0, 1): 0.8}, 2, ridge=1e-6)
    assert weak is not None
    assert weak[0] - weak[1] == pytest.approx(math.log(0.8 / 0.2), abs=1e-4)


def test_utilities_of_consistent_verdicts_are_theirs_and_unanimous_ones_stay_finite() -> None:
    truth = np.array([1.0, 0.2, -1.2])
    p = {(i, j): 1 / (1 + math.exp(truth[j] - truth[i])) for i in range(3) for j in range(i + 1, 3)}
    found = utilities(p, 3, ridge=1e-8)
    assert found is not None
    np.testing.assert_allclose(found, truth, atol=1e-5)
    unanimous = utilities({(0, 1): 1.0, (1, 2): 1.0, (0, 2): 1.0}, 3)
    assert unanimous is not None
    assert unanimous[0] > unanimous[1] > unanimous[2]
    assert np.isfinite(unanimous).all()
    assert utilities({(0, 1): 1.0}, 3) is None  # nobody compared the third


class ByLength:
    """Prefers the longer reply with p = 0.9; cannot compare replies that say `mute`."""

    info = ModelInfo("by length", "generative", "win_logit", False, "by-length-1")

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        raise NotImplementedError

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        results = []
        for item in batch:
            first, second = (one.text for one in item.completions)
            mute = "mute" in first + second
            results.append(Comparison.failed("mute") if mute else Comparison(0.9 if len(first) > len(second) else 0.1))
        return results


def by_length(folder: Path | None = None, **_: Any) -> ByLength:
    return ByLength()


def test_verdicts_become_scores_ranks_and_a_margin() -> None:
    rows = frame([scored("p", rm=order("abcd")), pair("q", "mute", "x")])
    names = [["a", "bb", "ccc", "dddd"][at] for at in range(4)]
    row = rows.to_dicts()[0]
    row["responses"] = [text.replace(f'"{old}"', f'"{new}"') for text, old, new in
                        zip(sorted(row["responses"]), "abcd", names, strict=True)]  # fmt: skip
    result = apply("utilities", frame([row, rows.to_dicts()[1]]), model=f"{__name__}:by_length", votes=2.0)
    assert result.dropped["reason"].to_list() == ["verdicts do not join all responses"]
    [found] = result.kept.to_dicts()
    assert found["ranks"] == [3, 2, 1, 0]
    values = [one["value"] for one in found["scores"] if one["aspect"] == "utility"]
    assert found["margin"] == pytest.approx(values[3] - values[0])
    assert sum(values) == pytest.approx(0, abs=1e-5)
    assert (result.facts["comparisons"], result.facts["unscored"]) == (7, 1)


def test_best_and_worst_by_two_reward_models() -> None:
    agree = scored("p", one={"a": 3.0, "b": 2.0, "c": 0.0, "d": 1.0}, two={"a": 9.0, "b": 1.0, "c": -2.0, "d": 2.0})
    differ = scored("q", one={"a": 9.0, "b": 0.0, "c": 0.1, "d": 0.2}, two={"a": 1.0, "b": 1.1, "c": 5.0, "d": 5.0})
    result = apply("binarize", frame([agree, differ]), aspect="one", second_aspect="two")
    [row] = result.kept.to_dicts()
    z = [[(x - np.mean(v)) / np.std(v) for x in v] for v in ([3.0, 2.0, 0.0, 1.0], [9.0, 1.0, -2.0, 2.0])]
    mean = np.mean(z, axis=0)
    assert row["p"][first_text(row, "a")] == 1.0
    assert row["margin"] == pytest.approx(mean[0] - mean[2])
    assert result.dropped["reason"].to_list() == ["the two scores do not agree on the pair"]
    with pytest.raises(ConfigError, match="name both"):
        apply("binarize", frame([agree]), second_aspect="two")


def test_rubrics_come_back_to_their_pairs_and_the_judge_sees_them(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Round trip: a version, generate, attach, judge under the attached rubric."""
    pytest.importorskip("aiohttp")
    from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
    from evaluation.benchmarks.rubrics import filter as rubric_filter

    seen: list[str] = []

    def script(request: dict[str, Any]) -> Reply:
        text = request["messages"][-1]["content"]
        if "Work in three stages" in text:
            return Reply(text=f"1. {RULE}\n2. {PRINCIPLE}")
        seen.append(text)
        return Reply(text=rubric_filter.judge(text, 0))

    long = "this has clearly more than five words {}"
    rows = [{"prompt": f"p{i}", "chosen": f"short {i}", "rejected": long.format(i)} for i in range(4)]
    rows.append({"prompt": "turned", "chosen": "a long one with many more words than five", "rejected": "short"})
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cli.call("ingest", [str(tmp_path / "pairs.jsonl"), "--name", "pairs", "--json"])
    with ScriptedEndpoint(script) as endpoint:
        tables = '[judge]\nname = "rules"\nverdict = "parse"\n'
        for table in ("generator", "writer"):
            tables += f'[{table}]\nmodel = "{table}"\nbase_url = "{endpoint.base_url}"\n'
        (tmp_path / "judge.toml").write_text(tables)
        assert cli.call("rubrics", ["generate", str(tmp_path / "judge.toml"), "pairs", "-o", str(tmp_path / "r")]) == 0
        capsys.readouterr()
        assert cli.call("rubrics", ["attach", str(tmp_path / "r"), "pairs", "--out", "with-rubrics", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["steps"][0]["facts"]["attached"] == 4
        by_rubric = [context_of(one.row).rubric for one in load_dataset("with-rubrics")]
        assert sorted(by_rubric)[0] == ""  # the turned pair's rubric was dropped
        assert set(by_rubric) == {"", "1. " + RULE + "\n2. " + PRINCIPLE}
        judged = [text for text in seen if "Judge by this rubric" in text]
        assert len(judged) == 10
        assert all(PRINCIPLE in text and "can be checked without opinion" in text for text in judged)
        seen.clear()
        examples = [one for one in load_dataset("with-rubrics") if one.row["rubric"]]
        with open_ledger() as ledger:
            judge = load_judge(tmp_path / "judge.toml", ledger=ledger)
            with judge.engine:
                verdicts = list(judge.judged_under((one.candidates, context_of(one.row)) for one in examples))
        wins = [judge.comparison_of(one).p_first > 0.5 for one in verdicts]
        assert wins == [one.row["p"][0] > 0.5 for one in examples]
        assert not seen  # the very questions that kept the rubrics: paid once
    with pytest.raises(DataError, match="drawn from none"):
        apply("attach_rubrics", frame([pair("q", "a", "b")]), folder=str(tmp_path / "r"))


def test_criteria_of_several_lines_end_in_their_tag() -> None:
    text = "Rubric:\n1. It counts\n   to five.\n   [Hard Rule]\n2. It is modest. [Principle]\n"
    assert [(one.criterion, one.tag) for one in criteria(text)] == [
        ("It counts to five.", "hard_rule"),
        ("It is modest.", "principle"),
    ]
    assert [one.criterion for one in criteria("Look at:\n1. one\n2. two")] == ["one", "two"]
    with pytest.raises(UnusableRowError, match="no tag"):
        criteria("1. It counts. [Hard Rule]\n2. It was cut o")


@pytest.mark.slow
def test_the_published_form_goes_in_with_its_rubrics_and_trains(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hard rules and principles apart; an unknown spelling of the winner is refused."""
    rubric = f"1. At most 5 words.\n   Count them.\n   [Hard Rule]\n2. {PRINCIPLE.replace('[p', '[P')}"
    fixed = {"rubric": rubric, "source": "synthetic-if"}
    rows = [
        {"instruction": f"say {i}", "response_a": f"short {i}", "response_b": f"a much longer text than that, {i}"}
        | {"winner": "Response A" if i % 3 else "Response B"}
        | fixed
        for i in range(90)
    ]
    path = tmp_path / "open.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert cli.call("ingest", [str(path), "--name", "open", "--json"]) == 0
    [file] = json.loads(capsys.readouterr().out)["files"]
    assert (file["format"], file["accepted"]) == ("openrubrics", 90)
    examples = list(load_dataset("open"))
    assert [(one["criterion"], one["tag"]) for one in json.loads(examples[0].row["rubric"])] == [
        ("At most 5 words. Count them.", "hard_rule"),
        ("The response is modest.", "principle"),
    ]
    short_wins = [one.candidates.completions[one.row["p"].index(1.0)].text.startswith("short") for one in examples]
    assert sum(short_wins) == 60
    (tmp_path / "split.toml").write_text('[recipe]\nname = "split"\n[[step]]\nuse = "split"\n')
    cli.call("run", [str(tmp_path / "split.toml"), "--data", "open"])
    assert cli.call("train", ["lexical", "--data", "open", "-o", str(tmp_path / "model"), "--json"]) == 0
    path.write_text("\n".join(json.dumps(row | {"winner": "the left one"}) for row in rows[:3]))
    with pytest.raises(DataError, match="the left one"):
        cli.call("ingest", [str(path), "--name", "odd"])


def test_what_writer_and_judge_are_asked_and_how_verdicts_are_read() -> None:
    rows = frame([pair("q", "good", "bad"), pair("q", "fine", "poor"), pair("r", "x", "y")])
    result = apply("ask_writer", rows)
    assert result.dropped["reason"].to_list() == ["its prompt is another row's, too"]
    first = result.kept.to_dicts()[0]
    assert "Write the rubric by which responses" in first["prompt"]
    assert [json.loads(text)[0]["content"] for text in json.loads(first["reference"])["responses"]] == ["good", "bad"]
    assert first["p"] is None
    assert [verdict_of(text) for text in ("so.\nVerdict: A", "Verdict: B", "no idea")] == ["A", "B", None]
    item = Candidates((Message("user", "q"),), tuple(Completion((Message("assistant", text),)) for text in (
        "Verdict: A", "Verdict: B", "neither")), reference="B")  # fmt: skip
    [scores] = load_verifier("verdict").score([item])
    assert [one.value for one in scores] == [0.0, 1.0, -1.0]
