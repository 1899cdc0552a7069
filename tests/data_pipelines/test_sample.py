"""The sample's planted truths hold, so that everything measured on it means something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipelines.sample import SKILLS, SampleConfig, lines, write
from rmkit.errors import ConfigError


def parsed(raw: list[bytes]) -> list[dict]:
    rows = []
    for line in raw:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if not row["id"].startswith("broken")]


def test_same_seed_same_bytes_other_seed_other_bytes() -> None:
    config = SampleConfig(pairs=60)
    assert lines(config) == lines(config)
    assert lines(config) != lines(SampleConfig(pairs=60, seed=1))


def test_one_vote_in_five_contradicts_the_truth_and_skills_are_as_planted() -> None:
    train, _ = lines(SampleConfig())
    right: dict[str, list[bool]] = {name: [] for name in SKILLS}
    for row in parsed(train):
        for vote in row["labels"]:
            right[vote["annotator"]].append(vote["preference"] == row["meta"]["truth"])
    every = [hit for hits in right.values() for hit in hits]
    assert 0.18 < 1 - sum(every) / len(every) < 0.22
    for name, hits in right.items():
        assert abs(sum(hits) / len(hits) - SKILLS[name]) < 4 * (0.25 / len(hits)) ** 0.5


def test_the_truth_is_what_the_rule_says() -> None:
    train, _ = lines(SampleConfig(pairs=400, near_duplicates=0))
    checked = 0
    for row in parsed(train):
        good, bad = (row[f"response_{side}"] for side in ("ab" if row["meta"]["truth"] == "a" else "ba"))
        prompt = row["prompt"][0]["content"]
        match row["subset"]:
            case "word_limit":
                limit = int(prompt.split("at most ")[1].split()[0])
                assert len(good.split()) <= limit < len(bad.split())
            case "bullets":
                asked = int(prompt.split("exactly ")[1].split()[0])
                assert good.count("- ") == asked != bad.count("- ")
            case "json":
                assert set(json.loads(good)) == {"tip"}
                with pytest.raises(ValueError, match="Expecting value"):
                    json.loads(bad)
            case "closing":
                assert good.endswith("That is all.")
                assert not bad.endswith("That is all.")
            case _:
                continue
        checked += 1
    assert checked > 200


def test_no_eight_words_in_a_row_link_the_benchmark_to_unleaked_prompts() -> None:
    train, bench = lines(SampleConfig())

    def grams(row: dict) -> set[tuple[str, ...]]:
        words = row["prompt"][0]["content"].lower().split()
        return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}

    known = set().union(*(grams(row) for row in parsed(bench)))
    hits = {row["id"] for row in parsed(train) if grams(row) & known}
    assert len(hits) >= 15
    assert all("leak" in name for name in hits)


def test_files_end_torn_and_hold_the_planned_rows(tmp_path: Path) -> None:
    data, bench = write(tmp_path / "s", SampleConfig(pairs=60))
    raw = data.read_bytes().split(b"\n")
    assert len(raw) == 60 + 60 + 40 + 20 + 8
    assert not raw[-1].endswith(b"}")
    assert len(bench.read_bytes().split(b"\n")) == 200


def test_too_small_a_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 60 pairs"):
        SampleConfig(pairs=10)


def test_planted_rows_are_copies_of_original_rows_only() -> None:
    train, _ = lines(SampleConfig(pairs=160))
    texts = [json.dumps([row["prompt"], row["response_a"], row["response_b"]]) for row in parsed(train)]
    assert len(set(texts)) == 160 + 40 + 20 + 1  # the one under an id that is taken
