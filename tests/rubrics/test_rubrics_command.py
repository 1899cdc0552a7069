"""`rmkit rubrics` and a TOML with a writer, as a user runs them, against one scripted endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from evaluation.benchmarks.rubrics import filter as rubric_filter
from rmkit.cli import main as cli
from rmkit.data.export_folder import examples_of
from rmkit.errors import ConfigError, DataError, UsageError
from rmkit.models import load_model
from rubrics.rubric_file import read_rubric
from tests.exports import row, write_export


def script(asked: dict[str, Any]) -> Reply:
    """Writer and judge in one: short responses are better."""
    text = asked["messages"][-1]["content"]
    if "rubric by which responses" in text or "Work in three stages" in text:
        return Reply(text="1. The response has at most 5 words. [hard rule]", prompt_tokens=300, completion_tokens=20)
    return Reply(text=rubric_filter.judge(text, 0), prompt_tokens=400, completion_tokens=10)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RMKIT_LEDGER", raising=False)
    return tmp_path / "home"


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Path]:
    with ScriptedEndpoint(script) as endpoint:
        tables = '[judge]\nname = "rules"\nverdict = "parse"\n'
        for table in ("generator", "writer"):
            tables += f'[{table}]\nmodel = "{table}"\nbase_url = "{endpoint.base_url}"\nprompt_price = 1.0\n'
        path = tmp_path / "judge.toml"
        path.write_text(tables)
        yield path


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Eight pairs with a short better one, two with a long better one, one tie."""
    short, long = "short {}", "this one has clearly more than five words {}"
    rows = [row(f"p{i}", [short.format(i), long.format(i)], p=[1.0, 0.0], split="train") for i in range(8)]
    rows += [row(f"q{i}", [short.format(i), long.format(i)], p=[0.0, 1.0], split="train") for i in range(2)]
    rows += [row("tie", ["a", "b"], p=[0.5, 0.5], split="train")]
    return write_export(tmp_path / "export", rows)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rubrics_that_explain_the_label_are_kept_with_all_that_led_to_it(
    home: Path, judge: Path, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.call("rubrics", ["generate", str(judge), str(export), "-o", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["instances"], report["kept"], report["judged"], report["consistency"]) == (10, 8, 10, 0.8)
    assert (report["judging"]["parse_rate"], report["judging"]["swap_gap"]) == (1.0, 0.0)
    assert report["dropped"] == {"inconsistent: best against worst is decided against the label": 2}
    costs = [report[who]["usd"] for who in ("writing", "judging")]
    assert costs == [pytest.approx(10 * 300e-6), pytest.approx(20 * 400e-6)]
    assert [len(lines(out / "rubrics.jsonl")), len(lines(out / "audit.jsonl"))] == [8, 10]
    outcomes = lines(out / "audit.jsonl")
    assert sum(outcome["dropped"] is None for outcome in outcomes) == 8
    assert outcomes[0]["rubric"][0]["check"] == {"rule": "max_words", "value": 5}
    assert outcomes[0]["verdicts"][0]["p_better"] == 1.0
    assert len(lines(out / "writer.jsonl")) == 8
    assert [r["verdict"] for r in lines(out / "judge.jsonl")].count("A") == 8
    for part in ("writer", "judge"):
        made = tmp_path / f"{part}-data"
        assert cli.call("judge-data", ["rubrics", str(judge), str(out), "--part", part, "-o", str(made)]) == 0
        manifest = json.loads((made / "manifest.json").read_text())
        assert manifest["rows"] == {"writer": 8, "judge": 16}[part]
        assert manifest["dropped"] == report["dropped"]
        assert (manifest["judge"] is None) == (part == "writer")
        assert set(lines(made / "data.jsonl")[0]) >= {"id", "prompt", "completion"}
    with pytest.raises(DataError, match="rmkit rubrics generate"):
        cli.call("judge-data", ["rubrics", str(judge), str(export), "--part", "judge", "-o", str(tmp_path / "x")])
    with pytest.raises(Exception, match="exists already"):
        cli.call("rubrics", ["generate", str(judge), str(export), "-o", str(out)])


def test_a_toml_with_a_writer_is_a_model_that_writes_its_own_rubrics(home: Path, judge: Path, export: Path) -> None:
    model = load_model(judge)
    pairs = [example.candidates for example in examples_of(export, "all")[:10]]
    assert [answer.p_first for answer in model.compare(pairs)] == [1.0] * 10
    assert model.info.kind == "generative"
    model.close()  # type: ignore[attr-defined]


def test_a_rubric_file_is_a_model_that_asks_clause_by_clause(
    home: Path, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def clause(asked: dict[str, Any]) -> Reply:
        text = asked["messages"][-1]["content"]
        return Reply(text=f"Verdict: {'yes' if 'this one' in text.split('The requirement')[0] else 'no'}")

    (tmp_path / "short.toml").write_text(
        'name = "short"\nversion = 1\n[[criteria]]\ncriterion = "At most five words."\ntag = "hard_rule"\n'
        'check = {rule = "max_words", value = 5}\n[[criteria]]\ncriterion = "Does it say which one?"\n'
    )
    path = tmp_path / "clauses.toml"
    with ScriptedEndpoint(clause) as endpoint:
        path.write_text(
            '[judge]\nname = "by clause"\nform = "yes_no"\nverdict = "parse"\n[rubric]\nfile = "short.toml"\n'
            f'rule = "weighted"\n[generator]\nmodel = "m"\nbase_url = "{endpoint.base_url}"\n'
        )
        model = load_model(path)
        [[short, long]] = model.score([examples_of(export, "all")[0].candidates])
        assert (short.value, short.aspects) == (0.5, {"At most five words.": 1.0, "Does it say which one?": 0.0})
        assert (long.value, long.aspects) == (0.5, {"At most five words.": 0.0, "Does it say which one?": 1.0})
        assert endpoint.n_requests == 2  # the hard rule asked nobody
        gated = path.read_text().replace('"weighted"', '"gated"')
        path.write_text(gated)
        other = load_model(path)
        [[short, long]] = other.score([examples_of(export, "all")[0].candidates])
        assert (short.value, long.value) == (0.0, 0.0)  # the other criterion fails, the hard rule is broken
        assert endpoint.n_requests == 2
        assert other.info.fingerprint != model.info.fingerprint
        assert cli.call("eval", [str(path), "--data", str(export), "--split", "all"]) == 0
        assert "parse rate 100.0%" in capsys.readouterr().out
        path.write_text(gated + '[writer]\nmodel = "w"\n')
        with pytest.raises(ConfigError, match=r"either \[writer\] or \[rubric\]"):
            load_model(path)
        path.write_text(gated.replace('"short.toml"', '"none.toml"'))
        with pytest.raises(ConfigError, match=r"none\.toml"):
            load_model(path)
        path.write_text(gated)
        with pytest.raises(UsageError, match="use it with rmkit eval"):
            cli.call("judge", ["run", str(path), str(export)])
        for one in (model, other):
            one.close()  # type: ignore[attr-defined]


def test_a_rubric_of_hard_rules_alone_needs_neither_judge_nor_generator(
    home: Path, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    criterion = '[[criteria]]\ncriterion = "short"\ntag = "hard_rule"\ncheck = {{rule = "max_words", value = {}}}\n'
    (tmp_path / "short.toml").write_text(
        'name = "short"\nversion = 1\n' + criterion.format(5) + criterion.format(500) + "weight = 3.0\n"
    )
    path = tmp_path / "rules.toml"
    path.write_text('[rubric]\nfile = "short.toml"\nrule = "weighted"\n')
    model = load_model(path)
    [[short, long]] = model.score([examples_of(export, "all")[0].candidates])
    assert (short.value, short.aspects) == (1.0, {"short": 1.0, "short (2)": 1.0})
    assert (long.value, long.aspects) == (0.75, {"short": 0.0, "short (2)": 1.0})
    assert (model.info.name, model.info.pointwise) == ("short@v1", True)
    assert cli.call("eval", [str(path), "--data", str(export), "--split", "all"]) == 0
    assert "parse rate" not in capsys.readouterr().out
    path.write_text('[rubric]\nfile = "short.toml"\nrule = "product"\n')
    assert load_model(path).info.fingerprint != model.info.fingerprint
    (tmp_path / "open.toml").write_text('name = "open"\nversion = 1\n[[criteria]]\ncriterion = "Is it kind?"\n')
    path.write_text('[rubric]\nfile = "open.toml"\n')
    with pytest.raises(ConfigError, match=r"no table \[judge\]"):
        load_model(path)


def test_a_faulty_hard_rule_says_which_criterion_and_which_keys(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    head = 'name = "r"\nversion = 1\n[[criteria]]\ncriterion = "kind"\n[[criteria]]\ncriterion = "short"\n'
    path.write_text(head + 'check = {rule = "max_words", n = 5}\n')
    with pytest.raises(ConfigError, match="criterion 2, check: rule max_words: unknown n; beside rule it takes value"):
        read_rubric(path)


def test_without_a_writer_nothing_is_generated(home: Path, judge: Path, export: Path, tmp_path: Path) -> None:
    judge.write_text(judge.read_text().split("[writer]")[0])
    with pytest.raises(ConfigError, match=r"no table \[writer\]"):
        cli.call("rubrics", ["generate", str(judge), str(export), "-o", str(tmp_path / "out")])


def test_data_without_an_order_is_refused(home: Path, judge: Path, tmp_path: Path) -> None:
    tied = write_export(tmp_path / "tied", [row("tie", ["a", "b"], p=[0.5, 0.5], split="train")])
    with pytest.raises(DataError, match="clear order"):
        cli.call("rubrics", ["generate", str(judge), str(tied), "-o", str(tmp_path / "out")])


def test_hard_rules_are_counted(home: Path, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rubric = tmp_path / "r.toml"
    rubric.write_text(
        'name = "short"\nversion = 1\n[[criteria]]\ncriterion = "At most five words."\n'
        'check = {rule = "max_words", value = 5}\n[[criteria]]\ncriterion = "Is it kind?"\n'
    )
    assert cli.call("rubrics", ["check", str(rubric), str(export)]) == 0
    shown = capsys.readouterr().out
    assert "short@v1 on 22 responses" in shown
    assert "12      10        0  At most five words." in shown
    rubric.write_text(rubric.read_text().replace("value = 5", "value = 6"))
    with pytest.raises(ConfigError, match="save it as version 2"):
        cli.call("rubrics", ["check", str(rubric), str(export)])
