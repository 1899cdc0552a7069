"""Which revision of the source tree runs: part of every record of what was done."""

from __future__ import annotations

import functools
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@functools.cache
def git_sha() -> str | None:
    """Revision of the source tree that runs, None for an installed package."""
    return _git("rev-parse", "HEAD")


def versions(*packages: str) -> dict[str, str]:
    """The version of rmkit with its revision, then those of the packages: what a results page says it was made with.

    Changes that are not committed are named, for then no revision gives the numbers again.
    """
    sha = git_sha()
    changed = sha and _git("status", "--porcelain", "--untracked-files=no", "--", ":!docs")
    code = "" if sha is None else f" (revision {sha[:12]}{' with local changes' if changed else ''})"
    return {"rmkit": version("rmkit") + code} | {name: _version(name) for name in packages}


def versions_text(*packages: str) -> str:
    """The same as a list in a sentence."""
    return ", ".join(f"{name} {number}" for name, number in versions(*packages).items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
