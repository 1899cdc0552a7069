"""A lead's file: bounded, looked at before anything is stored, stored under its own name."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.ingest.reading import Reading
from labeling_ui.projects import upload
from labeling_ui.projects.people import ForbiddenError
from labeling_ui.projects.upload import keep_upload, look, store_upload
from rmkit.errors import DataError, UsageError
from tests.labeling_ui.conftest import ANNA, LEA
from warehouse.store import open_warehouse

HEAD = "question,left,right,winner,annotator\n"


def _votes(winner: str, n: int = 24) -> bytes:
    rows = [f"question {at}?,yes {at},no {at},{winner},r{at % 3}" for at in range(n)]
    return (HEAD + "\n".join(rows) + "\n").encode()


def test_only_leads_upload_and_only_so_much(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ForbiddenError, match="may not upload data"):
        keep_upload(ANNA, "votes.csv", b"x")
    with pytest.raises(UsageError, match="is empty"):
        keep_upload(LEA, "votes.csv", b"")
    monkeypatch.setattr(upload, "MAX_MB", 1)
    with pytest.raises(UsageError, match="has 2 MB, over the limit of 1"):
        keep_upload(LEA, "votes.csv", bytes(2 << 20))
    path = keep_upload(LEA, "..\\..//etc/pass wd;.csv", b"a,b\n1,2\n")
    assert (path.name, path.parent.parent) == ("pass-wd-.csv", home / "uploads")
    assert keep_upload(LEA, "..\\..//etc/pass wd;.csv", b"a,b\n1,2\n") == path


def test_a_doubt_is_shown_and_must_be_put_up_with(home: Path) -> None:
    path = keep_upload(LEA, "votes.csv", _votes("A"))
    seen = look(path, Reading())
    assert (seen.problem, list(seen.doubts)) == (None, ["every verdict is a: is that the column of labels?"])
    assert seen.columns["left"] == "yes 0"
    assert not (home / "warehouse.duckdb").exists()
    with pytest.raises(DataError, match=r"votes\.csv: every verdict is a"):
        store_upload(LEA, path, Reading())
    report = store_upload(LEA, path, Reading(), dataset="mine", in_spite=True)
    assert report.version is not None
    assert report.version.ref == "mine@v1"
    with open_warehouse(read_only=True) as connection:
        assert connection.execute("SELECT path FROM source").fetchall() == [("votes.csv",)]


def test_what_the_lead_must_say_first_is_said_with_the_columns(home: Path) -> None:
    """Numbers are never guessed to be verdicts; said what they mean, the file is read."""
    path = keep_upload(LEA, "coded.csv", _votes("1").replace(b",1,r0", b",2,r0"))
    seen = look(path, Reading())
    assert seen.result is None
    assert "--values" in str(seen.problem)
    assert list(seen.columns) == ["question", "left", "right", "winner", "annotator"]
    seen = look(path, Reading(values="1=a,2=b"))
    assert seen.problem is None
    assert seen.result is not None
    assert dict(seen.result.labels) == {"a": 16, "b": 8}
    assert look(keep_upload(LEA, "x.pdf", b"%PDF-1.4"), Reading()).columns == {}
