"""The bytes of a medium: from a path below the data root, from the row itself, from a `data:` URI, or over http(s).

Everything here is about where the bytes are and whether they may be read; what they show is the business of the
modality. Each refusal is a `RowError` with one constant reason, so that quarantines can be counted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Where media may come from and how large they may be.

    Args:
        root: the data root; media paths are relative to it and may not leave it.
        max_file_bytes: longest encoded file that is read.
        allow_http: http(s) addresses are fetched; without it they are refused.
        http_timeout_s: longest time one download may take.
    """

    root: Path | str = "."
    max_file_bytes: int = 64 << 20
    allow_http: bool = False
    http_timeout_s: float = 20.0

    def __post_init__(self) -> None:
        if self.max_file_bytes <= 0 or self.http_timeout_s <= 0:
            raise ConfigError(
                f"media limits must be positive, got max_file_bytes={self.max_file_bytes}, "
                f"http_timeout_s={self.http_timeout_s}"
            )

    @cached_property
    def real_root(self) -> str:
        """The data root with every symbolic link followed."""
        return os.path.realpath(self.root)


def read_bytes(ref: MediaRef, limits: MediaLimits, *, field: str = "media") -> bytes:
    """Return the encoded file a reference stands for, checked against its sha256 when it carries one.

    Raises:
        RowError: the bytes cannot or may not be read; `reason` is constant per rule.
    """
    with opened(ref, limits, field=field) as file:
        content = file.read(limits.max_file_bytes + 1)
    _require_size(len(content), ref, limits, field)
    if ref.sha256 is not None and hashlib.sha256(content).hexdigest() != ref.sha256.lower():
        raise RowError(
            f"{ref.kind} does not match its sha256",
            field=field,
            value=shown(ref),
            hint="it changed since it was listed",
        )
    return content


def content_hash(ref: MediaRef, limits: MediaLimits, *, field: str = "media") -> str:
    """Return the hex sha256 of the encoded file."""
    return hashlib.sha256(read_bytes(ref, limits, field=field)).hexdigest()


@contextmanager
def opened(ref: MediaRef, limits: MediaLimits, *, field: str = "media") -> Iterator[BinaryIO]:
    """Open a medium for reading without reading more of it than the caller asks for; closed on leaving."""
    if ref.content is not None:
        _require_size(len(ref.content), ref, limits, field)
        yield io.BytesIO(ref.content)
    elif ref.frames is not None:
        raise _Refusal(ref, field)("is a list of frames, not a file", hint="each frame is a file of its own")
    elif ref.uri.startswith("data:"):
        yield io.BytesIO(_decode_data_uri(ref, limits, field))
    elif _scheme(ref.uri) in ("http", "https"):
        yield io.BytesIO(_download(ref, limits, field))
    else:
        with _open_file(ref, limits, field) as file:
            yield file


def _open_file(ref: MediaRef, limits: MediaLimits, field: str) -> BinaryIO:
    try:
        return open(local_path(ref, limits, field=field), "rb")
    except OSError as error:
        raise _Refusal(ref, field)("cannot be read", hint=str(error)) from error


def local_path(ref: MediaRef, limits: MediaLimits, *, field: str = "media") -> str:
    """Return the real path of a reference to a file, links followed.

    Raises:
        RowError: the path leaves the data root, does not exist, is no regular file, is empty or too large.
    """
    path, facts = _resolved(ref, limits, field)
    if not stat.S_ISREG(facts.st_mode):
        raise _Refusal(ref, field)("path is not a regular file", hint="directories, pipes and devices are not read")
    _require_size(facts.st_size, ref, limits, field)
    return path


def local_folder(ref: MediaRef, limits: MediaLimits, *, field: str = "media") -> str | None:
    """Return the real path of a reference to a directory, links followed, None when it refers to anything else.

    Raises:
        RowError: the path leaves the data root or does not exist.
    """
    if not is_local(ref):
        return None
    path, facts = _resolved(ref, limits, field)
    return path if stat.S_ISDIR(facts.st_mode) else None


def is_local(ref: MediaRef) -> bool:
    """True when a reference is a path: neither bytes, a list of frames, a `data:` URI nor an http(s) address."""
    return ref.uri is not None and not ref.uri.startswith("data:") and _scheme(ref.uri) not in ("http", "https")


def _resolved(ref: MediaRef, limits: MediaLimits, field: str) -> tuple[str, os.stat_result]:
    """Return the real path below the data root and what the system knows about it."""
    refuse = _Refusal(ref, field)
    scheme = _scheme(ref.uri)
    if scheme not in ("", "file"):
        raise refuse("address has a scheme that is not read", hint="use a path, a data: URI, http:// or https://")
    try:
        name = urllib.parse.unquote(urllib.parse.urlsplit(ref.uri).path) if scheme == "file" else ref.uri
    except ValueError as error:  # a bracket opens an IPv6 address and nothing closes it
        raise refuse("cannot be read", hint=str(error)) from error
    if "\0" in name or not name.strip():
        raise refuse("path is not a path", hint="it is empty or holds a NUL character")
    if ".." in Path(name).parts:
        raise refuse("path leaves the data root", hint="'..' is not allowed; set data.root above all media")
    try:
        path = os.path.realpath(os.path.join(limits.real_root, name))
        if os.path.commonpath([path, limits.real_root]) != limits.real_root:
            raise refuse("path leaves the data root", hint=f"data.root is {limits.real_root!r}; links are followed")
        return path, os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise refuse("is missing", hint=f"looked below data.root {limits.real_root!r}") from None
    except (OSError, UnicodeError) as error:
        raise refuse("cannot be read", hint=str(error)) from error


def shown(ref: MediaRef) -> str:
    """Return how messages name a medium: its address, its first frame, or the number of its bytes."""
    if ref.frames is not None:
        return f"<{len(ref.frames)} frames, the first {ref.frames[0]}>"
    return ref.uri if ref.uri is not None else f"<{len(ref.content)} bytes>"


class _Refusal:
    """Makes the errors of one reference: `refuse("is missing", hint=...)`."""

    def __init__(self, ref: MediaRef, field: str) -> None:
        self._ref, self._field = ref, field

    def __call__(self, rule: str, *, hint: str = "") -> RowError:
        return RowError(f"{self._ref.kind} {rule}", field=self._field, value=shown(self._ref), hint=hint)


def _scheme(uri: str) -> str:
    """Return the scheme of an address in lower case, empty for plain paths (also for those with a colon in a name)."""
    head, separator, _ = uri.partition("://")
    return head.lower() if separator and head.isalnum() else ""


def _require_size(size_bytes: int, ref: MediaRef, limits: MediaLimits, field: str) -> None:
    refuse = _Refusal(ref, field)
    if size_bytes == 0:
        raise refuse("file is empty")
    if size_bytes > limits.max_file_bytes:
        raise refuse("file is too large", hint=f"at most {limits.max_file_bytes:,} bytes are read")


def _decode_data_uri(ref: MediaRef, limits: MediaLimits, field: str) -> bytes:
    """Return the bytes of a `data:` URI, base64 or percent-encoded; the mime type is not believed."""
    refuse = _Refusal(ref, field)
    head, separator, payload = ref.uri.partition(",")
    if not separator:
        raise refuse("data URI is broken", hint="it has no comma; write data:image/png;base64,...")
    if len(payload) > 4 * limits.max_file_bytes:
        raise refuse("file is too large", hint=f"at most {limits.max_file_bytes:,} bytes are read")
    try:
        raw = urllib.parse.unquote_to_bytes(payload)
        content = base64.b64decode(b"".join(raw.split()), validate=True) if head.endswith(";base64") else raw
    except (binascii.Error, ValueError) as error:
        raise refuse("data URI is broken", hint=str(error)) from error
    _require_size(len(content), ref, limits, field)
    return content


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) alone, so that an address cannot lead to another protocol."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if _scheme(newurl) not in ("http", "https"):
            raise urllib.error.URLError(f"redirect to {newurl!r} is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(ref: MediaRef, limits: MediaLimits, field: str) -> bytes:
    """Fetch an http(s) address, bounded in bytes and in seconds."""
    refuse = _Refusal(ref, field)
    if not limits.allow_http:
        raise refuse("address needs the network", hint="set data.allow_http: true, or download the files first")
    deadline, content = time.monotonic() + limits.http_timeout_s, bytearray()
    try:
        request = urllib.request.Request(ref.uri, headers={"User-Agent": "mmalign"})
        with urllib.request.build_opener(_WebOnly).open(request, timeout=limits.http_timeout_s) as answer:
            while chunk := answer.read1(_CHUNK_BYTES):
                content += chunk
                _require_size(len(content), ref, limits, field)
                if time.monotonic() > deadline:
                    raise refuse("could not be downloaded", hint=f"it took more than {limits.http_timeout_s} s")
            promised = answer.headers.get("Content-Length")
    except RowError:
        raise
    except Exception as error:  # urllib, http.client and ssl raise many kinds; all mean the same to a reader
        raise refuse("could not be downloaded", hint=str(error) or type(error).__name__) from error
    if promised is not None and promised.isdigit() and len(content) < int(promised):
        raise refuse("could not be downloaded", hint=f"{len(content):,} of {promised} bytes arrived")
    _require_size(len(content), ref, limits, field)
    return bytes(content)
