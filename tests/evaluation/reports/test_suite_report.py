"""Reports in every form: what identifies a number is on the page, missing totals stay missing, texts are escaped."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evaluation.front import evaluate
from evaluation.reports.suite import html, markdown, write_report
from evaluation.suites.command import main
from rmkit.errors import StoreError, UsageError


def rmbench_file(folder: Path) -> Path:
    rows = [
        {
            "id": f"{domain}-{i}",
            "domain": domain,
            "prompt": f"{domain} <b>question</b> {i}",
            "chosen": ["x" * (i + 1), "y" * 40, "- **z**\n" * 20],
            "rejected": ["<script>alert(1)</script>" * 6, "w" * (30 + i), "# v\n" * 30],
        }
        for domain, n in (("chat", 8), ("code", 5))
        for i in range(n)
    ]
    path = folder / "rm.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def result(home: Path, tmp_path: Path) -> dict[str, Any]:
    data = str(rmbench_file(tmp_path))
    return evaluate("length", suite="rm-bench", data=data, allow_changed=True, command="rmkit eval <it>").as_json()


class Tags(HTMLParser):
    """Counts tags and notes what would fetch something or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attributes:
            if name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:")):
                self.fetched.append(value)


def test_page_is_self_contained_escaped_and_complete(result: dict[str, Any]) -> None:
    page = html(result)
    tags = Tags()
    tags.feed(page)
    assert tags.fetched == []
    assert "script" not in tags.tags
    assert "&lt;script&gt;alert(1)" in page
    assert tags.tags["svg"] == 6  # overview, reliability, margins, length, two style matrices
    for part in (result["suite_hash"], result["models"][0]["fingerprint"], "rmkit eval &lt;it&gt;"):
        assert part in page
    assert "missing: math, safety-refuse, safety-response" in page
    assert "changed: chat has 8 items, expected 129" in page


def test_missing_total_is_never_printed_as_a_number(result: dict[str, Any]) -> None:
    [line] = [line for line in markdown(result).splitlines() if line.startswith("| overall ")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert re.fullmatch(r"- \(of what is there: \d+\.\d\d\)", cells[1])
    assert cells[2:4] == ["-", "-"]


def test_markdown_shows_every_denominator(result: dict[str, Any]) -> None:
    text = markdown(result)
    hard = result["models"][0]["cells"]["chat/hard"]
    assert f"| chat/hard | {hard['percent']:.2f} |" in text
    assert f"{hard['numerator']:.6g} / {hard['denominator']:.6g}" in text
    assert "/00" not in text  # the matrix is a picture


def test_model_index_lists_whole_measures_only(result: dict[str, Any], tmp_path: Path) -> None:
    write_report(result, tmp_path / "card.yaml")
    [entry] = json.loads((tmp_path / "card.yaml").read_text())["model-index"]
    assert entry["name"] == "length"
    [found] = entry["results"]
    assert found["dataset"]["args"]["suite_hash"] == result["suite_hash"]
    names = {metric["name"]: metric for metric in found["metrics"]}
    assert set(names) == {"chat", "code"}
    assert names["chat"]["value"] == pytest.approx(result["models"][0]["measures"]["chat"]["percent"], abs=1e-4)


def test_best_of_n_curve_is_drawn(home: Path, tmp_path: Path) -> None:
    rows = [
        {
            "id": str(i),
            "prompt": f"p{i}",
            "responses": [{"text": "x" * (k + i % 3), "score": (k * i) % 4} for k in range(4)],
        }
        for i in range(6)
    ]
    path = tmp_path / "n.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = html(evaluate("length", suite="nway", data=path, command="c").as_json())
    assert "Best of N" in page
    assert "oracle" in page


def test_command_writes_the_form_that_the_suffix_names(home: Path, tmp_path: Path) -> None:
    data = str(rmbench_file(tmp_path))
    for name in ("a.html", "a.md", "a.json"):
        out = tmp_path / "new" / name
        assert main(["length", "--suite", "rm-bench", "--data", data, "--allow-changed", "-o", str(out)]) == 0
        assert out.stat().st_size > 500
    assert json.loads((tmp_path / "new" / "a.json").read_text())["models"][0]["resumed"] == 13


def test_unknown_suffix_and_unwritable_file(result: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected \.html, \.md, \.json or \.yaml"):
        write_report(result, tmp_path / "a.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name another place"):
        write_report(result, tmp_path / "file" / "a.md")
