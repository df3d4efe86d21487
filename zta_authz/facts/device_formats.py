"""The formats of inventory files: each gives its records one after the other. Pure, and bounded in size and cost.

A record is a dict. In its place, text says what is wrong with a record that is malformed. An object that names a key
twice, and a number that JSON does not have (`NaN`), are unknown values: readers disagree about them.
Sources: RFC 8259, Fleet's REST API (`GET /api/v1/fleet/hosts`), osquery's "Logging" page.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from typing import TYPE_CHECKING, Any, Final

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.model.device_documents import InventoryFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_LINE: Final = 1024 * 1024
"""The maximum size of a record: bytes of a line, characters of an element of a list."""
REMOVED: Final = "removed"
_WINDOW: Final = 4 * MAX_LINE
_BLANK: Final = " \t\r\n"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_DUPLICATE: Final = object()
_NOT_AN_OBJECT: Final = "a record is not an object"
_TWICE: Final = "a record names a key twice"


def _object(pairs: list[tuple[str, Any]]) -> Any:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _DUPLICATE


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=lambda _: None)


def _record(value: Any) -> dict[str, Any] | str:
    return value if isinstance(value, dict) else _TWICE if value is _DUPLICATE else _NOT_AN_OBJECT


def _json_lines(_: str, content: bytes) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(io.BytesIO(content.removeprefix(_BYTE_ORDER_MARK)), 1):
        if line.isspace():
            continue
        if len(line) > MAX_LINE:
            yield number, f"the line has more than {MAX_LINE} bytes"
            continue
        try:
            yield number, _record(_DECODER.decode(line.decode()))
        except (ValueError, RecursionError):
            yield number, "the line is not JSON"


def _osquery(path: str, content: bytes) -> Iterator[tuple[int, Any]]:
    """Each row of each result as a record with `columns`. `action` is `removed` for a row that no longer holds."""
    for number, record in _json_lines(path, content):
        differences = record.get("diffResults") if isinstance(record, dict) else None
        if isinstance(record, dict) and "snapshot" in record:
            rows = record.pop("snapshot")
            yield from _rows(number, record, rows, "snapshot")
        elif isinstance(differences, dict):
            del record["diffResults"]
            yield from _rows(number, record, differences.get("added") or [], "added")
            yield from _rows(number, record, differences.get(REMOVED) or [], REMOVED)
        else:
            yield number, record


def _rows(number: int, record: dict[str, Any], rows: Any, action: str) -> Iterator[tuple[int, Any]]:
    for row in rows if isinstance(rows, list) else [rows]:
        good = isinstance(row, dict)
        yield number, {**record, "columns": row, "action": action} if good else "a row of a result is not an object"


class _Document:
    """Reads a JSON document piece by piece: a list of 200,000 objects is never in memory as a whole."""

    def __init__(self, path: str, content: bytes, expected: str) -> None:
        self._path = path
        self._content = memoryview(content.removeprefix(_BYTE_ORDER_MARK))
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._expected = expected
        self._text = ""
        self._at = 0
        self.line = 1

    def refused(self, message: str = "") -> SettingsErrors:
        """The error for a document of another shape, at the present line."""
        hint = "correct `source.format`, or export it again"
        return SettingsErrors([Fault(self._path, self.line, 0, message or f"is not {self._expected}", hint)])

    def next(self, accepted: str) -> str:
        """The next character that is not blank, which must be one of `accepted`."""
        members = self._peek()
        if not members or members not in accepted:
            raise self.refused("" if members else "ends too early: it is cut, or not JSON")
        self._at += 1
        return members

    def starts(self, character: str) -> bool:
        """Whether the next character that is not blank is `character`. It is not consumed."""
        return self._peek() == character

    def _peek(self) -> str:
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """The next value. One that is longer than the limit, or too deep, refuses the document."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise self.refused("is nested too deeply") from None
            except ValueError:
                if len(self._text) - self._at > MAX_LINE or not self._more():
                    raise self.refused("is not JSON, is cut, or has a record of more than a MiB") from None
                continue
            if end == len(self._text) and self._more():
                continue  # a number may go on
            self.line += self._text.count("\n", self._at, end)
            self._at = end
            return value

    def end(self) -> None:
        """Refuse anything but blanks."""
        if self._peek():
            raise self.refused("goes on after its end")

    def _more(self) -> bool:
        if not self._content:
            return False
        piece, self._content = self._content[:_WINDOW], self._content[_WINDOW:]
        try:
            decoded = self._decoder.decode(piece, final=not self._content)
        except UnicodeDecodeError:
            raise self.refused("is not UTF-8") from None
        self._text = self._text[self._at :] + decoded
        self._at = 0
        return True


def _json_array(path: str, content: bytes) -> Iterator[tuple[int, Any]]:
    document = _Document(path, content, "a list of objects")
    yield from _elements(document)
    document.end()


def _elements(document: _Document) -> Iterator[tuple[int, Any]]:
    document.next("[")
    more = not document.starts("]")
    if not more:
        document.next("]")
    while more:
        value = document.value()
        yield document.line, _record(value)
        more = document.next(",]") == ","


def _fleet(path: str, content: bytes) -> Iterator[tuple[int, Any]]:
    """The hosts of Fleet's list. Other members of the object, such as `software`, are skipped."""
    document = _Document(path, content, "an object with the list `hosts`")
    document.next("{")
    seen = False
    while True:
        if not document.starts('"'):
            raise document.refused()
        name = document.value()
        document.next(":")
        if name == "hosts":
            if seen or not document.starts("["):
                raise document.refused()
            seen = True
            yield from _elements(document)
        else:
            document.value()
        if document.next(",}") == "}":
            break
    if not seen:
        raise document.refused()
    document.end()


def _csv(path: str, content: bytes) -> Iterator[tuple[int, Any]]:
    rows = csv.reader(_csv_lines(path, content), strict=True)
    try:
        header = next(rows, [])
        if len(set(header)) != len(header) or not header:
            raise SettingsErrors([Fault(path, 1, 1, "the header row is empty or names a column twice", "correct it")])
        for row in rows:
            if row:
                same = len(row) == len(header)
                record = dict(zip(header, row, strict=True)) if same else "the row has another number of columns"
                yield rows.line_num, record
    except csv.Error as error:
        fault = Fault(path, rows.line_num, 1, f"is not CSV: {error}"[:200], "export it again")
        raise SettingsErrors([fault]) from error


def _csv_lines(path: str, content: bytes) -> Iterator[str]:
    for number, line in enumerate(io.BytesIO(content.removeprefix(_BYTE_ORDER_MARK)), 1):
        if len(line) > MAX_LINE:
            message = f"is not CSV: the line has more than {MAX_LINE} bytes"
            raise SettingsErrors([Fault(path, number, 1, message, "export it again")])
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise SettingsErrors([Fault(path, number, 1, "is not UTF-8", "export it as UTF-8")]) from error


READERS: Final[dict[InventoryFormat, Callable[[str, bytes], Iterator[tuple[int, Any]]]]] = {
    InventoryFormat.JSONL: _json_lines,
    InventoryFormat.OSQUERY: _osquery,
    InventoryFormat.JSON: _json_array,
    InventoryFormat.FLEET: _fleet,
    InventoryFormat.CSV: _csv,
}
"""Each gives (line, record), or (line, what is wrong with the record). They raise `SettingsErrors` for a whole file."""
