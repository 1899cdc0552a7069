"""The report: true numbers, one file, and no text that could act."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.reports.suite import caution
from rmkit.cli import main as cli
from rmkit.errors import DataError, StoreError, VersionError

ATTACK = "<script>alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cleaned version of a small sample in which one response attacks the page, in a home that all tests read."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", str(folder / "home"))
        patch.delenv("RMKIT_LEDGER", raising=False)
        cli.call("sample", [str(folder), "--pairs", "80"])
        path = folder / "sample.jsonl"
        lines = path.read_bytes().splitlines()
        row = json.loads(lines[0])
        row["response_a"] = row["response_b"] = ""
        lines[0] = json.dumps(row | {"response_a": ATTACK, "response_b": "a calm answer of some length"}).encode()
        path.write_bytes(b"\n".join(lines))
        cli.call("ingest", [str(path), "--name", "sample"])
        cli.call("run", ["clean", "--data", "sample"])
        yield "sample@v2"


@pytest.fixture(scope="module")
def evaluation(version: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What rmkit eval says of two models on all rows, as JSON."""
    out = tmp_path_factory.mktemp("evaluation") / "eval.json"
    cli.call("train", ["lexical", "--data", version])
    cli.call("eval", ["sample-v2-lexical", "length", "--data", version, "--split", "all", "-o", str(out)])
    return out.read_text()


def page_of(tmp_path: Path, *arguments: str) -> str:
    out = tmp_path / "page.html"
    assert cli.call("report", [*arguments, "-o", str(out)]) == 0
    return out.read_text()


def test_the_page_says_what_the_warehouse_and_the_evaluation_say(version: str, evaluation: str, tmp_path: Path) -> None:
    (tmp_path / "eval.json").write_text(evaluation)
    result = json.loads(evaluation)
    page = page_of(tmp_path, version, "--eval", str(tmp_path / "eval.json"), "--note", "a note & more")
    accuracy, length = (model["measures"]["overall"] for model in result["models"])
    best = max(accuracy["percent"], length["percent"])
    assert f"<b>{best:.1f}%</b>" in page
    assert f"{accuracy['numerator']:.6g} / {accuracy['denominator']:.6g}" in page
    assert f"{length['numerator']:.6g} / {length['denominator']:.6g}" in page
    assert f"{result['models'][0]['probes']['calibration']['log_loss']:.3f}" in page
    assert f"{result['comparisons'][0]['differences'][-1]['difference']:+.2f}" in page
    assert "sample-v2-lexical minus length" in page
    assert "torn last line" in page
    assert "near-duplicate" in page
    assert "Families in more than one split: 0." in page
    assert "a note &amp; more" in page
    assert result["models"][0]["fingerprint"] in page


def test_the_page_warns_of_fewer_than_fifty_families() -> None:
    assert "there are 49 here, the intervals are narrower than they should be" in caution(49)
    assert caution(50) == ""


def test_the_page_is_one_file_and_texts_cannot_act(version: str, evaluation: str, tmp_path: Path) -> None:
    result = json.loads(evaluation)
    result["models"][0]["probes"]["mistakes"] = [
        {"item": "0" * 32, "margin": -1.0} | dict.fromkeys(("prompt", "better", "worse"), ATTACK)
    ]
    (tmp_path / "eval.json").write_text(json.dumps(result))
    page = page_of(tmp_path, version, "--eval", str(tmp_path / "eval.json"))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)


def test_data_alone_makes_a_page(version: str, tmp_path: Path) -> None:
    page = page_of(tmp_path, version)
    assert "What was dropped, and why" in page
    assert "Models on" not in page


def test_what_cannot_be_reported_is_one_clear_error(version: str, tmp_path: Path) -> None:
    with pytest.raises(VersionError, match="sample"):
        cli.call("report", ["sampel@v2"])
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="not a result of rmkit eval; write one with"):
        cli.call("report", [version, "--eval", str(tmp_path / "other.json")])
    with pytest.raises(StoreError, match="cannot write"):
        cli.call("report", [version, "-o", str(tmp_path / "other.json" / "page.html")])
