"""A judge's calls through a provider's batch API: each paid once at half the price, whatever breaks in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from rmkit.cli import main as cli
from rmkit.errors import BusyError, ConfigError, EndpointError, UsageError
from rmkit.generate import batch_api, batch_files
from tests.exports import KIND, kind_rows, write_export
from tests.rmkit.generate.batch_provider import BatchProvider, dumped


def kinder(asked: dict[str, Any]) -> str:
    if asked["max_tokens"] == 1:  # the probe
        return "A"
    first, second = (part.split("</response")[0] for part in asked["messages"][-1]["content"].split("<response-")[1:])
    kind = [sum(part.count(word) for word in KIND) for part in (first, second)]
    return f"Verdict: {'A' if kind[0] > kind[1] else 'B'}"


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    started = BatchProvider(kinder)
    yield started
    started.close()


@pytest.fixture
def judge(provider: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RMKIT_LEDGER", raising=False)
    monkeypatch.setenv("A_KEY", "sk-secret-1")
    monkeypatch.setattr(batch_api.random, "uniform", lambda low, high: 0.0)
    path = tmp_path / "judge.toml"
    path.write_text(
        '[judge]\nname = "kind judge"\nmax_tokens = 200\n[generator]\nmodel = "m"\nkey_env = "A_KEY"\nattempts = 3\n'
        f'base_url = "{provider.base_url}"\nprompt_price = 1.0\ncompletion_price = 10.0\n'
    )
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export", kind_rows(10))  # both orders: 20 calls


@pytest.fixture
def rmkit(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = cli.call("judge", [*map(str, arguments), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return call


def test_the_whole_way_with_what_breaks_on_it(
    rmkit: Any, judge: Path, data: Path, provider: BatchProvider, tmp_path: Path
) -> None:
    folder = tmp_path / "batch"
    _, written = rmkit("batch", "write", judge, data, "-o", folder, "--max-lines", 8)
    assert (written["files"], written["lines"], written["paid_before"]) == (3, 20, 0)
    assert [len(batch_files.keys_of(folder / f"requests-000{n}.jsonl")) for n in (1, 2, 3)] == [8, 8, 4]
    first = json.loads((folder / "requests-0001.jsonl").read_text().splitlines()[0])
    assert (first["method"], first["url"], first["body"]["model"]) == ("POST", "/v1/chat/completions", "m")
    assert first["body"]["logprobs"] is True
    assert "sk-secret-1" not in "".join(path.read_text() for path in folder.iterdir())
    assert rmkit("batch", "write", judge, data, "-o", folder)[1]["in_batches"] == 20
    assert provider.calls.total() == 0

    provider.faults = {"POST /files": [503], "POST /batches": ["cut", 500], "GET /batches": [429]}
    assert rmkit("batch", "submit", folder)[0] == 0
    assert len(provider.batches) == 3  # the one whose answer was cut off was not made twice
    assert provider.keys == {"Bearer sk-secret-1"}
    assert rmkit("batch", "submit", folder)[0] == 0
    assert (len(provider.batches), provider.calls["POST /batches"]) == (3, 4)

    assert rmkit("batch", "status", folder)[0] == 1
    status, waiting = rmkit("run", judge, data)
    assert (status, waiting["unscored"], provider.chats) == (1, 10, 0)  # nothing asks what waits in a batch
    assert f"waits in a batch: collect it first, rmkit judge batch collect {folder}" in str(
        waiting["judging"]["unread"]
    )
    other = tmp_path / "other"
    assert rmkit("batch", "write", judge, data, "-o", other)[1]["in_batches"] == 20

    def shuffled(lines: list[dict[str, Any]]) -> tuple[str, str, str]:
        stranger = {**lines[0], "custom_id": "0" * 32}
        return "completed", dumped([*lines[::-1], lines[1], stranger]) + "{cut off\n", ""

    provider.finish = shuffled
    provider.run()
    provider.faults = {"GET /files/content": ["cut", 500]}
    status, collected = rmkit("batch", "collect", folder)
    assert (status, collected["answered"]) == (0, 20)
    assert collected["usd"] == pytest.approx(20 * 0.5 * (500 * 1e-6 + 100 * 1e-5))
    assert rmkit("batch", "collect", folder)[1]["usd"] == collected["usd"]

    status, result = rmkit("run", judge, data)
    assert (status, result["unscored"], provider.chats) == (0, 0, 0)
    assert (result["judging"]["paid_calls"], result["judging"]["found_in_ledger"]) == (0, 20)
    [billed] = rmkit("bill")[1]["bill"]
    assert (billed["purpose"], billed["calls"]) == ("judge kind judge (batch)", 20)
    assert billed["usd"] == pytest.approx(collected["usd"])
    assert set(provider.asked.values()) == {1}


def test_what_a_batch_leaves_is_asked_again_and_nothing_else(
    rmkit: Any, judge: Path, data: Path, provider: BatchProvider, tmp_path: Path
) -> None:
    folder = tmp_path / "batch"
    rmkit("batch", "write", judge, data, "-o", folder)
    rmkit("batch", "submit", folder)

    def expired(lines: list[dict[str, Any]]) -> tuple[str, str, str]:
        for line in lines[12:14]:
            line["response"] = {"status_code": 400, "body": {"error": {"message": "too long"}}}
        lines[14]["response"]["body"]["choices"] = []
        late = [
            {**one, "response": None, "error": {"code": "batch_expired", "message": "ran out"}} for one in lines[15:18]
        ]
        return "expired", dumped(lines[:15]), dumped([*late, {**late[0], "custom_id": lines[0]["custom_id"]}])

    provider.finish = expired
    provider.run()
    status, collected = rmkit("batch", "collect", folder)
    assert (status, collected["answered"]) == (1, 12)
    assert collected["files"][0]["left"] == {
        "HTTP 400: too long": 2,
        "HTTP 200: no chat completion": 1,
        "ran out": 3,
        "the batch is expired": 2,
    }
    _, again = rmkit("batch", "write", judge, data, "-o", folder)
    assert (again["lines"], again["paid_before"], again["in_batches"]) == (8, 12, 0)
    rmkit("batch", "submit", folder)
    provider.finish = lambda lines: ("completed", dumped(lines), "")
    provider.run()
    status, collected = rmkit("batch", "collect", folder)
    assert collected["answered"] == 20
    assert rmkit("run", judge, data)[1]["judging"]["paid_calls"] == provider.chats == 0


def test_calls_that_were_paid_meanwhile_are_not_submitted(
    rmkit: Any, judge: Path, data: Path, provider: BatchProvider, tmp_path: Path
) -> None:
    folder = tmp_path / "batch"
    rmkit("batch", "write", judge, data, "-o", folder)
    rmkit("run", judge, data, "--limit", 4)
    probes = provider.chats - 8
    rmkit("batch", "submit", folder)
    provider.run()
    assert (provider.asked.total(), probes) == (12, 1)
    rmkit("batch", "collect", folder)
    assert rmkit("run", judge, data)[1]["judging"]["found_in_ledger"] == 20


@pytest.mark.slow
def test_a_submit_that_died_after_the_batch_was_made_finds_it(
    rmkit: Any, judge: Path, data: Path, provider: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "batch"
    rmkit("batch", "write", judge, data, "-o", folder, "--max-lines", 6)
    create = batch_api.BatchApi.create

    def dies(*arguments: Any, **options: Any) -> Any:
        create(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch_api.BatchApi, "create", dies)
        with pytest.raises(KeyboardInterrupt):
            rmkit("batch", "submit", folder)
    assert batch_files.read_folder(folder).files[0].status == "creating"
    rmkit("batch", "submit", folder)
    assert len(provider.batches) == 4
    provider.run()
    assert set(provider.asked.values()) == {1}
    provider.batches.pop("batch_1")  # a provider forgets
    status, collected = rmkit("batch", "collect", folder)
    assert (status, collected["answered"], collected["files"][1]["left"]) == (1, 14, {"the batch is gone": 6})


@pytest.mark.slow
def test_a_submit_that_is_killed_while_the_provider_makes_the_batch(
    rmkit: Any, judge: Path, data: Path, provider: BatchProvider, tmp_path: Path
) -> None:
    folder = tmp_path / "batch"
    rmkit("batch", "write", judge, data, "-o", folder)
    provider.faults = {"POST /batches": ["hang"]}
    command = [sys.executable, "-m", "rmkit", "judge", "batch", "submit", str(folder)]
    process = subprocess.Popen(command, env=os.environ)
    assert provider.hanging.wait(60)
    with pytest.raises(BusyError, match="another process works on"):
        rmkit("batch", "submit", folder)
    process.kill()
    process.wait()
    assert batch_files.read_folder(folder).files[0].status == "creating"
    rmkit("batch", "submit", folder)
    assert len(provider.batches) == 1
    provider.run()
    assert rmkit("batch", "collect", folder)[1]["answered"] == 20


def test_what_cannot_go_on_is_said_in_one_line(
    rmkit: Any, judge: Path, data: Path, provider: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "batch"
    with pytest.raises(UsageError, match=r"holds no batch\.json; begin with: rmkit judge batch write"):
        rmkit("batch", "submit", folder)
    rmkit("batch", "write", judge, data, "-o", folder, "--max-usd", 0.02)
    [file] = batch_files.read_folder(folder).files
    assert 0 < file.lines < 20
    provider.faults = {"POST /files": [401]}
    with pytest.raises(EndpointError, match=r"HTTP 401: no, Bearer \*\*\*; check the variable that key_env names"):
        rmkit("batch", "submit", folder)
    provider.faults = {"POST /files": [503] * 3}
    with pytest.raises(
        EndpointError, match=r"after 3 attempts: POST /v1/files: HTTP 503.*repeat the command, it goes on"
    ):
        rmkit("batch", "submit", folder)
    (folder / file.name).write_text((folder / file.name).read_text().replace("kind", "mean"))
    judge.write_text(judge.read_text().replace('"m"', '"n"'))
    with pytest.raises(UsageError, match=r"to m at .* not to n at"):
        rmkit("batch", "write", judge, data, "-o", folder)
    monkeypatch.delenv("A_KEY")
    with pytest.raises(ConfigError, match=r"\$A_KEY is not set"):
        rmkit("batch", "submit", folder)
    judge.write_text('[judge]\nname = "j"\n[generator]\nmodel = "lm"\nbackend = "local"\n')
    with pytest.raises(ConfigError, match="backend local is no provider"):
        rmkit("batch", "write", judge, data, "-o", tmp_path / "b")
