"""Answers of a server that were paid for: logged before they are used, and kept by the content of their request.

    <log>                         one line when a request goes out, one with the answer when it has come back
    <cache>/<2 digits>/<key>.json  the answer to one request, for this run and all others

A run that is killed finds its answers in the log. A request that went out and has no answer there may have been paid
for; it is made again, and counted.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mmalign.errors import DataError, RowError
from mmalign.generate.chat_requests import key_of


class Answering(Protocol):
    """Answers chat-completions requests: `endpoint.Endpoint`, `Replay`, or `PaidAnswers` over one of them."""

    url: str

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request."""
        ...


class Log:
    """A write-ahead log of requests and answers; safe to share among threads.

    Args:
        path: appended to; what an earlier run wrote is read first, except a last line without its end.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.answers: dict[str, dict[str, Any]] = {}
        self._out: set[str] = set()
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for line in whole_lines(self.path):
            self._note(json.loads(line))
        self._file = self.path.open("ab")

    @property
    def in_doubt(self) -> int:
        """Number of requests that went out and have no answer."""
        return len(self._out)

    def sent(self, key: str) -> None:
        """Log that a request is going out."""
        self._append({"sent": key})

    def received(self, key: str, answer: dict[str, Any]) -> None:
        """Log the answer to a request; it is on the disk when this returns."""
        self._append({"received": key, "answer": answer})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            try:
                self._file.write(line)
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise DataError(f"cannot write {self.path}: {error.strerror or error}; free some space") from error
            self._note(entry)

    def _note(self, entry: dict[str, Any]) -> None:
        if "sent" in entry:
            self._out.add(entry["sent"])
        else:
            self._out.discard(entry["received"])
            self.answers[entry["received"]] = entry["answer"]


class Kept:
    """A directory with one file per answer, named by its request."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer to a request, None when it is not kept."""
        try:
            answer = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer; the file appears whole."""
        path = self._path(key)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(answer), encoding="utf-8")
            os.replace(unfinished, path)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}; free some space") from error

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.json"


class PaidAnswers:
    """Asks a server only what is neither in the log nor kept.

    Args:
        server: asked for the rest.
        log: of this run; None keeps none.
        kept: answers of all runs; None keeps none.
    """

    def __init__(self, server: Answering, *, log: Log | None = None, kept: Kept | None = None) -> None:
        self._server, self._log, self._kept = server, log, kept
        self.url, self.asked = server.url, 0

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request; see `Endpoint.complete`."""
        key = key_of(self.url, body)
        known = self._log.answers.get(key) if self._log else None
        known = known or (self._kept.get(key) if self._kept else None)
        if known is not None:
            return known
        if self._log:
            self._log.sent(key)
        answer = self._server.complete(body)
        self.asked += 1
        if self._log:
            self._log.received(key, answer)
        if self._kept:
            self._kept.put(key, answer)
        return answer


class Replay:
    """Answers from what was kept, and never from a server: for tests, and for runs without a network.

    Args:
        kept: answers of earlier runs.
        url: the address that they were asked of.
    """

    def __init__(self, kept: Kept, url: str) -> None:
        self._kept, self.url = kept, url

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the kept answer to a request.

        Raises:
            RowError: there is none.
        """
        answer = self._kept.get(key_of(self.url, body))
        if answer is None:
            hint = f"looked in {self._kept.directory}; record it with the server first"
            raise RowError("no answer to this request is kept", field="server", value=self.url, hint=hint)
        return answer


def whole_lines(path: Path) -> list[str]:
    """Return the lines of a log, and take a last one off that a killed run left without its end."""
    if not path.is_file():
        return []
    with path.open("r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        file.truncate(end)
    return content[:end].decode("utf-8", "replace").splitlines()
