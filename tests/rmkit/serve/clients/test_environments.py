"""Gold answers, groups and what is missing through trainers from their wheels, each in an environment of its own.

The trainer's own code loads the adapter as its settings say, in a process of that environment, against a real service:
2 * exact_match + characters / 10, so "#### 72." earns 2.8 where the gold answer is 72 and 0.8 where it is 99.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from rmkit.curriculum.book import PromptBook
from rmkit.ledger import open_ledger
from rmkit.serve.http.app import create_app
from rmkit.serve.settings import ServeSettings
from rmkit.signal import Signal
from rmkit.types import Score
from tests.rmkit.serve.compat_service import Running, running
from tests.rmkit.serve.serving import Steered
from tests.rmkit.serve.trainer_wheels import environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
MIX = {"exact_match": 2, "reward": 1}
NO_GOLD = "exact_match: there is no reference answer to verify against"
VERL = ["verl==0.9.1", "tensordict==0.10.0", "omegaconf", "hydra-core", "antlr4-python3-runtime==4.9.3", "cachetools"]
VERL += ["codetiming", "torchdata", "pyvers", "orjson", "importlib_metadata", "zipp"]
VERL += ["transferqueue==0.1.11", "pyzmq", "msgspec", "prometheus_client"]
SWIFT = ["ms-swift==4.6.0", "dacite", "addict", "modelscope", "modelscope-hub", "json_repair", "attrdict"]


class Tenth(Steered):
    def _score(self, completion: Any) -> Score:
        return Score(len(completion.text) / 10)


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    tables: dict[str, Any] = {
        "answer": {"mix": MIX, "columns": {"reference": "answer"}},
        "answer_centered": {"mix": MIX, "chain": ["center"], "columns": {"reference": "answer"}},
        "reference": {"mix": MIX},
        "reference_centered": {"mix": MIX, "chain": ["center"]},
    }
    signals = {name: Signal.of(table, name=name) for name, table in tables.items()}
    with running(create_app({"tenth": Tenth()}, ServeSettings(policy_template="plain"), signals=signals)) as service:
        yield service


def run(python: Path, script: str, service: Running, *, signal: str = "answer") -> Any:
    """What a script of `environments/` prints, run by the environment's Python."""
    own = {"RMKIT_REWARD_URL": service.url(), "RMKIT_REWARD_SIGNAL": signal, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(python), str(Path(__file__).parent / "environments" / script), service.url()],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_verl(service: Running) -> None:
    """Its loader imports the manager by path (twice), which scores real DataProtos; estimator and token output."""
    result = run(environment("verl", VERL), "in_verl.py", service)
    for gold, score in (("'72'", 2.8), ("'99'", 0.8), ("72", 2.8)):
        row = result[f"gold {gold}"]
        assert row["reward_score"] == pytest.approx(score)
        assert row["reward_extra_info"] == {
            "score": pytest.approx(score), "rmkit_raw": pytest.approx(score), "rmkit_unscored": 0, "rmkit_truncated": 0,
        }  # fmt: skip
    assert NO_GOLD in result["gold None"]
    assert (result["stand-in"]["reward_score"], result["stand-in"]["reward_extra_info"]["rmkit_unscored"]) == (-3, 1)
    assert [one["reward_score"] for one in result["group"]] == pytest.approx([1.3, -1.3])  # 2.8 and 0.2, centered
    assert [one["reward_extra_info"]["rmkit_raw"] for one in result["group"]] == pytest.approx([2.8, 0.2])
    assert result["advantages"] == [pytest.approx([0.2, 0, 0.8]), [0.5, -0.5, 0]]  # padding earns nothing
    assert result["tokens"] == {"rm_scores": [0.25, 0, 0.5], "reward_score": 0.75}


def test_verl_trains_on_the_group_that_the_prompt_book_proposes(tmp_path: Path) -> None:
    """Its store (TransferQueue on Ray) holds three finished groups: all right, half right, all wrong, by age."""
    pytest.importorskip("ray")
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        with running(create_app({"tenth": Tenth()}, ledger=ledger)) as service:
            result = run(environment("verl", VERL), "in_verl_sampler.py", service)
        for mode in ("sync", "separate_async"):
            assert result[mode][0] == ["u1", 16]
            assert sorted(result[mode][1:]) == [["u0", 16], ["u2", 16]]
            assert result[f"{mode} without a book"] == ["u4_0_0", "u4_1_0"]  # the oldest
            book = PromptBook(ledger, mode)
            assert {prompt: one.n for prompt, one in book.prompts().items()} == {"0": 16, "1": 16, "2": 16}


def test_ms_swift(service: Running) -> None:
    python = environment("ms-swift", SWIFT)
    result = run(python, "in_ms_swift.py", service)
    assert [result[gold] for gold in ("'72'", "'99'", "72")] == [pytest.approx([one]) for one in (2.8, 0.8, 2.8)]
    assert NO_GOLD in result["None"]
    # 2.8, 0.2 in one group, 0.2 in another
    centered = run(python, "in_ms_swift.py", service, signal="answer_centered")
    assert centered["group"] == pytest.approx([1.3, -1.3, 0])


def test_verifiers(service: Running) -> None:
    """Its Task loads the function by path, weights it by .5 and notes components; an error is noted, no NaN."""
    python = environment("verifiers", ["verifiers==0.4.0"], alone=True)
    result = run(python, "in_verifiers.py", service)
    assert [result[gold]["reward"] for gold in ("'72'", "'99'", "72")] == pytest.approx([1.4, 0.4, 1.4])
    assert result["'99'"]["metrics"] == {"rmkit_exact_match": 0, "rmkit_reward": 0.8}
    assert result["None"]["error"].startswith("TaskError")
    assert NO_GOLD in result["None"]["error"]
