"""Splits and subsets by prompt family."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from data_pipelines.steps.split import Config, families, place, places
from rmkit.ids import canonical_json, user_message
from tests.data_pipelines.frames import apply, frame, pair

NOUNS = ("river", "bridge", "garden", "engine", "castle", "window", "teacher", "harbour", "violin", "planet")


def prompts(n: int, seed: int = 0) -> list[str]:
    """Different prompts of 14 words, each followed by a reworded copy of itself (Jaccard 11 / 13)."""
    draw = random.Random(seed)
    made = []
    for at in range(n):
        text = f"question {at} " + " ".join(draw.choice(NOUNS) + str(draw.randint(0, 99)) for _ in range(12))
        made += [text, f"{text} please"]
    return made


def rows(texts: list[str]) -> pl.DataFrame:
    return frame([pair(text, f"x{at}", f"y{at}") for at, text in enumerate(texts)])


def test_no_family_stands_on_two_sides() -> None:
    kept = apply("split", rows(prompts(300))).kept
    assert kept.group_by("family").agg(pl.col("split").n_unique())["split"].max() == 1
    originals, copies = kept[::2], kept[1::2]
    assert originals["family"].equals(copies["family"])
    assert originals["split"].equals(copies["split"])
    assert originals["family"].n_unique() == 300


def test_ratios_hold_on_average_and_the_seed_matters() -> None:
    share = Counter(place(family, Config()) for family in range(20_000))
    assert {name: count / 20_000 for name, count in share.items()} == pytest.approx(
        {"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.01
    )
    other = Config(seed=1)
    assert sum(place(family, Config()) != place(family, other) for family in range(1000)) > 200
    assert {place(family, Config(train=0.5, validation=0.5, test=0.0)) for family in range(1000)} == {
        "train",
        "validation",
    }


def test_adding_rows_moves_no_other_family() -> None:
    texts = prompts(200)
    before = apply("split", rows(texts[:200])).kept
    after = apply("split", rows(texts[200:] + texts[:200])).kept
    joined = before.join(after, on="prompt", suffix="_after")
    assert len(joined) == 200
    assert joined["split"].equals(joined["split_after"])
    assert joined["family"].equals(joined["family_after"])


def test_order_of_rows_does_not_matter() -> None:
    table = rows(prompts(50))
    shuffled = table.sample(fraction=1, shuffle=True, seed=3)
    one, two = (apply("split", given).kept.sort("id").select("id", "family", "split") for given in (table, shuffled))
    assert one.equals(two)


def test_branches_of_one_talk_are_one_family() -> None:
    def talk(*turns: str) -> str:
        return canonical_json(
            [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]
        )

    opening = "How do I get my cat to like the new dog?"
    table = rows(
        [
            talk(opening),
            talk(opening, "Slowly and with food they both enjoy very much.", "It hisses all day long, what now?"),
            talk(opening, "Keep them in separate rooms for a week at least.", "The dog barks at the closed door."),
            talk("Hi there", "Hello!", "Who wrote the first book on sailing round the world?"),
            talk("Hi there", "Good day!", "Name a few fruits that grow well in cold and wet places."),
        ]
    )
    found = families(table).to_list()
    assert found[0] == found[1] == found[2]
    assert len(set(found)) == 3  # a greeting of two words joins nobody
    assert len(set(families(table, same_opening=False).to_list())) == 5


def test_family_is_a_function_of_content() -> None:
    family = families(rows(["only one prompt"]))[0]
    assert family == int(hashlib.sha256(user_message("only one prompt").encode()).hexdigest()[:15], 16)
    assert families(rows([])).to_list() == []


def test_source_splits_are_kept_and_the_held_out_side_wins() -> None:
    texts = prompts(4)
    given = [None, None, "train", "dev", "val", "test", "train", "train"]
    table = rows(texts).with_columns(split=pl.Series(given, dtype=pl.String))
    kept = apply("split", table, respect="source").kept
    assert kept["split"][2:].to_list() == ["validation"] * 2 + ["test"] * 2 + ["train"] * 2
    free = dict(zip(numbers := kept["family"].unique().sort().to_list(), places(numbers, Config()), strict=True))
    assert kept["split"][0] == kept["split"][1] == free[kept["family"][0]]
    assert apply("split", table).kept["split"][6] == free[kept["family"][6]]


def test_an_empty_split_is_said() -> None:
    result = apply("split", rows(prompts(1)))
    assert "too few" in result.facts["warning"]
    assert "warning" not in apply("split", rows(prompts(300))).facts


def test_few_families_still_fill_every_split_with_as_few_moves_as_that_takes() -> None:
    moved = 0
    for start in range(0, 4000, 8):
        numbers = list(range(start, start + 8))
        given = places(numbers, Config())
        assert set(given) == {"train", "validation", "test"}
        moved += sum(
            before != after for before, after in zip([place(n, Config()) for n in numbers], given, strict=True)
        )
    empty = sum(
        len({"train", "validation", "test"} - {place(n, Config()) for n in range(s, s + 8)}) for s in range(0, 4000, 8)
    )
    assert moved == empty > 0
    assert places([1], Config()) == [place(1, Config())]
    assert set(places(list(range(9)), Config(train=0.5, validation=0.0, test=0.5))) == {"train", "test"}


def test_subset_of_large_families_draws_from_many() -> None:
    """40 prompts of 50 rows: whole families would leave 6 of them in a sample of 320."""
    table = frame([pair(text, f"x{at}", "y") for text in prompts(40)[::2] for at in range(50)])
    result = apply("subset", table, max_rows=320)
    assert result.facts["families_taken"] == 10
    assert result.facts["rows_a_family_at_most"] == 32
    few = apply("subset", table, max_rows=1500)
    assert few.facts == {
        "rows_available": 2000,
        "families_available": 40,
        "families_taken": 32,
        "rows_a_family_at_most": 46,
    }


def test_subset_takes_whole_families_and_is_stable() -> None:
    table = rows(prompts(100))
    result = apply("subset", table, max_rows=51)
    assert len(result.kept) == 50  # families of two
    assert set(result.dropped["reason"]) == {"not sampled"}
    assert families(result.kept).value_counts()["count"].to_list() == [2] * 25
    again = apply("subset", table.reverse(), max_rows=51)
    assert set(again.kept["id"]) == set(result.kept["id"])
    assert set(apply("subset", table, max_rows=51, seed=1).kept["id"]) != set(result.kept["id"])
    assert len(apply("subset", table, max_rows=200).dropped) == 0


def test_subset_of_one_huge_family_is_a_part_of_it() -> None:
    table = frame([pair("the only prompt", f"x{at}", "y") for at in range(30)])
    result = apply("subset", table, max_rows=10)
    assert len(result.kept) == 10
    assert set(result.kept["id"]) == set(sorted(table["id"])[:10])


def test_real_pairs_split_without_a_leak(shared_data: Path) -> None:
    lines = [
        json.loads(line)
        for line in gzip.decompress((shared_data / "pairs_hh_harmless.jsonl.gz").read_bytes()).splitlines()
    ]
    table = frame([pair(canonical_json(row["prompt"]), row["chosen"], row["rejected"], id=row["id"]) for row in lines])
    kept = apply("split", table).kept
    opening = [row["prompt"][0]["content"] for row in lines]
    sides = kept.with_columns(opening=pl.Series(opening)).filter(pl.col("opening").str.split(" ").list.len() > 6)
    assert sides.group_by("opening").agg(pl.col("split").n_unique())["split"].max() == 1
    assert kept["split"].value_counts()["count"].min() > 150
