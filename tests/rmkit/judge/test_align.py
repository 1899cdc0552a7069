"""Choosing a judge's prompt by people: parts, examples, what is chosen and what is said of it, and drift."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from rmkit.cli import main as cli
from rmkit.data.example import Example
from rmkit.data.pairs import read_pairs
from rmkit.errors import ConfigError
from rmkit.judge.agreement import credits_of
from rmkit.judge.align import mean_credit, part_of, shot_sets, with_shots
from rmkit.types import Comparison
from tests.exports import KIND, kind_rows, row, write_export


def test_families_stay_in_one_part() -> None:
    parts = [part_of(family, shots=True, seed=0) for family in range(2000)]
    assert {name: pytest.approx(n / 2000, abs=0.04) for name, n in Counter(parts).items()} == {
        "shots": 0.2,
        "choose": 0.4,
        "test": 0.4,
    }
    assert parts == [part_of(family, shots=True, seed=0) for family in range(2000)]
    assert {part_of(family, shots=False, seed=0) for family in range(50)} == {"choose", "test"}


def test_unread_verdicts_are_wrong_and_ties_are_half() -> None:
    answers = [Comparison(0.9), Comparison(0.9), Comparison(0.5), Comparison.failed("hm"), Comparison(0.1)]
    p = [1.0, 0.0, 1.0, 1.0, 0.5]
    assert credits_of(answers, p)[:4] == [1, 0, 0.5, 0]
    assert mean_credit(answers, p) == 1.5 / 4


def test_examples_teach_no_place_and_no_template() -> None:
    rows = [row(f"q{n} {{{{x}}}}", [f"good {n}", f"bad {n}"], p=[1.0, 0.0], family=n, weight=1.0) for n in range(4)]
    rows.append(row("tie", ["x", "y"], p=[0.5, 0.5], family=9))
    pairs, _ = read_pairs([Example(one) for one in rows])
    [[first, second]] = shot_sets(pairs, 2, sets=1, seed=0)
    assert {first.prompt, second.prompt} <= {one["prompt"] for one in rows[:4]}
    assert first.prompt != second.prompt
    assert shot_sets(pairs, 2, sets=2, seed=0)[0] == [first, second]
    prompt = "{% block user %}Judge {{ conversation }}{% endblock %}"
    text = with_shots(prompt, [first, second], pairs=True)
    assert text.startswith("{% block user %}{% raw %}")
    assert [line for line in text.splitlines() if line.startswith("People")] == [
        "People preferred Response A.",
        "People preferred Response B.",
    ]
    assert "Response A:\ngood" in text.split("Example 2.")[0]
    assert "Response A:\nbad" in text.split("Example 2.")[1]
    assert "{ {x}}" in text
    with pytest.raises(ConfigError, match="5 examples to show, but only 4"):
        shot_sets(pairs, 5, sets=1, seed=0)
    with pytest.raises(ConfigError, match="has none"):
        with_shots("no block", [first], pairs=True)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[ScriptedEndpoint]:
    """Kinder or, where the prompt asks for no kindness, longer is better; the file `changed` makes it another model."""

    def answer(asked: dict[str, Any]) -> Reply:
        text = asked["messages"][-1]["content"]
        first, second = (part.split("</response")[0].partition(">")[2] for part in text.split("<response-")[1:])
        measure = (lambda part: sum(part.count(word) for word in KIND)) if "KINDNESS" in text else len
        if (tmp_path / "changed").exists():
            return Reply(text=f"Verdict: {'A' if first > second else 'B'}")
        return Reply(text=f"Verdict: {'A' if measure(first) > measure(second) else 'B'}")

    with ScriptedEndpoint(answer) as started:
        yield started


@pytest.fixture
def judge(endpoint: ScriptedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RMKIT_LEDGER", raising=False)
    (tmp_path / "kind.jinja").write_text(
        "{% block user %}Prefer KINDNESS. {{ conversation }}"
        "{% for one in responses %}{{ one.text }}{% endfor %}{% endblock %}"
    )
    path = tmp_path / "judge.toml"
    path.write_text(
        f'[judge]\nname = "mine"\nverdict = "parse"\n[generator]\nmodel = "m"\nbase_url = "{endpoint.base_url}"\n'
    )
    return path


def test_the_better_prompt_is_chosen_and_shown_to_be_better(
    judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = kind_rows(120)
    data = write_export(tmp_path / "export", rows)
    command = ["align", str(judge), str(data), "--prompts", str(tmp_path / "kind.jinja"), "--shots", "0", "2"]
    assert cli.call("judge", [*command, "--dry-run", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)["estimate"]
    assert estimate["variants"] == 4  # as it is, its prompt with 2 examples, kind.jinja with 0 and 2
    output = tmp_path / "aligned.toml"
    assert cli.call("judge", [*command, "-o", str(output), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["chosen"] == "kind.jinja"
    assert [one["name"] for one in result["variants"]] == [
        "as it is",
        "pairwise_v1.jinja, 2 examples",
        "kind.jinja",
        "kind.jinja, 2 examples",
    ]
    tested = [one for one in rows if part_of(one["family"], shots=True, seed=0) == "test"]
    sizes = [[len(json.loads(text)[0]["content"]) for text in one["responses"]] for one in tested]
    longer = [(first > second) == (one["p"][0] > 0.5) for (first, second), one in zip(sizes, tested, strict=True)]
    assert result["gain"]["n"] == len(tested)
    assert result["gain"]["value"] == pytest.approx(1 - sum(longer) / len(longer), abs=0.03)  # equal lengths are ties
    assert result["better"]
    assert tomllib.loads(output.read_text())["judge"]["prompt"] == "aligned.jinja"
    (tmp_path / "changed").touch()
    # asked again under the same prompt, the model has changed: it now goes by the alphabet
    against = ["align", str(output), str(data), "--against", str(output.with_suffix(".json"))]
    assert cli.call("judge", [*against, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["asked"] == 1
    assert again["drift"]["n"] == len(tested)
    assert again["drift"]["flips"] > len(tested) / 4
    assert again["drift"]["agreement"]["high"] < 0
    assert cli.call("judge", against) == 0
    assert "verdicts turned around" in capsys.readouterr().out


def test_what_cannot_be_aligned_is_refused(judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_export(tmp_path / "export", kind_rows(8))
    for arguments, message in (
        (["--by", "kindness"], "unknown criterion"),
        (["-o", str(tmp_path / "elsewhere" / "x.toml")], "beside"),
        (["--prompts", str(tmp_path / "none.jinja")], "is not there"),
    ):
        assert cli.main(["judge", "align", str(judge), str(data), *arguments]) == 2
        assert message in capsys.readouterr().err
