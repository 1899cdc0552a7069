"""Runs: what was done, with which config, on which code and machine, from which versions to which."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import duckdb

from rmkit.revision import git_sha

PACKAGES = ("rmkit", "duckdb", "polars", "pyarrow", "scikit-learn", "torch", "transformers")


@contextlib.contextmanager
def recorded_run(
    connection: duckdb.DuckDBPyConnection, kind: str, name: str, config: Mapping[str, Any]
) -> Iterator[uuid.UUID]:
    """The id of a new run, done at the end, failed if an exception leaves the block.

    Inside an open transaction a failure rolls the run itself back with everything else; that is intended.
    """
    run_id = start_run(connection, kind, name, config)
    try:
        yield run_id
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            finish_run(connection, run_id, "failed")
        raise
    finish_run(connection, run_id, "done")


def start_run(connection: duckdb.DuckDBPyConnection, kind: str, name: str, config: Mapping[str, Any]) -> uuid.UUID:
    """Record a run as running and return its id."""
    run_id = uuid.uuid4()
    connection.execute(
        "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, 'running', now(), NULL)",
        [run_id, kind, name, run_config(config), git_sha(), json.dumps(environment())],
    )
    return run_id


def run_config(config: Mapping[str, Any]) -> str:
    """A run's config as the warehouse stores it."""
    return json.dumps(config, sort_keys=True, default=str)


def finish_run(connection: duckdb.DuckDBPyConnection, run_id: uuid.UUID, status: str) -> None:
    """Close a run as done or failed."""
    connection.execute("UPDATE run SET status = ?, finished_at = now() WHERE run_id = ?", [status, run_id])


@functools.cache
def environment() -> dict[str, str]:
    """Versions of what computes, and the kind of machine (no host or user names)."""
    versions = {"python": platform.python_version(), "machine": platform.machine(), "cpus": str(os.cpu_count())}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
