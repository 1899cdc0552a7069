"""Archives, workbooks, folders, globs and pipes: what they hold, and what is refused in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather

from data_pipelines.sources.reading import containers
from rmkit.errors import DataError, UsageError
from tests.data_pipelines.sources.readings import read, text

PAIRS = [{"prompt": f"Bird {n}?", "chosen": f"Ostrich {n}.", "rejected": f"Swallow {n}."} for n in range(4)]
VOTES = [{"prompt": f"Bird {n}?", "response_a": "Yes.", "response_b": "No.", "preference": "a"} for n in range(3)]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def chosen(path: Path | list[str], **options: Any) -> list[str]:
    return [text(unit["responses"][0]) for unit in read(path, **options).units]


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def zipped(path: Path, files: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "x.jsonl.bz2": lambda path: put(path, bz2.compress(jsonl(PAIRS))),
    "x.jsonl.xz": lambda path: put(path, lzma.compress(jsonl(PAIRS))),
    "x.jsonl.gz": lambda path: put(path, gzip.compress(jsonl(PAIRS))),
    "x.jsonl.zst": lambda path: put(path, bytes(pa.compress(jsonl(PAIRS), codec="zstd", asbytes=True))),
    "deflated.zip": lambda path: zipped(path, {"a/x.jsonl": jsonl(PAIRS)}, compression=zipfile.ZIP_DEFLATED),
    "stored.zip": lambda path: zipped(path, {"x.jsonl": jsonl(PAIRS), "README.md": b"# x", "__MACOSX/x": b"?"}),
    "gz-inside.zip": lambda path: zipped(path, {"x.jsonl.gz": gzip.compress(jsonl(PAIRS))}),
    "x.tar": lambda path: tarred(path, {"./x.jsonl": jsonl(PAIRS), "LICENSE": b"MIT"}),
    "x.tgz": lambda path: tarred(path, {"x.jsonl": jsonl(PAIRS)}, "w:gz"),
    "x.tar.xz": lambda path: tarred(path, {"x.jsonl": jsonl(PAIRS)}, "w:xz"),
    "named-wrongly.csv": lambda path: put(path, gzip.compress(jsonl(PAIRS))),
    "no-extension": lambda path: put(
        path, b"prompt\tchosen\trejected\n" + b"".join("\t".join(row.values()).encode() + b"\n" for row in PAIRS)
    ),
    "x.csv": lambda path: put(
        path,
        b"\xef\xbb\xbfsep=|\nprompt|chosen|rejected\n"
        + b"".join("|".join(row.values()).encode() + b"\n" for row in PAIRS),
    ),
    "viewer.json": lambda path: put(
        path, json.dumps({"rows": [{"row_idx": n, "row": r} for n, r in enumerate(PAIRS)]}).encode()
    ),
    "split.json": lambda path: put(
        path,
        json.dumps(
            {"columns": list(PAIRS[0]), "index": [0, 1, 2, 3], "data": [list(r.values()) for r in PAIRS]}
        ).encode(),
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_container_gives_its_rows(tmp_path: Path, name: str) -> None:
    assert chosen(WRITERS[name](tmp_path / name)) == [f"Ostrich {n}." for n in range(4)]


def test_arrow_files_and_streams(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(PAIRS)
    feather.write_feather(table, tmp_path / "x.feather")
    with pa.ipc.new_stream(tmp_path / "x.arrows", table.schema) as stream:
        stream.write_table(table)
    assert chosen(tmp_path / "x.feather") == chosen(tmp_path / "x.arrows") == [f"Ostrich {n}." for n in range(4)]


def workbook(path: Path, cells: str, sheets: str = '<sheet name="Votes" sheetId="1" r:id="r1"/>') -> Path:
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    office = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
    return zipped(
        path,
        {
            "[Content_Types].xml": b"<Types/>",
            "xl/workbook.xml": f"<workbook {main} {office}><sheets>{sheets}</sheets></workbook>".encode(),
            "xl/_rels/workbook.xml.rels": b'<R><Relationship Id="r1" Target="worksheets/sheet1.xml"/></R>',
            "xl/sharedStrings.xml": (
                f"<sst {main}><si><t>prompt</t></si><si><r><t>Bird</t></r><r><t> 0?</t></r></si></sst>".encode()
            ),
            "xl/worksheets/sheet1.xml": f"<worksheet {main}><sheetData>{cells}</sheetData></worksheet>".encode(),
        },
    )


def inline(place: str, value: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'


HEADER = f'<row r="1"><c r="A1" t="s"><v>0</v></c>{inline("B1", "chosen")}{inline("C1", "rejected")}</row>'


def test_a_workbook_has_shared_inline_and_computed_values(tmp_path: Path) -> None:
    row = f'<row r="2"><c r="A2" t="s"><v>1</v></c><c r="B2"><f>3+4</f><v>7</v></c>{inline("C2", "8")}</row>'
    (unit,) = read(workbook(tmp_path / "x.xlsx", HEADER + row)).units
    assert [text(answer) for answer in unit["responses"]] == ["7", "8"]
    assert json.loads(unit["prompt"])[0]["content"] == "Bird 0?"


@pytest.mark.parametrize(
    ("cells", "options", "reason"),
    [
        (HEADER + '<row r="2"><c r="A2"><f>1+1</f></c></row>', {}, "cell A2 is a formula without a stored value"),
        (HEADER + '<row r="2"><c r="A2" t="e"><v>#REF!</v></c></row>', {}, "cell A2 holds the error #REF!"),
        (HEADER, {"sheet": "Other"}, "has no sheet 'Other'; it has: Votes"),
    ],
)
def test_a_sheet_that_does_not_say_its_values(tmp_path: Path, cells: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(workbook(tmp_path / "x.xlsx", cells), **options)


def encrypted(path: Path) -> Path:
    zipped(path, {"x.jsonl": jsonl(PAIRS)})
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + at] |= 1
    return put(path, bytes(raw))


def understated(path: Path) -> Path:
    """A zip whose member is larger than it declares."""
    zipped(path, {"x.jsonl": jsonl(PAIRS * 2000)}, compression=zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        raw[raw.index(mark) + at : raw.index(mark) + at + 4] = (100).to_bytes(4, "little")
    return put(path, bytes(raw))


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "x.7z": (lambda path: put(path, b"7z\xbc\xaf\x27\x1c" + b"0" * 50), "a 7z archive; unpack it first"),
    "x.rar": (lambda path: put(path, b"Rar!\x1a\x07\x00" + b"0" * 50), "a RAR archive"),
    "x.pkl": (lambda path: put(path, b"\x80\x04\x95" + b"0" * 50), "a pickle, which runs code"),
    "x.pt": (lambda path: zipped(path, {"archive/data.pkl": b"x"}), "a PyTorch file, which runs code"),
    "x.jsonl": (lambda path: put(path, b"version https://git-lfs.github.com/spec/v1\noid 1\n"), "a pointer of Git LFS"),
    "x.db": (lambda path: put(path, b"SQLite format 3\x00" + b"0" * 50), "an SQLite database"),
    "two.zip": (
        lambda path: zipped(path, {"a.jsonl": jsonl(PAIRS), "b.jsonl": jsonl(VOTES)}),
        r"2 forms \(trl: .*a.jsonl; generic: .*b.jsonl\).*--member",
    ),
    "locked.zip": (encrypted, "the member 'x.jsonl' is encrypted; unpack the archive first"),
    "empty.zip": (lambda path: zipped(path, {"README.md": b"x"}), "an archive without a file of rows"),
    "nested.zip": (
        lambda path: zipped(path, {"x.zip": zipped(path.with_name("i.zip"), {"a": b"b"}).read_bytes()}),
        "an archive itself",
    ),
    "torn.zip": (lambda path: put(path, zipped(path, {"x.jsonl": jsonl(PAIRS)}).read_bytes()[:60]), "cannot be opened"),
    "torn.tar": (
        lambda path: put(path, tarred(path, {"x.jsonl": jsonl(PAIRS * 99)}).read_bytes()[:2048]),
        "cannot be read",
    ),
    "understated.zip": (understated, "cut off or damaged|over the limit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    write, reason = REFUSED[name]
    path = write(tmp_path / name)
    with pytest.raises(DataError, match=reason) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_stopped_by_what_it_declares_and_by_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "FREE_BYTES", 1 << 16)
    row = jsonl([{"prompt": "a" * 1000, "chosen": "b" * 1000, "rejected": "c" * 1000}])
    with pytest.raises(DataError, match=r"declares .* over the limit; nothing was stored"):
        read(zipped(tmp_path / "x.zip", {"x.jsonl": row * 3000}, compression=zipfile.ZIP_BZIP2))
    with pytest.raises(DataError, match=r"came out of .* over the limit; nothing was stored"):
        read(put(tmp_path / "x.jsonl.bz2", bz2.compress(row * 3000)))
    monkeypatch.setattr(containers, "MAX_MEMBERS", 3)
    with pytest.raises(DataError, match="more than 3 members"):
        read(zipped(tmp_path / "many.zip", {f"{n}.jsonl": row for n in range(4)}))


def test_members_and_files_are_shards_of_one_load(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"train-0.jsonl": jsonl(PAIRS[:2]), "test-0.jsonl": b"\n\n" + jsonl(PAIRS[2:])})
    result = read(path)
    assert [(unit["line"], unit["split"]) for unit in result.units] == [
        (3, "test"),
        (4, "test"),
        (5, "train"),
        (6, "train"),
    ]
    assert chosen(path, member="train-0.jsonl") == ["Ostrich 0.", "Ostrich 1."]
    with pytest.raises(DataError, match=r"has no member 'x'; it has: test-0.jsonl, train-0.jsonl"):
        read(path, member="x")


def test_a_folder_is_read_whole_and_says_what_it_passes_over(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jsonl", jsonl(PAIRS[:2]))
    put(tmp_path / "in" / "deep" / "b.jsonl.gz", gzip.compress(jsonl(PAIRS[2:])))
    put(tmp_path / "in" / "README.md", b"x")
    put(tmp_path / "secret.jsonl", jsonl(PAIRS))
    (tmp_path / "in" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    result = read(tmp_path / "in")
    assert [text(unit["responses"][0]) for unit in result.units] == [f"Ostrich {n}." for n in range(4)]
    assert result.opened.notes == ["README.md: not a file of rows", "link.jsonl: a symbolic link, not followed"]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(DataError, match=r"without files of rows \(link.jsonl: a symbolic link, not followed\)"):
        read(tmp_path / "links")
    put(tmp_path / "in" / "c.jsonl", jsonl(VOTES))
    with pytest.raises(DataError, match=r"2 forms \(trl: .*a.jsonl, .*b.jsonl.gz; generic: .*c.jsonl\)"):
        read(tmp_path / "in")
    assert len(read(tmp_path / "in", union=True).units) == 7


def test_a_broken_shard_keeps_the_others_out_unless_told(tmp_path: Path) -> None:
    whole = gzip.compress(jsonl([{**row, "prompt": f"{row['prompt']} {n}"} for n in range(300) for row in PAIRS]))
    for name, data in (("s-0", jsonl(PAIRS[:1])), ("s-2", jsonl(PAIRS[3:]))):
        put(tmp_path / f"{name}.jsonl", data)
    put(tmp_path / "s-1.jsonl", whole[: len(whole) // 2])
    for broken in (whole[: len(whole) // 2], b"", b"\x1f\x8b\x08\x00nothing"):
        put(tmp_path / "s-1.jsonl", broken)
        with pytest.raises(DataError, match=r"s-1.jsonl.*nothing was stored \(--keep-going") as caught:
            read(tmp_path / "s-*.jsonl")
        assert str(caught.value).count("nothing was stored") == 1
        assert {"Ostrich 0.", "Ostrich 3."} <= set(chosen(tmp_path / "s-*.jsonl", keep_going=True))
    with pytest.raises(DataError, match="no file matches"):
        read(tmp_path / "t-*.jsonl")


def test_a_hundred_thousand_columns(tmp_path: Path) -> None:
    header = ",".join(f"c{n}" for n in range(100_000))
    path = put(tmp_path / "x.csv", f"{header}\n{','.join('1' * 100_000)}\n".encode())
    with pytest.raises(DataError, match="has 100,000 columns, over the limit of 10,000; is the separator right"):
        read(path)


def test_encodings_separators_and_headers_as_told(tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv", "prompt;chosen;rejected\nGrüne Frucht?;Limette;Kirsche\nB?;C;D\n".encode("cp1252"))
    result = read(path)
    assert result.stream.reasons == {"invalid UTF-8": 1}
    assert any(note.startswith("not UTF-8: it may be cp1252") for note in result.opened.notes)
    assert len(read(path, encoding="cp1252").units) == 2
    with pytest.raises(UsageError, match="Python knows no encoding 'klingon'"):
        read(path, encoding="klingon")
    with pytest.raises(UsageError, match="--delimiter takes one sign"):
        read(path, delimiter=";;")
    two = put(tmp_path / "two.csv", b"text,,\nprompt,chosen,rejected\nA?,B,C\n")
    with pytest.raises(DataError, match="--header-rows N joins several header rows"):
        read(two)
    assert chosen(
        two, header_rows=2, roles={"prompt": "text: prompt", "chosen": "text: chosen", "rejected": "text: rejected"}
    ) == ["B"]
    deep = put(tmp_path / "deep.json", json.dumps({"meta": {"n": 1}, "body": {"list": PAIRS}}).encode())
    assert len(read(deep, records="body.list").units) == 4
    with pytest.raises(UsageError, match=r"--records body.rows: no list of rows lies there"):
        read(deep, records="body.rows")
