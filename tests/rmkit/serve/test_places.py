"""Which device each of several workers takes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from rmkit.errors import UsageError
from rmkit.serve import command
from rmkit.serve.places import take
from rmkit.serve.plan import ServePlan
from rmkit.serve.ray_engine import replica_resources


def hold(folder: Path, n: int, taken: multiprocessing.SimpleQueue[int], end: multiprocessing.synchronize.Event) -> None:
    taken.put(take(folder, n))
    end.wait()


def test_the_device_with_the_fewest_and_then_the_oldest(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    taken = context.SimpleQueue()
    workers = []

    def start() -> int:
        end = context.Event()
        process = context.Process(target=hold, args=(tmp_path, 3, taken, end), daemon=True)
        process.start()
        workers.append((process, end))
        return taken.get()

    def stop(number: int) -> None:
        process, end = workers[number]
        end.set()
        process.join()

    assert [start() for _ in range(3)] == [0, 1, 2]
    stop(1)
    assert start() == 1  # where the other one died
    for number in (0, 2, 3):  # replaced one by one, each before its predecessor ends; the oldest is number 0
        assert start() == {0: 0, 2: 2, 3: 1}[number]
        stop(number)
    assert start() == 0  # a fourth shares with the oldest
    for number in range(4, len(workers)):
        stop(number)


def test_replicas_under_ray_take_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plan = ServePlan(models={"length": "length"}, workers=2)
    assert replica_resources(plan, {"CPU": 8.0}) == {"num_cpus": 0.5, "num_gpus": 0.0}
    assert replica_resources(plan, {"CPU": 8.0, "GPU": 2.0})["num_gpus"] == 1.0
    shared = ServePlan(models={"length": "length"}, workers=2, gpus=0.5)
    assert replica_resources(shared, {"GPU": 1.0})["num_gpus"] == 0.5
    with pytest.raises(UsageError, match="2 replicas of 1 GPUs are more than the 1 here"):
        replica_resources(plan, {"GPU": 1.0})
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert replica_resources(plan, {"GPU": 1.0})["num_gpus"] == 1.0


def test_devices_and_gpus_belong_to_one_engine_each(home: Path) -> None:
    with pytest.raises(UsageError, match="Ray gives each replica its GPUs"):
        command.main(["length", "--engine", "ray", "--devices", "auto"])
    with pytest.raises(UsageError, match="--gpus belongs to --engine ray"):
        command.main(["length", "--gpus", "1"])
