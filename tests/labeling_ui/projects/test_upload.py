"""A lead's file: bounded, looked at before anything is stored, stored under its own name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

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


BIG = b'{"text": "' + b"a" * (3 << 20) + b'"}\n'


def _archive(kind: str) -> bytes:
    """Three megabytes of one letter, packed into a few kilobytes."""
    target = io.BytesIO()
    table = pa.table({"text": ["a" * (64 << 10)] * 48})
    match kind:
        case "gz" | "bz2" | "xz":
            return {"gz": gzip, "bz2": bz2, "xz": lzma}[kind].compress(BIG)
        case "zst" | "lz4":
            return bytes(pa.compress(BIG, {"zst": "zstd", "lz4": "lz4"}[kind], asbytes=True))
        case "zip" | "xlsx":
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("xl/workbook.xml" if kind == "xlsx" else "rows.jsonl", BIG)
        case "tar.gz":
            with tarfile.open(fileobj=target, mode="w:gz") as archive:
                entry = tarfile.TarInfo("rows.jsonl")
                entry.size = len(BIG)
                archive.addfile(entry, io.BytesIO(BIG))
        case "parquet":
            pq.write_table(table, target)  # type: ignore[no-untyped-call]
        case "feather":
            feather.write_feather(table, target, compression="zstd")
    return target.getvalue()


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst", "lz4", "zip", "xlsx", "tar.gz", "parquet", "feather"])
def test_a_small_file_that_is_large_once_unpacked_is_not_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    content = _archive(kind)
    assert len(content) < 100_000
    monkeypatch.setattr(upload, "MAX_UNPACKED_MB", 1)
    with pytest.raises(DataError) as refused:
        keep_upload(LEA, f"rows.{kind}", content)
    assert str(refused.value) == f"rows.{kind} unpacks to more than 1 MB; read it with: rmkit ingest"
    assert not [path for path in (home / "uploads").rglob("*") if path.is_file()]
    monkeypatch.setattr(upload, "MAX_UNPACKED_MB", 16)
    assert keep_upload(LEA, f"rows.{kind}", content).is_file()
