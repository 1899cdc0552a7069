"""Bad input at the command line: one line that says what happened and what to do, status 2, nothing made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.cli import main as cli
from tests.exports import kind_rows, write_export
from tests.rmkit.tiny_encoder import write_tiny_encoder

Said = pytest.CaptureFixture[str]
SMALL = 'encoder = "{encoder}"\nmax_tokens = 32\ndtype = "fp32"\nhidden = [0]\nlinear_lr = 0.01\n'


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


def refused(capsys: Said, *arguments: str) -> str:
    """The one line on stderr of a command that ends with status 2."""
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rmkit")]
    assert len(lines) == 1
    return lines[0]


def train(tmp_path: Path, encoder: Path, rows: list[dict[str, Any]], *more: str) -> list[str]:
    config = tmp_path / "small.toml"
    config.write_text(SMALL.format(encoder=encoder))
    data = write_export(tmp_path / "data", rows)
    return ["train", "frozen", "--data", str(data), "--config", str(config), "-o", str(tmp_path / "model"), *more]


@pytest.mark.parametrize("noise", ["0.5", "-0.1"])
def test_a_noise_prior_outside_zero_to_one_half(
    noise: str, encoder: Path, home: Path, tmp_path: Path, capsys: Said
) -> None:
    told = refused(capsys, *train(tmp_path, encoder, kind_rows(200), "--denoise", "peer", "--noise", noise))
    assert f"the noise prior is the share of wrong labels, in [0, 0.5); got {noise}" in told
    peers = ["train", "peers", "--data", str(tmp_path / "data"), "--model", "x", "--noise", noise]
    assert "in [0, 0.5)" in refused(capsys, *peers)
    assert "in [0, 0.5)" in refused(capsys, "noise", "data", "--rate", noise)
    assert not (tmp_path / "model").exists()


def test_a_noise_prior_that_is_no_number(encoder: Path, home: Path, tmp_path: Path, capsys: Said) -> None:
    told = refused(capsys, *train(tmp_path, encoder, kind_rows(200), "--denoise", "peer", "--noise", "nan"))
    assert "--noise: expected a finite number, got 'nan'" in told
    assert "expected a finite number" in refused(capsys, "noise", "data", "--rate", "nan")


def test_fewer_than_fifty_pairs(encoder: Path, home: Path, tmp_path: Path, capsys: Said) -> None:
    told = refused(capsys, *train(tmp_path, encoder, kind_rows(70), "--denoise", "peer", "--noise", "0.2"))
    assert "42 usable pairs, at least 50 are needed; add data or leave this method out" in told


def test_one_class_only(encoder: Path, home: Path, tmp_path: Path, capsys: Said) -> None:
    rows = [row | {"p": [1.0, 0.0]} for row in kind_rows(200)]
    told = refused(capsys, *train(tmp_path, encoder, rows, "--denoise", "cross_fit"))
    assert "one class only: all 120 decided pairs prefer the first response" in told


def test_missing_ids(encoder: Path, home: Path, tmp_path: Path, capsys: Said) -> None:
    rows = [row | {"id": "" if at < 3 else row["id"]} for at, row in enumerate(kind_rows(200))]
    told = refused(capsys, *train(tmp_path, encoder, rows, "--denoise", "peer", "--noise", "0.2"))
    assert "no id" in told


@pytest.fixture
def voted(home: Path, tmp_path: Path) -> str:
    """Ten pairs with three voters each; on one of them a fourth spoke, who never did again."""
    lines = []
    for at in range(10):
        voters = {"ann": "a", "bob": "a", "cat": "b" if at % 3 == 0 else "a"} | ({"dan": "b"} if at == 4 else {})
        votes = [{"annotator": name, "preference": said} for name, said in voters.items()]
        lines.append({"id": f"r{at}", "source": "s", "prompt": [{"role": "user", "content": f"ask {at}"}],
                      "response_a": f"one {at}", "response_b": f"two {at}", "labels": votes,
                      "majority": "a", "meta": {}})  # fmt: skip
    path = tmp_path / "annotators_made.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    cli.call("ingest", [str(path), "--name", "votes", "--json"])
    return "votes"


def test_an_annotator_with_one_vote(voted: str, tmp_path: Path, capsys: Said) -> None:
    recipe = tmp_path / "trust.toml"
    recipe.write_text('[recipe]\nname = "trust"\n[[step]]\nuse = "aggregate"\nmethod = "reliability"\n')
    told = refused(capsys, "run", str(recipe), "--data", voted)
    assert "1 annotators have fewer than 2 votes that can be compared (first: s/dan)" in told
    assert 'few="average"' in told
    recipe.write_text(recipe.read_text() + 'few = "average"\n')
    assert cli.main(["run", str(recipe), "--data", voted]) == 0


def test_scores_that_are_missing_are_counted_and_never_kept(voted: str, tmp_path: Path, capsys: Said) -> None:
    recipe = tmp_path / "gap.toml"
    recipe.write_text('[recipe]\nname = "gap"\n[[step]]\nuse = "reward_gap"\nmodel = "length"\n')
    told = refused(capsys, "run", str(recipe), "--data", voted)
    assert "usable scored pairs, at least 50 are needed" in told
