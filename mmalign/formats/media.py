"""References to media: where a picture or clip is, never its pixels."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.values import require_number, require_position, require_text

_WHERE = ("bytes", "path", "url", "uri", "image", "video", "image_url", "video_url")
_SPANS = (("video_start", "video_end"), ("start", "end"))
HOW_SHOWN = frozenset(
    {"detail", "min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width"}
    | {"fps", "nframes", "min_frames", "max_frames"}
)
"""Keys that say how a medium is shown to a model, not what it is. That says the recipe, for every row the same."""

MediaKind = str
"""Name of a kind of media. Which there are says `modalities/table.py`; this floor only refuses what is no name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaRef:
    """Where one medium is and which part of it is meant.

    Exactly one of `uri`, `content` and `frames` is given.

    Args:
        kind: "image", "video", or another that `modalities/table.py` has.
        uri: a path below the data root, an http(s) address, or a `data:` URI; for a video also a folder of frames.
        content: the encoded file itself (JPEG, PNG, MP4 bytes), as Parquet rows carry it. Not decoded pixels.
        frames: the pictures of a video in order, each a path below the data root.
        sha256: hex digest of the encoded file, when known; a list of frames has none.
        span_s: start and end of a clip in seconds.
        frame_indices: frames to take, counted from 0 over the whole file; not beside `span_s`.
    """

    kind: MediaKind
    uri: str | None = None
    content: bytes | None = field(default=None, repr=False)
    frames: tuple[str, ...] | None = None
    sha256: str | None = None
    span_s: tuple[float, float] | None = None
    frame_indices: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or not re.fullmatch("[a-z][a-z0-9_]*", self.kind) or self.kind == "text":
            hint = "one like 'image' or 'video'; text is no medium"
            raise RowError("media kind is not a name", field="kind", value=self.kind, hint=hint)
        if sum(given is not None for given in (self.uri, self.content, self.frames)) != 1:
            raise RowError("media needs exactly one of a uri, its bytes and its frames", field="media", value=self.uri)
        if self.frames is not None:
            self._require_frames(self.kind, self.frames)
            if self.sha256 is not None:
                hint = "a digest is of one file; leave sha256 out"
                raise RowError("list of frames has no sha256", field="sha256", value=self.sha256, hint=hint)
        if self.span_s is not None and self.frame_indices is not None:
            hint = "frame numbers count over the whole file, whatever the clip; keep one of the two"
            raise RowError("clip has both bounds and frame numbers", field="span_s", value=self.span_s, hint=hint)
        for name in ("uri", "sha256"):
            if getattr(self, name) is not None:
                require_text(getattr(self, name), name)
        for index in self.frame_indices or ():
            require_position(index, "frame_indices")
        if self.span_s is not None:
            self._require_bounds(self.span_s)

    @staticmethod
    def _require_frames(kind: str, frames: tuple[str, ...]) -> None:
        if kind != "video":
            raise RowError(f"{kind} cannot be a list of frames", field="frames", value=frames)
        if not isinstance(frames, tuple):
            raise RowError("frames must be a list of paths", field="frames", value=frames)
        if not frames:
            raise RowError("list of frames is empty", field="frames")
        for frame in frames:
            require_text(frame, "frames")

    @staticmethod
    def _require_bounds(span_s: tuple[float, ...]) -> None:
        for bound in span_s:
            require_number(bound, "span_s")
        if len(span_s) != 2 or not 0 <= span_s[0] < span_s[1]:
            raise RowError("clip bounds must satisfy 0 <= start < end", field="span_s", value=span_s)

    @classmethod
    def parse(cls, kind: MediaKind, raw: Any, *, field: str = "media") -> MediaRef:
        """Read what published rows put in a media column: a path, bytes, a list of frames, or {"bytes", "path", "url"}.

        An object may name a clip of a video by `start` and `end` (or `video_start` and `video_end`) in seconds; what it
        says of how the medium is shown (`HOW_SHOWN`) is not read. A base64 `data:` URI is read as the bytes that it
        carries.

        Raises:
            RowError: `raw` is none of these, its base64 is broken, or it says something else about the medium.
        """
        if isinstance(raw, Mapping):
            where = next((key for key in _WHERE if raw.get(key)), None)
            if where is not None:
                span_s = _said_of(kind, raw, field)
                whole = cls.parse(kind, raw[where], field=field)
                return whole if span_s is None else replace(whole, span_s=span_s)
        if kind == "video" and isinstance(raw, list) and raw and all(isinstance(frame, str) for frame in raw):
            return cls(kind=kind, frames=tuple(raw))
        if isinstance(raw, bytes) and raw:
            return cls(kind=kind, content=raw)
        if isinstance(raw, str) and raw.startswith("data:") and ";base64," in raw[:100]:
            return cls(kind=kind, content=_base64_bytes(raw.partition(",")[2], field))
        if isinstance(raw, str) and raw:
            return cls(kind=kind, uri=raw)
        raise RowError(
            f"{kind} is neither a path, bytes nor a data URI",
            field=field,
            value=raw,
            hint="give a path below data.root, encoded bytes, or data:image/...;base64,...",
        )

    @classmethod
    def of_json(cls, kind: MediaKind, value: Any, *, field: str = "media") -> MediaRef:
        """Return a medium that is a record of its own, such as a drawing as its shapes: JSON text in UTF-8.

        Args:
            kind: its kind.
            value: an object or a list.
            field: where it stands, for the error.

        Raises:
            RowError: `value` is neither, or JSON has no form for something in it.
        """
        if not isinstance(value, Mapping | list):
            raise RowError("json of a medium must be an object or a list", field=field, value=value)
        try:
            return cls(kind=kind, content=_json_bytes(value))
        except (TypeError, ValueError, RecursionError) as error:
            raise RowError("json of a medium cannot be written", field=field, hint=str(error)) from error

    def json(self) -> Any:
        """Return what `of_json` was given, None where `content` is not exactly what it makes of anything."""
        if self.content is None or self.content[:1] not in (b"{", b"["):
            return None
        try:
            value = json.loads(self.content)
            return value if _json_bytes(value) == self.content else None
        except (ValueError, RecursionError):
            return None

    def data_uri(self, mime_type: str = "application/octet-stream") -> str:
        """Return `content` as a `data:` URI, the form in which JSON carries bytes."""
        assert self.content is not None, "only a reference that holds bytes becomes a data URI"
        return f"data:{mime_type};base64,{base64.b64encode(self.content).decode('ascii')}"

    def identity(self) -> str:
        """Return a stable key of what is referred to, without opening any file."""
        if self.content is not None:
            name = hashlib.sha256(self.content).hexdigest()
        elif self.frames is not None:
            name = f"frames:{self.frames}"
        else:
            name = self.sha256 or f"uri:{self.uri}"
        return f"{self.kind}|{name}|{self.span_s}|{self.frame_indices}"


def _said_of(kind: MediaKind, raw: Mapping[str, Any], field: str) -> tuple[Any, Any] | None:
    """Return the bounds of the clip that an object names, and refuse what else it says about its medium.

    Raises:
        RowError: a key that is not read is filled: the object may mean a part where the whole would be shown.
    """
    filled = [key for key, value in raw.items() if value not in (None, "", [], {})]
    pair = next((pair for pair in _SPANS if kind == "video" and any(name in filled for name in pair)), ())
    unknown = [key for key in filled if key not in (*_WHERE, *pair, "type") and key not in HOW_SHOWN]
    if unknown:
        hint = "a medium is a path or bytes, and of a video start and end in seconds"
        raise RowError(f"{kind} has a key that is not read", field=field, value=unknown[0], hint=hint)
    if not pair:
        return None
    start, end = (raw.get(name) for name in pair)
    if end is None:
        raise RowError("clip has a start and no end", field=field, value=start, hint=f"give {pair[1]} in seconds")
    return 0.0 if start is None else start, end


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def _base64_bytes(text: str, field: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise RowError("data URI is not valid base64", field=field, value=text[:40], hint=str(error)) from error
    if not content:
        raise RowError("data URI is empty", field=field)
    return content
