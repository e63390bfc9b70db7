"""Columns of media, as published rows have them -> references to media."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaKind, MediaRef
from mmalign.sources.places import kind_of

TAG_OF: dict[MediaKind, str] = {"image": "<image>", "video": "<video>"}
"""The text that stands for a medium where a row has tags."""


def media_of(values: Mapping[str, Any]) -> list[MediaRef]:
    """Return the row's pictures from its column `images` or `image`, then its clips from `videos` or `video`.

    Raises:
        RowError: an entry is no medium, or both columns of a kind are filled.
    """
    return [ref for kind in TAG_OF for ref in _media_of_kind(values, kind)]


def _media_of_kind(values: Mapping[str, Any], kind: MediaKind) -> list[MediaRef]:
    many = f"{kind}s"
    filled = [name for name in (many, kind) if values.get(name) not in (None, "", [])]
    if len(filled) > 1:
        raise RowError(f"row has both {kind} and {many}", field=kind, value=values[kind], hint="keep one of them")
    if not filled:
        return []
    raw = values[filled[0]]
    if filled == ["video"] and isinstance(raw, list) and not _are_files_of_videos(raw):
        return [medium(raw, "video", kind)]  # a list under this name is one clip, its frames
    return media_column(raw, filled[0], kind)


def media_column(raw: Any, field: str, kind: MediaKind = "image") -> list[MediaRef]:
    """Return the media of a column that holds one medium or a list of them.

    Raises:
        RowError: an entry is no medium.
    """
    if not isinstance(raw, list | tuple):
        return [medium(raw, field, kind)]
    return [medium(entry, f"{field}[{k}]", kind) for k, entry in enumerate(raw)]


def medium(raw: Any, field: str, kind: MediaKind) -> MediaRef:
    """Return one medium.

    Raises:
        RowError: it is none, or a list of frames holds files of videos.
    """
    ref = MediaRef.parse(kind, raw, field=field)
    clips = [frame for frame in ref.frames or () if kind_of(frame) == "video"]
    if clips:
        hint = "a list of clips belongs into the column videos, one entry a clip"
        raise RowError("list of frames holds a video", field=field, value=clips[0], hint=hint)
    return ref


def _are_files_of_videos(raw: list[Any]) -> bool:
    return all(isinstance(entry, str) and kind_of(entry) == "video" for entry in raw)
