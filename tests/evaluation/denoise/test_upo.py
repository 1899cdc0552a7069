"""`rmkit denoise upo` from a version, a tiny policy and the length rule; the same command goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from evaluation.denoise.fine_tuned import causal_model  # noqa: E402
from rmkit.cli import main as cli  # noqa: E402
from tests.data_pipelines.kind_pairs import write_kind_pairs  # noqa: E402
from tests.rmkit.tiny_encoder import write_tiny_encoder  # noqa: E402


@pytest.mark.slow
def test_the_loop_from_the_command_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    cli.call("ingest", [str(write_kind_pairs(tmp_path / "pairs.jsonl", 100)), "--name", "kind", "--json"])
    causal_model(tmp_path / "policy", hidden=32, seed=0)
    encoder = str(write_tiny_encoder(tmp_path / "encoder"))
    given = ["upo", "kind", "--policy", str(tmp_path / "policy"), "--reward", "length", "--encoder", encoder]
    small = ["--iterations", "2", "--prompts", "8", "--max-tokens", "32", "--samples", "4", "--lr", "1e-3"]
    results = []
    for _ in range(2):
        capsys.readouterr()
        assert cli.call("denoise", [*given, *small, "-o", str(tmp_path / "upo"), "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]  # finished rounds are read, not made again
    rounds = results[0]["rounds"]
    assert [one["round"] for one in rounds] == [1, 2]
    assert all(0 <= one["selected"] <= one["candidates"] and one["candidates"] > 0 for one in rounds)
    assert (Path(results[0]["policy"]) / "model.safetensors").is_file()
