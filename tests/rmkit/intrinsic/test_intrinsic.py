"""Rewards distilled from a stream of late labels: order, versions, lag; what generalizes at a tenth of the labels."""

from __future__ import annotations

import numpy as np
import pytest

from rmkit.errors import DataError
from rmkit.intrinsic.classifier import Classifier
from rmkit.intrinsic.ranker import Ranker, paired
from rmkit.intrinsic.stream import LabelStream, Learner
from rmkit.intrinsic.table import Table
from rmkit.metrics.steps import auc

GOOD, BAD = ["gold", "door", "key", "stairs"], ["wall", "trap", "nothing", "fog"]


def test_the_newest_captions_are_labeled_first_and_rewards_say_their_version() -> None:
    stream = LabelStream(learner=Table(), batch=2, exponent=1.0)
    stream.offer(["a", "b", "c", "a"])
    assert stream.take() == ["a", "c"]
    fresh = stream.reward(["a", "b"])
    assert (fresh.values.tolist(), fresh.version, fresh.backlog, fresh.lag) == ([0, 0], 0, 3, 4)
    assert stream.learn(["a", "c"], [1.0, None]) == 1  # c's label never came
    later = stream.reward(["a", "b", "new"])
    assert (later.values.tolist(), later.version, later.backlog, later.lag) == ([0.5, 0, 0], 1, 2, 0)
    stream.offer(["a", "d"])
    assert stream.take() == ["d", "c"]
    assert stream.reward(["a"]).values.tolist() == [pytest.approx(1 / 3)]  # seen three times
    assert stream.reward(["a"]).lag == 2
    assert stream.learn(["d"], [None]) == 1
    with pytest.raises(DataError, match="a label for each"):
        stream.learn(["d"], [])


def captions(seed: int, n: int) -> tuple[list[str], list[float]]:
    """Captions of six words, good where more of them are good words than bad."""
    rng = np.random.default_rng(seed)
    texts, truth = [], []
    for number in range(n):
        good = int(rng.integers(0, 4))
        words = [*rng.choice(GOOD, good), *rng.choice(BAD, 3 - good), f"turn{number}", *rng.choice(["you", "see"], 2)]
        texts.append(" ".join(words))
        truth.append(float(good >= 2))
    return texts, truth


def test_at_a_tenth_of_the_labels_the_classifier_generalizes_and_the_table_cannot() -> None:
    texts, truth = captions(0, 600)
    label = dict(zip(texts, truth, strict=True))
    areas: dict[str, float] = {}
    learners: dict[str, Learner] = {"table": Table(), "classifier": Classifier()}
    for name, learner in learners.items():
        stream = LabelStream(learner=learner, batch=15)
        for start in range(0, 600, 150):  # four batches of 15: a tenth is labeled
            stream.offer(texts[start : start + 150])
            batch = stream.take()
            stream.learn(batch, [label[one] for one in batch])
        labeled = set(texts) - set(stream._waiting)
        assert (len(labeled), stream.version) == (60, 4)
        unseen = [one for one in texts if one not in labeled]
        areas[name] = auc(stream.reward(unseen).values, [label[one] > 0.5 for one in unseen])
        assert stream.reward(sorted(labeled)).values.tolist() == pytest.approx(
            [label[one] for one in sorted(labeled)], abs=1
        )
    assert areas["table"] == 0.5
    assert areas["classifier"] > 0.9


def test_the_ranker_learns_from_pairs_with_ties_and_scales_itself() -> None:
    ranker = Ranker()
    assert ranker.predict(["gold"]).tolist() == [0]
    texts, truth = captions(1, 120)
    pairs = [(texts[at], texts[at + 1], truth[at], truth[at + 1]) for at in range(0, 120, 2)]
    labels = [0.5 if one == other else float(one > other) for _, _, one, other in pairs]
    ranker.learn([paired(first, second) for first, second, _, _ in pairs], labels)
    unseen, good = captions(2, 300)
    values = ranker.predict(unseen)
    assert auc(values, [one > 0.5 for one in good]) > 0.9
    assert values.mean() == pytest.approx(0, abs=1e-9)
    assert values.std() == pytest.approx(1)
    with pytest.raises(DataError, match="pairs"):
        ranker.learn(["single"], [1.0])
    assert paired("a\nb", "c") == "a b\nc"
