"""Scores in shares: the same bytes as one run, whatever is killed; what does not belong together is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rmkit import devices
from rmkit.errors import UsageError
from rmkit.scoring import command as score
from rmkit.scoring.shards import Shard, merge, shard


def write(path: Path, n: int = 47) -> Path:
    rows = [{"id": str(number), "prompt": f"p{number}", "responses": ["x" * number, "y"]} for number in range(n)]
    rows[5] = {"id": "5", "prompt": "no response"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(data: Path, out: Path, *more: str) -> int:
    return score.main(["length", str(data), "-o", str(out), "--window", "4", *more])


def record(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.with_name(path.name + ".run.json").read_text())
    return result


@pytest.mark.parametrize(("n_rows", "count"), [(47, 3), (48, 2), (3, 5), (4, 1)])
def test_shares_together_are_the_bytes_of_one_run(tmp_path: Path, n_rows: int, count: int) -> None:
    data, whole, out = write(tmp_path / "in.jsonl", max(6, n_rows)), tmp_path / "whole.jsonl", tmp_path / "s.jsonl"
    assert run(data, whole) == 0
    for index in reversed(range(count)):
        assert run(data, out, "--shard", f"{index}/{count}") == 0
    assert score.main(["--merge", str(out)]) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert record(out)["counts"] == record(whole)["counts"]
    assert record(out)["made_from"] == record(whole)["made_from"]
    assert run(data, out) == 0  # it is the finished file of that command
    assert out.read_bytes() == whole.read_bytes()


def test_what_does_not_belong_together_is_named(tmp_path: Path) -> None:
    data, out = write(tmp_path / "in.jsonl"), tmp_path / "s.jsonl"
    with pytest.raises(UsageError, match=r"no shares of s\.jsonl lie in"):
        merge(out)
    for index in (0, 2):
        run(data, out, "--shard", f"{index}/4")
    with pytest.raises(UsageError, match=r"shares 1/4, 3/4 of s\.jsonl are missing"):
        merge(out)
    run(data, out, "--shard", "1/4")
    run(write(tmp_path / "other.jsonl", 30), out, "--shard", "3/4")
    with pytest.raises(UsageError, match=r"s\.3-of-4\.jsonl differs from s\.0-of-4\.jsonl in data_digest, data_items"):
        merge(out)
    run(data, out, "--shard", "3/4", "--fresh")
    third = Shard(3, 4).path(out)
    lines = third.read_text().splitlines(keepends=True)
    third.write_text("".join(lines[:-1]))
    with pytest.raises(UsageError, match=r"s\.3-of-4\.jsonl holds 10 items, its record says 11; make it again"):
        merge(out)
    for suffix in ("", ".run.json"):
        first = Shard(0, 4).path(out)
        shutil.copy(first.with_name(first.name + suffix), third.with_name(third.name + suffix))
    with pytest.raises(UsageError, match=r"s\.3-of-4\.jsonl holds share 0/4; make it again"):
        merge(out)
    assert not out.exists()
    run(data, out, "--shard", "0/3")
    with pytest.raises(UsageError, match=r"shares of 3 and of 4 of s\.jsonl lie in"):
        merge(out)
    for bad in ("3/3", "-1/3", "1", "a/b"):
        with pytest.raises(UsageError, match="--shard takes I/N"):
            shard(bad)
    with pytest.raises(UsageError, match="rmkit score takes MODEL FILE -o OUT, or --merge OUT"):
        score.main(["length"])


def test_a_share_goes_on_after_its_last_whole_window(tmp_path: Path) -> None:
    data, out = write(tmp_path / "in.jsonl"), tmp_path / "s.jsonl"
    run(data, out, "--shard", "1/2")
    own = Shard(1, 2).path(out)
    expected, part = own.read_bytes(), own.with_name(own.name + ".part")
    os.rename(own, part)
    os.truncate(part, len(expected) - 30)  # in the middle of a line
    facts = record(own) | {"finished": False}
    own.with_name(own.name + ".run.json").write_text(json.dumps(facts))
    assert run(data, out, "--shard", "1/2") == 0
    assert own.read_bytes() == expected


def test_each_device_gets_a_process_with_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, whole, out = write(tmp_path / "in.jsonl"), tmp_path / "whole.jsonl", tmp_path / "s.jsonl"
    run(data, whole)
    monkeypatch.setattr(devices, "gpus", lambda: ["4", "7"])
    started: list[tuple[str, str]] = []
    popen = subprocess.Popen

    def watched(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        started.append((options["env"]["CUDA_VISIBLE_DEVICES"], command[-1]))
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", watched)
    assert run(data, out, "--devices", "auto") == 0
    assert started == [("4", "0/2"), ("7", "1/2")]
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("s.*")) == ["s.jsonl", "s.jsonl.run.json"]
    with pytest.raises(UsageError, match=r"--devices takes auto, cpu or numbers of GPUs \(0, 1 here\), got '2'"):
        run(data, out, "--devices", "2")


@pytest.mark.slow
def test_killed_shares_end_with_the_bytes_of_one_run(tmp_path: Path) -> None:
    data, whole, out = write(tmp_path / "in.jsonl", 4000), tmp_path / "whole.jsonl", tmp_path / "s.jsonl"
    run(data, whole)
    kills = 0
    for index in range(3):
        own = Shard(index, 3).path(out)
        command = [sys.executable, "-m", "rmkit", "score", "length", str(data), "-o", str(out), "--window", "4"]
        while not own.exists():
            process = subprocess.Popen([*command, "--shard", f"{index}/3"], stderr=subprocess.DEVNULL)
            part, size = own.with_name(own.name + ".part"), 0
            if part.exists():
                size = part.stat().st_size
            while process.poll() is None and kills < 9:
                if part.exists() and part.stat().st_size > size + 20_000:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.001)
            process.wait()
    assert kills >= 6
    merge(out)
    assert out.read_bytes() == whole.read_bytes()
