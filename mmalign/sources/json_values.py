"""JSON files that are one value: an array of rows, or an object that holds one. Parsed row by row, never as a whole."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from mmalign.errors import DataError

ROW_LISTS = ("data", "rows", "train", "examples", "instances")
LARGEST_ROW_CHARACTERS = 256 * 1024**2
_CHUNK_BYTES = 1 << 16
_WHITESPACE = " \t\r\n"
_LONGEST_LITERAL = 12  # "-Infinity", or a \uXXXX pair, may be cut anywhere by the end of a chunk


class JsonValues:
    """The rows of one JSON file, with the line and column of whatever is wrong in it.

    Holds the text of one row (and one chunk) at a time. An object at the top is searched for one list under a name of
    `ROW_LISTS`; without such a list the object itself is the only row.

    Args:
        file: opened for reading bytes, at its start (after a byte-order mark).
        name: what messages call the file.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._decoder = json.JSONDecoder()
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._ended = "", 0, False
        self._line, self._column = 1, 1  # of the first character of self._text

    def rows(self) -> Iterator[Any]:
        """Yield the rows, whatever they are.

        Raises:
            DataError: the text is not UTF-8 or not JSON, or nothing says which list holds the rows.
        """
        start = self._peek()
        if start == "[":
            yield from self._elements()
        elif start == "{":
            yield from self._members()
        else:
            raise self._error("a file of rows must begin with '[' or '{'", self._at)
        if self._peek():
            raise self._error("there is more text after the end of the value", self._at)

    def _elements(self) -> Iterator[Any]:
        self._expect("[")
        if self._peek() == "]":
            self._expect("]")
            return
        while True:
            self._forget()
            yield self._value()
            if self._peek() != ",":
                break
            self._expect(",")
        self._expect("]")

    def _members(self) -> Iterator[Any]:
        """Stream the one list of rows among the members of an object; the rest is about the file, not rows."""
        members: dict[str, Any] = {}
        found = None
        self._expect("{")
        while self._peek() != "}":
            if members or found:
                self._expect(",")
            key = self._value() if self._peek() == '"' else None
            if key is None:
                raise self._error("a member's name must stand in double quotes", self._at)
            self._expect(":")
            if key in ROW_LISTS and self._peek() == "[":
                if found:
                    raise self._error(f"two lists of rows, {found!r} and {key!r}; keep one of them", self._at)
                found = key
                yield from self._elements()
            else:
                members[key] = self._value()
        self._expect("}")
        if not found:
            yield members

    def _value(self) -> Any:
        """Parse the value that starts here, reading on until it is whole."""
        self._peek()
        wanted = _CHUNK_BYTES
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = "Unterminated string" in error.msg or error.pos >= len(self._text) - _LONGEST_LITERAL
                if self._ended or not cut:
                    raise self._error(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self._error(f"value cannot be read: {error}", self._at) from error
            else:
                if end < len(self._text) or self._ended:
                    self._at = end
                    return value
            if len(self._text) - self._at > LARGEST_ROW_CHARACTERS:
                raise self._error(f"one value is longer than {LARGEST_ROW_CHARACTERS} characters", self._at)
            self._read(wanted)
            wanted *= 2  # a long row is parsed a few times, not once a chunk

    def _peek(self) -> str:
        """Return the next character that is not white space without taking it, "" at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _WHITESPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._forget()
            self._read(_CHUNK_BYTES)

    def _expect(self, character: str) -> None:
        found = self._peek()
        if found != character:
            what = f"found {found!r}" if found else "the file ends"
            raise self._error(f"expected {character!r}, {what}", self._at)
        self._at += 1

    def _read(self, size: int) -> None:
        data = self._file.read(size)
        try:
            self._text += self._utf8.decode(data, final=not data)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode("utf-8")  # up to the place that the message names
            hint = "save it as UTF-8 (iconv -f LATIN1 -t UTF-8)"
            raise self._error(f"the text is not UTF-8 ({error.reason}); {hint}", len(self._text)) from error
        self._ended = not data

    def _forget(self) -> None:
        """Drop what has been read, keeping count of lines and columns."""
        self._line, self._column = self._position(self._at)
        self._text, self._at = self._text[self._at :], 0

    def _position(self, at: int) -> tuple[int, int]:
        newlines = self._text.count("\n", 0, at)
        if not newlines:
            return self._line, self._column + at
        return self._line + newlines, at - self._text.rfind("\n", 0, at)

    def _error(self, what: str, at: int) -> DataError:
        line, column = self._position(at)
        return DataError(f"{self._name} is not valid JSON: {what} at line {line}, column {column}")
