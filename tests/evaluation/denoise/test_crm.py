"""CRM: curriculum as an arm, how far two models are apart, verdicts of fine-tuned peers as weights, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")

from data_pipelines.steps import Context, configure, run_step
from evaluation.denoise.methods import METHODS, Task, disparity
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError
from rmkit.heads.stacked_training import HeadConfig
from rmkit.reliability.peer_review import Selection
from rmkit.reliability.review_audit import AuditLog
from tests.data_pipelines.frames import frame, pair
from tests.data_pipelines.kind_pairs import write_kind_pairs
from tests.rmkit.reliability.reliability_data import flips, planted_pairs
from warehouse.versions.dataset import load_dataset


def test_disparity_by_hand() -> None:
    assert disparity(np.array([[1.0, -2.0], [10.0, -20.0]])) == 0
    # root mean squares 1 and 5: |1 - 7/5|, |-1 - (-1/5)|
    assert disparity(np.array([[1.0, -1.0], [7.0, -1.0]])) == pytest.approx((0.4 + 0.8) / 2)


def test_the_curriculum_is_an_arm_with_and_without_peers() -> None:
    train, wrong = planted_pairs(200), flips(200, 0.3, seed=1)
    task = Task(train=train.flipped(wrong), clean=train, test=planted_pairs(80, seed=5), prior=0.3,
                head=HeadConfig(hidden=16, epochs=4, batch_pairs=20, lr=3e-3), seed=0)  # fmt: skip
    outcomes = {name: METHODS[name](task) for name in ("ensemble", "curriculum", "peer", "peer_curriculum")}
    assert all(0 < float(str(one.facts["disparity"])) < 2 for one in outcomes.values())
    assert outcomes["curriculum"].weight is None  # nobody selects
    margins = [one.test_margin for name, one in outcomes.items() if name != "ensemble"]
    assert not np.allclose(margins[0], margins[2])
    assert not np.allclose(margins[1], margins[2])  # the order of the pairs matters


def run_folder(folder: Path, ids: list[str]) -> Path:
    """An audit of two epochs: in the last A kept the first and second, B the first and third pair."""
    log = AuditLog("peer", ids)
    n = len(ids)
    for kept in (np.ones((2, n), dtype=bool), np.array([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=bool)):
        log.add(np.array([[2.0, 1.0, 0.5, -1.0], [3.0, 0.1, 1.0, -2.0]], dtype=np.float32),
                Selection(kept, np.zeros((2, n), dtype=np.int64), ("B", "A")), keep_ratio=0.5)  # fmt: skip
    folder.mkdir()
    pq.write_table(log.audit().table(), folder / "audit.parquet")
    return folder


def test_verdicts_of_fine_tuned_peers_weigh_the_rows(tmp_path: Path) -> None:
    rows = frame([pair(f"q{at}", "good", "bad") for at in range(5)])
    ids = rows["id"].to_list()
    folder = run_folder(tmp_path / "peers", ids[:4])
    config = configure("peer_verdicts", {"model": str(folder)}, where="test")
    result = run_step("peer_verdicts", rows, config, context=Context())
    weights = dict(result.kept.select("id", "weight").iter_rows())
    assert [weights[one] for one in ids] == [1.0, 0.5, 0.5, 0.0, rows["weight"][4]]
    audit = result.records["reliability"]
    assert len(audit) == 2 * 2 * 4 + 4  # epochs, models, pairs; and the decision
    assert set(audit.filter(audit["epoch"].is_null())["reason"].drop_nulls()) == {
        "neither model learned from it", "one model learned from it"}  # fmt: skip
    dropping = configure("peer_verdicts", {"model": str(folder), "action": "drop"}, where="test")
    assert run_step("peer_verdicts", rows, dropping, context=Context()).dropped["id"].to_list() == [ids[3]]
    with pytest.raises(DataError, match="knows none of 1 rows"):
        run_step("peer_verdicts", frame([pair("else", "a", "b")]), config, context=Context())
    with pytest.raises(ConfigError, match=r"no audit\.parquet"):
        configure("peer_verdicts", {"model": str(tmp_path)}, where="test")


@pytest.mark.slow
def test_the_whole_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from evaluation.denoise.fine_tuned import causal_model
    from tests.rmkit.tiny_encoder import write_tiny_encoder

    cli.call("ingest", [str(write_kind_pairs(tmp_path / "pairs.jsonl", 160)), "--name", "kind", "--json"])
    causal_model(tmp_path / "model", hidden=32, seed=0)
    encoder = write_tiny_encoder(tmp_path / "encoder")
    words = ["crm", "kind", "--model", str(tmp_path / "model"), "--encoder", str(encoder)]
    words += ["--set", "num_train_epochs=2", "--set", "learning_rate=1e-3", "--set", "global_batch_size=16", "--json"]
    words += ["--set", "max_length=256"]
    words += ["--policy", str(tmp_path / "model"), "--test-reward", "length", "--samples", "2", "--max-tokens", "8"]
    capsys.readouterr()
    assert cli.call("denoise", [*words, "-o", str(tmp_path / "crm")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["evaluation"]["models"]) == 4
    assert [len(one["differences"]) > 0 for one in result["evaluation"]["comparisons"]] == [True] * 3
    assert result["policy"]["low"] <= result["policy"]["difference"] <= result["policy"]["high"]
    weights = {row.row["weight"] for row in load_dataset(result["version"], split="train")}
    assert weights <= {0.0, 0.5, 1.0}
    assert cli.call("denoise", [*words, "-o", str(tmp_path / "crm")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["evaluation"]["models"][0]["fingerprint"] == result["evaluation"]["models"][0]["fingerprint"]
