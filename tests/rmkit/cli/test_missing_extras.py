"""A missing extra is one line and status 2, whatever the command; help and the clients work without any extra."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import sample
from rmkit import extras
from rmkit.cli.main import commands

ROOT = Path(__file__).parents[3]
BLOCKED = Path(__file__).with_name("blocked_imports.py")
ROOMS = ("rmkit", "rubrics", "warehouse", "data_pipelines", "evaluation", "labeling_ui")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def run_with(installed: str, calls: list[list[str]], home: Path) -> list[dict[str, Any]]:
    """The answers to these commands where nothing but the base and these extras is installed."""
    environment = os.environ | {"RMKIT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, str(BLOCKED), installed],
        input=json.dumps(calls),
        env=environment,
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_help_of_every_command_works_with_the_base_install_alone(tmp_path: Path) -> None:
    names = list(commands())
    for name, answer in zip(names, run_with("", [[name, "--help"] for name in names], tmp_path / "home"), strict=True):
        assert (answer["status"], answer["err"]) == (0, ""), f"{name}: {answer}"
        assert "usage:" in answer["out"] or f"; run: pip install -e '{ROOT}[" in answer["out"], name


def test_clients_config_and_types_work_with_the_base_install_alone(tmp_path: Path) -> None:
    code = (
        "import sys, rmkit.config, rmkit.types, rmkit.serve.clients\n"
        "from rmkit.serve.clients import openrlhf, trl, verl, verifiers, nemo_rl\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    imports = {name.replace("_", "-") for name in ended.stdout.split()}
    optional = {name for extra, names in extras.distributions().items() if extra for name in names}
    optional -= {"pygments"}  # rich, which is in the base, brings it
    assert not imports & (optional - set(extras.distributions()[""]))


# With the extra `data` alone, in this order: what each command answers, or the extra whose want it names.
CALLS: list[tuple[str, int | str]] = [
    ("doctor", 0),
    ("completion bash", 0),
    ("quickstart --from {data} --max-rows 0", "report"),
    ("sample {tmp}/more --pairs 60", 0),
    ("ingest {data} --name again --license MIT", 0),
    ("ingest s3://bucket/dump.jsonl", "cloud"),
    ("run clean --data sample", 0),
    ("run denoise --data sample", "train"),
    ("noise sample@v2 --rate 0.2 --out noisy", 0),
    ("sync", 0),
    ("datasets", 0),
    ("diff sample@v1 sample@v2", 0),
    ("tag sample@v2 gold", 0),
    ("branch sample@v2 try", 0),
    ("merge sample@try --into sample@main", 0),
    ("export sample@v2 -o {tmp}/export", 0),
    ("why none", 2),
    ("backup {tmp}/backup", 0),
    ("restore {tmp}/backup --force", 0),
    ("train lexical --data sample@v2", 0),
    ("train frozen --data sample@v2", "train"),
    ("train pairwise --data sample@v2", "train"),
    ("train process-frozen --data sample@v2", "train"),
    ("train explicit --data sample@v2 --model {tmp}/none", "train"),
    ("train process --data sample@v2 --model {tmp}/none", "train"),
    ("train implicit --data sample@v2 --model {tmp}/none", "train"),
    ("train peers --data sample@v2 --model {tmp}/none --noise 0.2", "train"),
    ("train judge --stage sft --data {tmp}/none --base {tmp}/none -o {tmp}/judge", 2),
    ("score sample-v2-lexical sample@v2 -o {tmp}/scores.parquet", 0),
    ("verify sample-v2-lexical", 0),
    ("calibrate sample-v2-lexical --data sample@v2", 0),
    ("normalize sample-v2-lexical --data sample@v2", 0),
    ("models", 0),
    ("eval sample-v2-lexical length --data sample@v2", 0),
    ("compare sample-v2-lexical length --suite pairs --data {pairs}", 0),
    ("leaderboard", 0),
    ("report sample@v2", "report"),
    ("serve sample-v2-lexical", "serve"),
    ("drift sample-v2-lexical --reference sample@v2 --model sample-v2-lexical", "report"),
    ("token list", 0),
    ("label", 0),
    ("label opinions none --model {tmp}/none", 2),
    ("label serve", "ui"),
    ("label demo", "ui"),
    ("queue simulate {pairs}", "train"),
    ("judge run {judge} sample@v2 --limit 2 -o {tmp}/verdicts.parquet", "judge"),
    ("judge-data sft {judge} sample@v2 --limit 2 -o {tmp}/sft", "judge"),
    ("rubrics check {tmp}/none.toml sample@v2", 2),
    ("probe perturb length --suite pairs --data {pairs}", 0),
    ("denoise bench sample@v2", "train"),
    ("denoise suspects sample@v2", "train"),
    ("bench scoring", "train"),
    ("bench implicit", "train"),
    ("bench uncertainty", "train"),
    ("bench policy", "train"),
    ("bench story", "report"),
    ("erase 00000000 --reason test", 2),
    ("adopt {tmp}/none", "train"),
    ("convert edits --data absent --out mine", 2),
    ("drops sample@v1", 2),
    ("prompts show", 2),
    ("suites", 0),
    ("provenance show sample@v2", 0),
    ("memory search {tmp}/none.jsonl text", 2),
    ("loop {tmp}/none.toml --data sample@v2", 2),
    ("step-agreement sample@v1 sample@v2", 2),
    ("coverage sample@v2", "report"),
    ("search study {tmp}/none", 2),
    ("push data sample@v2 someone/sample --dry-run --allow-license unknown", "train"),
]


def calls(tmp: Path, size: int) -> list[str]:
    data, _ = sample.write(tmp / "mine", sample.SampleConfig(pairs=size))
    pairs = tmp / "pairs.jsonl"
    rows = [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": f"{n}, I guess, or so."} for n in range(9)]
    pairs.write_text("".join(json.dumps({"id": str(number), **row}) + "\n" for number, row in enumerate(rows)))
    judge = tmp / "judge.toml"
    judge.write_text(
        '[judge]\nname = "j"\nform = "pairwise"\n[generator]\nmodel = "m"\nbase_url = "http://127.0.0.1:9"\n'
    )
    lines = [line.format(data=data, pairs=pairs, judge=judge, tmp=tmp) for line, _ in CALLS]
    assert {line.split()[0] for line in lines} == set(commands())
    return lines


@pytest.mark.slow
def test_with_the_base_alone_every_command_is_at_most_one_line(tmp_path: Path) -> None:
    lines = calls(tmp_path, 60)
    answers = run_with("", [line.split() for line in lines], tmp_path / "home")
    lacking = 0
    for line, answer in zip(lines, answers, strict=True):
        assert answer["status"] in (0, 2), f"{line}: {answer}"
        errors = [each for each in answer["err"].splitlines() if not each.startswith("$ rmkit ")]
        assert answer["status"] == 0 or len(errors) == 1, f"{line}: {answer['err']}"
        lacking += "; run: pip install -e" in answer["err"]
    assert lacking > len(lines) / 2


@pytest.mark.slow
def test_with_the_extra_data_a_command_works_or_names_what_it_lacks(tmp_path: Path) -> None:
    lines = calls(tmp_path, 500)
    answers = run_with("data", [line.split() for line in lines], tmp_path / "home")
    for line, (_, expected), answer in zip(lines, CALLS, answers, strict=True):
        check(line, expected, answer)


def check(line: str, expected: int | str, answer: dict[str, Any]) -> None:
    last = answer["err"].splitlines()[-1:]
    if isinstance(expected, int):
        assert answer["status"] == expected, f"{line}: {answer}"
    else:
        assert answer["status"] == 2, f"{line}: {answer}"
        assert re.fullmatch(rf"rmkit: \S+ is not installed; run: pip install -e '{ROOT}\[{expected}\]'", last[0]), line
