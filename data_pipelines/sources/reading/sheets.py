"""Rows of an .xlsx workbook, read with the standard library: values as they were last computed, never formulas."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any
from xml.etree import ElementTree as ET

from rmkit.errors import DataError

MAX_XML_BYTES = 1 << 30
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_REL = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_CELL = re.compile(r"([A-Z]+)(\d+)")


def sheet_rows(stream: IO[bytes], where: str, *, sheet: str | None) -> Iterator[tuple[int, list[Any]]]:
    """(row number, cells) of a sheet: the one named, or the only one with rows. A cell is a text, a number, a truth
    value or None. Raises DataError for a workbook without readable sheets and for formulas whose values are not stored.
    """
    try:
        archive = zipfile.ZipFile(stream)
        sheets = _sheets(archive, where)
        if sheet is not None:
            if sheet not in sheets:
                raise DataError(f"{where} has no sheet {sheet!r}; it has: {', '.join(sheets)}")
            place = sheets[sheet]
        else:
            filled = [
                name for name, path in sheets.items() if next(iter(_rows(archive, path, where, [])), None) is not None
            ]
            if len(filled) > 1:
                raise DataError(f"{where} has several sheets with rows: {', '.join(filled)}; name one with --sheet")
            place = sheets[filled[0]] if filled else next(iter(sheets.values()))
        yield from _rows(archive, place, where, _shared(archive, where))
    except (zipfile.BadZipFile, KeyError, ET.ParseError, ValueError, NotImplementedError) as error:
        raise DataError(f"{where} is a spreadsheet that cannot be read: {error}") from error


def _parse(archive: zipfile.ZipFile, name: str, where: str) -> Iterator[tuple[str, Any]]:
    if archive.getinfo(name).file_size > MAX_XML_BYTES:
        raise DataError(f"{where}: {name} is over the limit of {MAX_XML_BYTES >> 30} GB unpacked")
    with archive.open(name) as part:
        yield from ET.iterparse(part, events=("end",))


def _sheets(archive: zipfile.ZipFile, where: str) -> dict[str, str]:
    """Names of the sheets and where they lie."""
    names = set(archive.namelist())
    if "xl/_rels/workbook.xml.rels" not in names:
        raise DataError(f"{where} is a spreadsheet without sheets")
    targets = {
        node.get("Id"): str(node.get("Target"))
        for _, node in _parse(archive, "xl/_rels/workbook.xml.rels", where)
        if node.tag.endswith("Relationship")
    }
    result = {}
    for _, node in _parse(archive, "xl/workbook.xml", where):
        if node.tag == f"{_MAIN}sheet" and node.get(_REL) in targets:
            target = targets[node.get(_REL)].lstrip("/")
            result[str(node.get("name"))] = target if target.startswith("xl/") else f"xl/{target}"
    if not result:
        raise DataError(f"{where} is a spreadsheet without sheets")
    return result


def _shared(archive: zipfile.ZipFile, where: str) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    texts = []
    for _, node in _parse(archive, "xl/sharedStrings.xml", where):
        if node.tag == f"{_MAIN}si":
            texts.append(_text(node))
            node.clear()
    return texts


def _text(node: ET.Element) -> str:
    return "".join(part.text or "" for part in node.iter(f"{_MAIN}t"))


def _rows(archive: zipfile.ZipFile, name: str, where: str, shared: list[str]) -> Iterator[tuple[int, list[Any]]]:
    number = 0
    for _, node in _parse(archive, name, where):
        if node.tag != f"{_MAIN}row":
            continue
        number = int(node.get("r") or number + 1)
        cells: dict[int, Any] = {}
        for place, cell in enumerate(node.iter(f"{_MAIN}c")):
            match = _CELL.fullmatch(cell.get("r") or "")
            cells[_column(match[1]) if match else place] = _value(cell, shared, where)
        if any(value is not None for value in cells.values()):
            yield number, [cells.get(at) for at in range(max(cells) + 1)]
        node.clear()


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _value(cell: ET.Element, shared: list[str], where: str) -> Any:
    kind, node = cell.get("t"), cell.find(f"{_MAIN}v")
    if kind == "inlineStr":
        return _text(cell) or None
    if node is None or node.text is None:
        if cell.find(f"{_MAIN}f") is not None:
            raise DataError(
                f"{where}: cell {cell.get('r')} is a formula without a stored value; save values from the program"
            )
        return None
    if kind == "s":
        at = int(node.text)
        return shared[at] if at < len(shared) else ""
    if kind == "b":
        return node.text == "1"
    if kind in ("str", "d"):
        return node.text
    if kind == "e":
        raise DataError(f"{where}: cell {cell.get('r')} holds the error {node.text}")
    number = float(node.text)
    return int(number) if number.is_integer() else number
