"""Near-duplicate search against brute force over Python sets."""

from __future__ import annotations

import itertools
import re

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.algorithms import minhash
from evaluation.benchmarks.data.neardup import neardup
from rmkit.data.text_file import TextFile
from tests.data_pipelines.frames import apply, pair
from warehouse.sql import sorted_places


def reference(text: str) -> set[tuple[str, ...]]:
    """Shingles written down a second time, for texts of ASCII words and Han characters."""
    words = re.findall(r"[\u4e00-\u9fff]|[a-z0-9_]+", text.lower()) or [text]
    return {tuple(words)} if len(words) < 3 else set(zip(words, words[1:], words[2:], strict=False))


def similarity(a: str, b: str) -> float:
    return len(reference(a) & reference(b)) / len(reference(a) | reference(b))


def test_shingles_by_hand() -> None:
    # 6 words, 4 shingles; one replaced word in the middle leaves "a b c" of 4 + 3 new = 1/7.
    pairs = minhash.near_pairs(pl.Series(["a b c d e f", "a b c x e f"]), 0.1)
    assert pairs.rows() == [(0, 1, pytest.approx(1 / 7))]


def test_few_words_punctuation_and_empty_texts() -> None:
    texts = ["yes", "Yes!", "no", "", "", "?!", "yes no", "no yes", "…"]
    pairs = minhash.near_pairs(pl.Series(texts), 0.5)
    assert pairs.select("i", "j").rows() == [(0, 1), (3, 4)]


def test_scripts_without_spaces_are_compared_by_character() -> None:
    a = "今天的天气非常好我们去公园散步吧然后回家吃晚饭看电影"
    b = a.replace("公园", "海边")  # 26 characters, 24 shingles, 4 of them hold an edited character
    assert minhash.near_pairs(pl.Series([a, b]), 0.5).rows() == [(0, 1, pytest.approx(20 / 28))]
    assert len(minhash.near_pairs(pl.Series([a, "昨天下了很大的雨所以没有出门"]), 0.3)) == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=12), min_size=1, max_size=12), st.sampled_from([0.5, 0.8]))
def test_reported_pairs_are_exactly_right(words: list[list[str]], threshold: float) -> None:
    texts = [" ".join(each) for each in words]
    found = {(i, j): jaccard for i, j, jaccard in minhash.near_pairs(pl.Series(texts), threshold).iter_rows()}
    for (i, j), jaccard in found.items():
        assert i < j
        assert jaccard == pytest.approx(similarity(texts[i], texts[j]))
        assert jaccard >= threshold


def test_recall_against_brute_force() -> None:
    draw = np.random.default_rng(1)
    base = [[f"w{x}" for x in draw.integers(0, 400, 40)] for _ in range(60)]
    edited = [[w if draw.random() > 0.03 else f"z{draw.integers(99)}" for w in base[at % 60]] for at in range(240)]
    texts = [" ".join(each) for each in base + edited]
    sets = [reference(text) for text in texts]
    distinct = sorted({text: at for at, text in reversed(list(enumerate(texts)))}.values())
    every = {(i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in itertools.combinations(distinct, 2)}
    for threshold in (0.5, 0.7, 0.8):
        due = {pair for pair, jaccard in every.items() if jaccard >= threshold}
        reported = minhash.near_pairs(pl.Series(texts), threshold).filter(pl.col("i").is_in(distinct))
        found = set(reported.filter(pl.col("j").is_in(distinct)).select("i", "j").iter_rows())
        assert found <= due
        assert len(found) >= 0.99 * len(due) > 20


def test_clusters_are_connected_components() -> None:
    chain = ["a b c d e f g h i j", "a b c d e f g h i x", "z b c d e f g h i x"]
    texts = pl.Series(["other words stand in this one", *chain, "other words stand in this one"])
    assert minhash.clusters(texts, 0.7).tolist() == [0, 1, 1, 1, 0]  # 1-2 and 2-3 share 7 of 9, 1-3 only 6 of 10
    assert minhash.clusters(pl.Series([], dtype=pl.String), 0.7).tolist() == []


def test_a_template_repeated_a_thousand_times_is_one_cluster() -> None:
    body = "please write a short and friendly note about the following topic for our weekly company news letter "
    texts = pl.Series([f"{body}{body[7:]} number {at}" for at in range(1000)])
    assert set(minhash.clusters(texts, 0.7)) == {0}


def test_engines_agree_and_the_benchmark_counts() -> None:
    pytest.importorskip("rensa")
    result = neardup(2000, 0.7)
    assert result["planted"] == 200
    for told in result["engines"].values():
        assert told["recall"] >= 0.99
        assert told["precision"] == 1.0


@pytest.mark.parametrize(("threshold", "rows"), [(0.7, 4), (0.8, 6), (0.95, 14)])
def test_band_rows(threshold: float, rows: int) -> None:
    assert minhash.band_rows(threshold) == rows
    assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.995


LONG = "the council met on tuesday to talk about the new bridge over the river and its cost to the town"
OTHER = "cats sleep most of the day and wake at night to look for food or for somebody to play with them"


def test_step_keeps_the_first_by_id_with_evidence() -> None:
    rows = [
        pair("Tell me about the town", f"{LONG} today", OTHER, id="b" * 32),
        pair("Tell me about the town", LONG, OTHER, id="a" * 32),
        pair("Tell me about the town", OTHER, "a reply with nothing in common at all", id="c" * 32),
    ]
    result = apply("near_dedup", rows)
    assert result.kept["id"].to_list() == ["a" * 32, "c" * 32]
    assert result.dropped.row(0)[:2] == ("b" * 32, "near-duplicate")
    assert result.dropped["evidence"][0].startswith("kept aaaaaaaa")


def test_one_long_prompt_with_other_answers_is_no_duplicate() -> None:
    prompt = " ".join([LONG, OTHER] * 6)
    rows = [
        pair(prompt, "a short reply to it", "yes that is so"),
        pair(prompt, "quite another answer", "no I would not"),
    ]
    assert len(apply("near_dedup", rows).dropped) == 0
    assert len(apply("near_dedup", rows, text="prompt").dropped) == 1


def test_a_dropped_row_is_never_the_reason_for_another_drop() -> None:
    # a ~ b and b ~ c but not a ~ c: dropping b because of a must not drop c because of b.
    words = [f"w{at}" for at in range(40)]
    texts = [
        " ".join(words),
        " ".join([*words[:37], "x1", "x2", "x3"]),
        " ".join(["y1", "y2", "y3", *words[3:37], "x1", "x2", "x3"]),
    ]
    rows = [pair("p q r", text, OTHER, id=name * 32) for name, text in zip("abc", texts, strict=True)]
    result = apply("near_dedup", rows, threshold=0.8)
    assert result.dropped["id"].to_list() == ["b" * 32]


def test_steps_and_rubrics_are_not_compared() -> None:
    rows = [pair("p", f"{LONG}{end}", OTHER, kind="steps") for end in ("", " now")]
    assert len(apply("near_dedup", rows).dropped) == 0
    assert len(apply("near_dedup", rows, kinds=["steps"]).dropped) == 1


def test_one_rewritten_response_makes_another_row() -> None:
    rewritten = OTHER.replace("to look for food", "and go out").replace("most of", "through")
    rows = [pair(OTHER * 3, LONG, OTHER), pair(OTHER * 3, LONG, rewritten)]
    assert len(apply("near_dedup", rows).dropped) == 0
    assert len(apply("near_dedup", rows, part_threshold=0.3).dropped) == 1


def test_texts_on_disk_in_another_order_give_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    words = [f"w{n}" for n in range(40)]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(60)]
    texts += [text.replace("w7", "w8") for text in texts[:20]] + texts[:5] + ["", ""]
    order = rng.permutation(len(texts))
    monkeypatch.setattr(minhash, "BATCH_BYTES", 300)
    with TextFile() as file:
        file.append(pa.array(texts[:30]))
        file.append(pa.chunked_array([texts[30:31], texts[31:]]))
        file.finish()
        assert file.array().to_pylist() == texts
        on_disk = minhash.near_pairs(minhash.OnDisk(file, order), 0.4)
        assert on_disk.equals(minhash.near_pairs(pl.Series(texts).gather(order), 0.4))
        assert len(on_disk) > 15
        for limit in (1 << 30, 0):  # in memory, and by DuckDB
            monkeypatch.setattr("warehouse.sql.SORT_BYTES", limit)
            places = sorted_places(file, order)
            assert [texts[order[at]] for at in places] == sorted(texts, key=str.encode)


def test_matches_do_not_depend_on_what_else_is_asked() -> None:
    theirs = pl.Series(["a b c d e f g h", "one two three four", "x"])
    mine = pl.Series(["a b c d e f g i", "nothing of that", "a b c d e f g i", "ONE two, three four", "x"])
    matches = minhash.near_matches(theirs, mine, 0.5).rows()
    assert [(i, j) for i, j, _ in matches] == [(0, 0), (0, 2), (1, 3), (2, 4)]
    assert matches[0][2] == pytest.approx(5 / 7)
    for at in range(len(mine)):
        alone = minhash.near_matches(theirs, mine[at : at + 1], 0.5).rows()
        assert [(i, at, jaccard) for i, _, jaccard in alone] == [one for one in matches if one[1] == at]
    for one, other in ((theirs.clear(), mine), (theirs, mine.clear())):
        assert len(minhash.near_matches(one, other, 0.5)) == 0
