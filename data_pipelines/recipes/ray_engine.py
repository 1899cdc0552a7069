"""`rmkit run --engine ray`: the parts of steps that go row by row, on the actors of Ray Data (extra ray).

Each actor runs a step on one part at a time and leaves the part's folder under $RMKIT_HOME/runs, which all machines of
a cluster must see. A part that is there whole is never made again, so that a dead actor costs the part it was at, and
Ray may try again as often as it likes. Ray starts on this machine unless RAY_ADDRESS names a cluster. Steps of other
scopes run in the process that asked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from data_pipelines.recipes.runner import Engine, PartWork
from data_pipelines.steps import step_module
from rmkit.errors import MissingExtraError, RmkitError

_VARIABLES = ("RMKIT_HOME", "RMKIT_LEDGER", "OMP_NUM_THREADS", "PYTHONPATH", "HF_HOME", "HF_HUB_OFFLINE")


class _Worker:
    """One actor."""

    def __init__(self, work: PartWork) -> None:
        self._work = work

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for number in batch["part"]:
            self._work(int(number))
        return batch


@contextlib.contextmanager
def ray_engine(workers: int) -> Iterator[Engine]:
    """An engine of so many actors. Raises MissingExtraError without ray[data]."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray[data]", "ray") from error
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    ray.init(
        runtime_env={"env_vars": environment},
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        ignore_reinit_error=True,
    )
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def run(work: PartWork, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        actors = min(workers, len(numbers))
        uses_gpu = step_module(work.name).SCOPE.gpu and resources.get("GPU")
        parts = ray.data.from_items([{"part": number} for number in numbers], override_num_blocks=len(numbers))
        done = parts.map_batches(
            _Worker,
            batch_size=1,
            fn_constructor_args=(work,),
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=min(1.0, resources.get("CPU", 1.0) / (actors + 1)),
            num_gpus=min(1.0, resources["GPU"] / actors) if uses_gpu else None,
        )
        try:
            for _ in done.iter_batches(batch_size=None):
                pass
        except ray.exceptions.RayError as error:
            raise _cause(error) from error

    # Ray prints on standard output that a worker died, at the latest when it ends: amid a command's JSON.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield run
        finally:
            ray.shutdown()


def _cause(error: BaseException) -> BaseException:
    """What a step said, where it was one line for people; else what Ray says."""
    one: BaseException | None = error
    while one is not None:
        cause = getattr(one, "cause", None) or one.__cause__
        if isinstance(cause, RmkitError):
            return cause
        one = cause if isinstance(cause, BaseException) and cause is not one else None
    return error
