"""Which device a process computes on, and what several processes get."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from rmkit import devices
from rmkit.devices import assigned, chosen
from rmkit.errors import UsageError


def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen("cpu") == "cpu"
    for absent in ("cuda:7", "mps", "gpu", "cuda:x"):
        with pytest.raises(UsageError, match=f"there is no device '{absent}' here, but cpu"):
            chosen(absent)
    monkeypatch.setenv("RMKIT_DEVICE", "cuda:9")
    with pytest.raises(UsageError, match="no device 'cuda:9'"):
        chosen()
    assert chosen("cpu") == "cpu"
    monkeypatch.setenv("RMKIT_DEVICE", "auto")
    assert chosen() in ("cpu", "cuda")


def test_processes_get_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = [{"CUDA_VISIBLE_DEVICES": "", "RMKIT_DEVICE": "cpu"}]
    monkeypatch.setattr(devices, "gpus", list)
    assert assigned("auto") == assigned("cpu") == cpu
    with pytest.raises(UsageError, match=r"numbers of GPUs \(none here\), got '0'"):
        assigned("0")
    monkeypatch.setattr(devices, "gpus", lambda: ["2", "GPU-5"])
    assert assigned("auto") == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "GPU-5"}]
    assert assigned("1") == [{"CUDA_VISIBLE_DEVICES": "GPU-5"}]
    assert assigned("cpu") == cpu
    for bad in ("0,2", "x", ""):
        with pytest.raises(UsageError, match=r"\(0, 1 here\)"):
            assigned(bad)
