"""What results pages say they were made with, from a real repository of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rmkit import __version__, revision


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def versions_in(folder: Path) -> str:
    code = "from rmkit.revision import versions_text; print(versions_text('numpy', 'no-such-package'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_page_names_the_commit_and_whether_something_was_changed_since(tmp_path: Path) -> None:
    import numpy

    (tmp_path / "rmkit").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "rmkit" / "__init__.py").touch()
    (tmp_path / "docs" / "page.md").touch()
    (tmp_path / "rmkit" / "revision.py").write_text(Path(revision.__file__).read_text())
    others = f"numpy {numpy.__version__}, no-such-package absent"
    assert versions_in(tmp_path) == f"rmkit {__version__}, {others}"
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    sha = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert versions_in(tmp_path) == f"rmkit {__version__} (revision {sha}), {others}"
    (tmp_path / "docs" / "page.md").write_text("a page that is being written")
    assert versions_in(tmp_path) == f"rmkit {__version__} (revision {sha}), {others}"
    (tmp_path / "rmkit" / "__init__.py").write_text("changed = True")
    assert versions_in(tmp_path) == f"rmkit {__version__} (revision {sha} with local changes), {others}"
