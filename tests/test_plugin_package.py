"""A package outside the tree adds one thing of each kind, and the command line uses each of them by its name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.exports import KIND, RUDE, TOPICS, kind_rows, write_export

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tests" / "plugin_package"
ROWS = [
    {"question": "Why?", "left": "BECAUSE", "right": "so it is", "better": "right"},
    {"question": "Who?", "left": "they", "right": "THEM", "better": "left"},
    {"question": "When?", "left": "now" * 40, "right": "then", "better": "same"},
    {"question": "Where?", "left": "here", "right": "there", "better": "nowhere"},
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Of a process that has the package installed: its files and the metadata that pip writes for it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE / "rmkit_sample", site / "rmkit_sample")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    metadata = site / f"rmkit_sample-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = (
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in points.items())])
        for group, points in project["entry-points"].items()
    )
    (metadata / "entry_points.txt").write_text("\n\n".join(groups))
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)]),
        "RMKIT_HOME": str(site / "home"),
        "OMP_NUM_THREADS": "1",
    }


def rmkit(environment: Mapping[str, str], *arguments: str) -> Any:
    """What the command prints with --json."""
    command = [sys.executable, "-m", "rmkit", *arguments, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, env=dict(environment), cwd=environment["RMKIT_HOME"])
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.strip().splitlines()[-1])


def test_the_source_the_step_and_the_model(environment: Mapping[str, str]) -> None:
    home = Path(environment["RMKIT_HOME"])
    home.mkdir(exist_ok=True)
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (home / "short.toml").write_text(
        '[recipe]\nname = "short"\n\n[[step]]\nuse = "short_replies"\nmax_characters = 100\n'
    )
    (ingested,) = rmkit(environment, "ingest", "rows.jsonl")["files"]
    assert (ingested["format"], ingested["accepted"]) == ("left-right", 3)
    assert ingested["reasons"] == {"better is not left, right or same": 1}
    (step,) = rmkit(environment, "run", "short.toml", "--data", "rows")["steps"]
    assert (step["n_in"], step["n_kept"], step["reasons"]) == (3, 2, {"a reply is too long": 1})
    rmkit(environment, "score", "shouting", "rows@v2", "-o", "scores.jsonl")
    scores = [json.loads(line) for line in (home / "scores.jsonl").read_text().splitlines()]
    assert sorted(score["value"] for row in scores for score in row["scores"]) == [-7.0, -4.0, 0.0, 0.0]


def test_the_scoring_rule(environment: Mapping[str, str]) -> None:
    home = Path(environment["RMKIT_HOME"])
    home.mkdir(exist_ok=True)
    (home / "lead.toml").write_text(
        'name = "lead"\ntitle = "Lead"\nlicense = "none"\nrule = "clear-lead"\nform = "pairs"\nopen = true\n'
        '[[measure]]\nname = "all"\npool = ["*"]\nheadline = true\n'
    )
    replies = [("fine", "NO"), ("fine", "No"), ("OH", "well")]  # leads of 2, 1 and -2 capital letters
    rows = [{"id": n, "prompt": f"{n}?", "chosen": a, "rejected": b} for n, (a, b) in enumerate(replies)]
    (home / "bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (model,) = rmkit(environment, "eval", "shouting", "--suite", "lead.toml", "--data", "bench.jsonl")["models"]
    assert (model["measures"]["all"]["numerator"], model["measures"]["all"]["denominator"]) == (1, 3)


def base_model(folder: Path) -> Path:
    """A tiny random encoder that knows the words of `kind_rows`."""
    hf, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    words = ["<pad>", "<unk>", "<eos>", *KIND, *RUDE, *TOPICS]
    model = tokenizers.models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>")
    plain = tokenizers.Tokenizer(model)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<eos>"}
    hf.PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    hf.BertModel(hf.BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_objective(environment: Mapping[str, str], tmp_path: Path) -> None:
    Path(environment["RMKIT_HOME"]).mkdir(exist_ok=True)
    data, base = write_export(tmp_path / "kind", kind_rows(100)), base_model(tmp_path / "base")
    settings = ("objective=hinge", "lead=2.5", "num_train_epochs=1", "max_length=256")
    given = [word for setting in settings for word in ("--set", setting)]
    arguments = ("--data", str(data), "--model", str(base), "-o", str(tmp_path / "model"), *given)
    trained = rmkit(environment, "train", "explicit", *arguments)
    stored = trained["training"]["settings"]
    assert (stored["objective"], stored["lead"]) == ("rmkit_sample.objective:Hinge", 2.5)
    assert 1.5 < trained["training"]["mean_loss"] < 3.5  # an untrained model leads by about nothing


def test_the_dialect(environment: Mapping[str, str]) -> None:
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "rmkit", "serve", "shouting", "--port", "0", "--no-log", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(environment)
    ) as ran:
        try:
            assert ran.stdout
            url = json.loads(ran.stdout.readline())["url"]
            body = {"prompt": "Why?", "replies": ["Oh", "NO", "well"]}
            answer = httpx.post(f"{url}/plain-texts/numbers", json=body, trust_env=False, timeout=60)
            assert answer.json() == [-1.0, -2.0, 0.0]
        finally:
            ran.terminate()
