"""One chat-completions address over HTTP: patient with a server that is busy, short with one that says no.

Nothing is sent anywhere but to the address that the user names: redirects are not followed, since they would carry the
key along.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmalign.errors import ConfigError, ModelError, RowError
from mmalign.generate.chat_requests import encoded

NO_ANSWER = "server gave no answer"
"""Reason of rows that a later run asks again."""

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_NOT_THE_ROWS_FAULT = frozenset({301, 302, 303, 307, 308, 401, 402, 403, 404, 405})
_LARGEST_ANSWER_BYTES = 64 * 2**20
_CHUNK_BYTES = 1 << 16
_LONGEST_QUOTE = 300


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often and when a request is made again.

    Args:
        attempts: in all, the first included.
        first_wait_s: before the second; doubled each time, and multiplied by a random number between 0.5 and 1.5.
        longest_wait_s: bound on a wait, also on one that the server asks for (Retry-After).
    """

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0

    def wait_s(self, failures: int, asked_s: float | None, chance: float) -> float:
        """Return how long to wait after so many failures (1 or more); the server's wish is a lower bound."""
        own = self.first_wait_s * 2 ** (failures - 1) * (0.5 + chance)
        return min(max(own, asked_s or 0.0), self.longest_wait_s)


class _BusyError(Exception):
    """The request may succeed later; `retry_after_s` is the server's wish."""

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Endpoint:
    """The address of a server; call it with a request, from any number of threads.

    Args:
        url: up to and without `/chat/completions`, e.g. "http://localhost:8000/v1".
        key_name: environment variable that holds the key, None for a server that wants none.
        timeout_s: for a whole answer.
        retries: when it fails.
        sleep: waits so many seconds.

    Raises:
        ConfigError: the address is none, or the variable is not set.
    """

    def __init__(
        self,
        url: str,
        *,
        key_name: str | None = None,
        timeout_s: float = 300.0,
        retries: Retries | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ConfigError(
                f"server.url {_without_user(parts)!r} is no address of a server; write http(s)://host[:port]/v1, "
                "and name the key by server.api_key_env"
            )
        self.url, self._timeout_s, self._sleep = url.rstrip("/"), timeout_s, sleep
        self._retries = retries or Retries()
        self._key = _key(key_name)
        self._opener = urllib.request.build_opener(_NoRedirects)

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the server's answer to a request.

        Raises:
            RowError: the server refuses this request, or gave no answer however often it was asked.
            ModelError: the server refuses all requests (wrong key, wrong address, unknown model).
        """
        for attempt in range(1, self._retries.attempts + 1):
            try:
                return self._once(encoded(body))
            except _BusyError as trouble:
                last = trouble
                if attempt < self._retries.attempts:
                    self._sleep(self._retries.wait_s(attempt, trouble.retry_after_s, random.random()))
        hint = f"{last}, {self._retries.attempts} times; --resume asks again"
        raise RowError(NO_ANSWER, field="server", value=self.url, hint=hint)

    def _once(self, content: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": "mmalign"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        request = urllib.request.Request(f"{self.url}/chat/completions", data=content, headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return _object(self._read(answer))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            reason = getattr(error, "reason", None) or error
            raise _BusyError(self._without_key(f"{type(error).__name__}: {reason}")) from None

    def _read(self, answer: Any) -> bytes:
        deadline, content = time.monotonic() + self._timeout_s, bytearray()
        while chunk := answer.read1(_CHUNK_BYTES):
            content += chunk
            if time.monotonic() > deadline:
                raise _BusyError(f"its answer took more than {self._timeout_s:g} s")
            if len(content) > _LARGEST_ANSWER_BYTES:
                raise _BusyError(f"its answer has more than {_LARGEST_ANSWER_BYTES:,} bytes")
        return bytes(content)

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """Return what an HTTP status means: later, never for this row, or never."""
        with error:
            said = self._without_key(error.read(_CHUNK_BYTES).decode("utf-8", "replace"))[:_LONGEST_QUOTE]
        if error.code in _BUSY:
            return _BusyError(f"HTTP {error.code}", _seconds(error.headers.get("Retry-After")))
        if error.code in _NOT_THE_ROWS_FAULT:
            return ModelError(
                f"server {self.url} answers every request with HTTP {error.code}: {said!r}; "
                "check server.url, server.model and the key in server.api_key_env"
            )
        return RowError("server refuses the request", field="server", value=error.code, hint=said)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for the answer that it is."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _object(content: bytes) -> dict[str, Any]:
    """Return the JSON object that a server sent; a cut one is worth another try."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _BusyError(f"its answer is no JSON ({error})") from None
    if not isinstance(answer, dict):
        raise _BusyError("its answer is no JSON object")
    return answer


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"server.api_key_env names the environment variable {name}, which is not set; export it")
    return key


def _seconds(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, which gives a number or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _without_user(parts: urllib.parse.SplitResult) -> str:
    """Return an address for a message: what stands before an @ may be a password."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
