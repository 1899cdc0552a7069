"""Several judges as one: hand-made sums, who is left out, and how far each agrees with people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, UsageError
from rmkit.judge.jury import Juror, Jury, together
from rmkit.models import load_model
from rmkit.types import Candidates, Comparison, Completion, Message, ModelInfo, Scale, Score
from tests.exports import row, write_export

PAIR = Candidates(
    (Message("user", "q"),), tuple(Completion((Message("assistant", text),)) for text in ("first", "second"))
)


class Fixed:
    """Says what it is told: probabilities in turn, or ratings; None is no answer."""

    def __init__(self, name: str, *answers: float | None, scale: Scale = "win_logit", gap: float | None = None) -> None:
        self.info = ModelInfo(name, "generative", scale, scale == "rating", name)
        self.answers = answers
        self.gap = gap

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        assert len(batch) == len(self.answers)
        return [Comparison.failed("hm") if p is None else Comparison(p, swap_gap=self.gap) for p in self.answers]

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[Score.failed("hm") if one is None else Score(one) for one in self.answers] for _ in batch]


def jury(*jurors: tuple[float, Fixed], **settings: Any) -> Jury:
    return Jury("j", [Juror(model.info.name, weight, model) for weight, model in jurors], **settings)


def three(**settings: Any) -> Jury:
    a, b, c = Fixed("a", 0.9, None, 0.5, gap=0.4), Fixed("b", 0.2, 0.2, 0.2, gap=0.1), Fixed("c", 0.4, None, 1.0)
    return jury((2, a), (1, b), (1, c), **settings)


def test_means_and_votes_by_hand() -> None:
    first, second, third = three().compare([PAIR] * 3)
    assert [one.p_first for one in (first, second, third)] == pytest.approx([0.6, 0.2, 0.55])
    assert first.swap_gap == pytest.approx((2 * 0.4 + 0.1) / 3)  # of those that were asked in both orders
    assert first.rationale == "a: 0.9; b: 0.2; c: 0.4"
    assert [one.p_first for one in three(rule="vote").compare([PAIR] * 3)] == pytest.approx([0.5, 0.0, 0.5])
    some = three(least=2)
    assert some.compare([PAIR] * 3)[1].unscored == "1 of 3 judges answered (a: hm; c: hm)"
    counted = {one["judge"]: (one["answered"], one["unscored"], one["decided"]) for one in some.report()["jury"]}
    assert counted == {"a": (2, 1, 1), "b": (3, 0, 2), "c": (2, 1, 2)}
    shares = {one["judge"]: one["with_jury"] for one in some.report()["jury"]}
    assert shares == {"a": 1.0, "b": 0.0, "c": 0.5}


def test_ratings_of_one_scale_are_averaged_and_others_only_compared() -> None:
    alike = jury((2, Fixed("a", 4.0, None, scale="rating")), (1, Fixed("b", 1.0, None, scale="rating")))
    assert (alike.info.pointwise, alike.info.scale) == (True, "rating")
    [[first, second]] = alike.score([PAIR])
    assert (first.value, first.std, dict(first.aspects)) == (3.0, 1.5, {"a": 4.0, "b": 1.0})
    assert second.unscored == "0 of 2 judges answered (a: hm; b: hm)"
    mixed = jury((1, Fixed("a", 0.75, scale="rating")), (1, Fixed("b", 0.75)))
    assert (mixed.info.pointwise, mixed.info.scale) == (False, "win_logit")
    [[first, second]] = mixed.score([PAIR])
    assert first.value == pytest.approx(1.0986, abs=1e-4)  # ln 3
    assert second.value == pytest.approx(-1.0986, abs=1e-4)
    assert jury((1, Fixed("a", scale="rating")), (1, Fixed("b", scale="rating")), rule="vote").info.pointwise is False
    assert (
        jury((2, Fixed("a")), (1, Fixed("b"))).info.fingerprint
        != jury((1, Fixed("a")), (1, Fixed("b"))).info.fingerprint
    )


def test_reports_add_up() -> None:
    empty = together([])
    one = {
        **empty,
        "items": 4,
        "replies": 8,
        "parse_rate": 0.5,
        "pairs_in_both_orders": 1,
        "swap_gap": 0.4,
        "unread": {"x": 2},
    }
    other = {
        **empty,
        "items": 2,
        "replies": 2,
        "parse_rate": 1.0,
        "pairs_in_both_orders": 3,
        "swap_gap": 0.0,
        "unread": {"x": 1},
    }
    both = together([one, other])
    assert (both["items"], both["parse_rate"], both["unread"]) == (6, 0.6, {"x": 3})
    assert both["swap_gap"] == pytest.approx(0.1)
    assert both["flip_rate"] is None


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    def kind(asked: dict[str, Any]) -> Reply:
        text = asked["messages"][-1]["content"]
        shown = ["kind" in part.split("</response")[0] for part in text.split("<response-")[1:]]
        return Reply(text=f"Verdict: {'AB'[shown[1]]}" if any(shown) else "hm")

    with ScriptedEndpoint(kind) as started:
        yield started


@pytest.fixture
def toml(endpoint: ScriptedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RMKIT_LEDGER", raising=False)
    (tmp_path / "kind.toml").write_text(
        f'[judge]\nname = "kind"\nverdict = "parse"\n[generator]\nmodel = "m"\nbase_url = "{endpoint.base_url}"\n'
    )
    path = tmp_path / "jury.toml"
    path.write_text(
        '[jury]\nname = "both"\n[[jury.judges]]\nmodel = "length"\n[[jury.judges]]\nmodel = "kind.toml"\nweight = 3\n'
    )
    return path


def test_agreement_with_people_by_criterion(toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rated(kindness: tuple[int, int], detail: tuple[int, int]) -> list[dict[str, Any]]:
        aspects = {"kindness": kindness, "detail": detail}
        return [
            {"response": at, "aspect": name, "value": float(value)}
            for name, values in aspects.items()
            for at, value in enumerate(values)
        ]

    rows = [
        row("q0", ["kind", "a longer one"], p=[1.0, 0.0], family=0, scores=rated((5, 1), (1, 5))),
        row("q1", ["a much longer one", "kind"], p=[0.0, 1.0], family=1, scores=rated((1, 5), (5, 1))),
        row("q2", ["plain", "a plain longer one"], p=[1.0, 0.0], family=2),
        row("q3", ["a kind and long one", "x"], p=[1.0, 0.0], family=3, scores=rated((3, 3), (4, 2))),
    ]
    data = write_export(tmp_path / "export", [{**one, "split": "test"} for one in rows])
    assert cli.call("judge", ["jury", str(toml), str(data), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    table = {(one["criterion"], one["judge"]): (one["share"], one["n"], one["unscored"]) for one in result["agreement"]}
    assert table == {
        ("overall", "both"): (0.75, 4, 0),
        ("overall", "length"): (0.25, 4, 0),
        ("overall", "kind"): (1.0, 3, 1),
        ("kindness", "both"): (1.0, 2, 0),
        ("kindness", "length"): (0.0, 2, 0),
        ("kindness", "kind"): (1.0, 2, 0),
        ("detail", "both"): (pytest.approx(1 / 3), 3, 0),
        ("detail", "length"): (1.0, 3, 0),
        ("detail", "kind"): (pytest.approx(1 / 3), 3, 0),
    }
    assert result["between"] == {"length / kind": pytest.approx(1 / 3)}
    assert [(one["judge"], one["unscored"], one["with_jury"]) for one in result["judging"]["jury"]] == [
        ("length", 0, 0.5),
        ("kind", 1, 1.0),
    ]
    assert cli.call("judge", ["jury", str(toml), str(data)]) == 0
    text = capsys.readouterr().out
    assert "judging: kind (weight 3): 1 unscored, as the jury in 100.0% of 3 decided pairs" in text
    # The jury is a model like any other; its judge's calls are found again.
    assert cli.call("eval", [str(toml), "--data", str(data), "--split", "test", "--json"]) == 0
    [model] = json.loads(capsys.readouterr().out)["models"]
    assert model["measures"]["overall"]["percent"] == 75.0
    assert (model["judging"]["paid_calls"], model["judging"]["jury"][1]["unscored"]) == (0, 2)  # in both orders


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[jury]\nname = "j"\n[[jury.judges]]\nmodel = "length"', "a jury has at least two, got 1"),
        ('[jury]\nname = "j"\nleast = 3\njudges = [{model = "length"}, {model = "length"}]', "least: expected 1 to 2"),
        ('[jury]\nname = "j"\njudges = [{model = "length", weight = 0}, {model = "length"}]', "weight: expected more"),
        ('[jury]\nname = "j"\njudges = [{modell = "length"}, {model = "length"}]', "modell"),
        ('[jury]\nname = "j"\njudges = []\n[judge]\nname = "x"', "unknown judge; a jury has the table"),
    ],
)
def test_a_wrong_jury_says_what_is_wrong(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "jury.toml").write_text(text)
    with pytest.raises(ConfigError, match=what):
        load_model(tmp_path / "jury.toml")


def test_twins_are_told_apart_and_a_judge_is_no_jury(toml: Path, tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text('[jury]\nname = "j"\njudges = [{model = "length"}, {model = "length"}]')
    twins: Any = load_model(tmp_path / "two.toml")
    assert [juror.name for juror in twins.jurors] == ["length", "length (2)"]
    with pytest.raises(UsageError, match=r"has no table \[jury\]; agreement of one judge: rmkit eval"):
        cli.call("judge", ["jury", str(tmp_path / "kind.toml"), "x@v1"])
    with pytest.raises(UsageError, match=r"has a table \[jury\], which makes it a model"):
        cli.call("judge", ["run", str(toml), "x@v1"])
