"""docs/python.md and the tutorials do what they say: their blocks run in order, in one folder, as a reader would.

```python                     runs
```python title="FILE"        is written to FILE (so are csv, toml and json blocks)
```sh                         lines that begin with rmkit run, the others must be comments
anything else                 is only shown
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from rmkit.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "python.md", *sorted((DOCS / "tutorials").glob("*.md"))]
BLOCK = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("fastapi", "datasets", "pandas"):
        pytest.importorskip(package)
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RMKIT_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = page.read_text()
    modules = set(sys.modules)
    names: dict[str, object] = {"__name__": page.stem}
    try:
        for block in BLOCK.finditer(text):
            line = text[: block.start("code")].count("\n")
            if title := block["title"]:
                (tmp_path / title).write_text(block["code"])
            elif block["language"] == "python":
                code = compile("\n" * line + block["code"], str(page), "exec")  # a traceback shows the page's lines
                exec(code, names)
            elif block["language"] == "sh":
                for command in filter(None, block["code"].replace("\\\n", " ").splitlines()):
                    words = shlex.split(command, comments=True)
                    assert words[:1] in ([], ["rmkit"]), f"{page}:{line}: only rmkit's own commands can be run"
                    assert not words or main(words[1:]) == 0, f"{page}:{line}: {command}"
    finally:
        for name in set(sys.modules) - modules:
            if (tmp_path / f"{name}.py").exists():
                del sys.modules[name]
