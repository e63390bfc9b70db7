"""Media in the columns of our rows: which kind stands where, and what is written of one medium.

    images, videos   the kinds that TRL and the `datasets` library have columns for: {"bytes", "path"}
    media            every other kind: {"kind", "bytes", "path"}, so that a new one needs no column of its own
    media_facts      what else is known of a medium, one entry a placeholder: frames, sha256, span_s, frame_indices

Within a column media stand in the order of their placeholders. What a response saw instead is one object a medium, with
its kind and its facts in it. In JSONL bytes become a `data:` URI under "path", and those of `MediaRef.of_json` the
value itself under "json", for people to read and write.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaKind, MediaRef

COLUMN_OF: dict[MediaKind, str] = {"image": "images", "video": "videos"}
"""Columns that others read; every other kind stands in `OTHER_KINDS`."""

OTHER_KINDS = "media"
COLUMNS = (*COLUMN_OF.values(), OTHER_KINDS)
_FACTS = ("frames", "sha256", "span_s", "frame_indices")


# ---- writing -------------------------------------------------------------------------------------------------------


def in_columns(media: Sequence[MediaRef]) -> dict[str, list[dict[str, Any]]]:
    """Return the columns that hold `media`, every column there is, in this order."""
    columns: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for ref in media:
        if ref.kind in COLUMN_OF:
            columns[COLUMN_OF[ref.kind]].append(_where(ref))
        else:
            columns[OTHER_KINDS].append({"kind": ref.kind} | _where(ref))
    return columns


def facts_column(media: Sequence[MediaRef]) -> list[dict[str, Any]]:
    """Return an entry a medium with what is known of it, no entry at all where nothing is known of any."""
    facts = [_facts(ref) for ref in media]
    return facts if any(facts) else []


def in_one_object(ref: MediaRef) -> dict[str, Any]:
    """Return everything about one medium: what stands in `responses[].media`."""
    return {"kind": ref.kind} | _where(ref) | _facts(ref)


def _where(ref: MediaRef) -> dict[str, Any]:
    return {"bytes": ref.content, "path": ref.uri}


def _facts(ref: MediaRef) -> dict[str, Any]:
    said = {name: getattr(ref, name) for name in _FACTS}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in said.items() if value is not None
    }


# ---- reading -------------------------------------------------------------------------------------------------------


def kinds_of(row: Mapping[str, Any]) -> frozenset[MediaKind]:
    """Return the kinds of media that parts of a row's prompt may name.

    Raises:
        RowError: an entry of the column `media` names no kind, or one that has a column of its own.
    """
    named = [_kind_of(raw, f"{OTHER_KINDS}[{k}]") for k, raw in enumerate(_entries(row, OTHER_KINDS))]
    return frozenset((*COLUMN_OF, *named))


def read_media(row: Mapping[str, Any], kinds: Sequence[MediaKind]) -> list[MediaRef]:
    """Return the media in the order of the placeholders; one too many or too few is left for `Preference` to refuse.

    Args:
        row: the columns.
        kinds: of the placeholders, in their order.

    Raises:
        RowError: a column is no list of media, or an entry is none.
    """
    facts = row.get("media_facts") or [{}] * len(kinds)
    if len(facts) != len(kinds):
        raise RowError("media_facts must have one entry a placeholder", field="media_facts", value=len(facts))
    waiting = _waiting(row)
    media = []
    for kind, fact in zip(kinds, facts, strict=True):
        if waiting.get(kind):
            field, raw = waiting[kind].popleft()
            media.append(_read(kind, raw, fact or {}, field))
    return media + [_read(kind, raw, {}, field) for kind, left in waiting.items() for field, raw in left]


def read_one_object(raw: Any, field: str) -> MediaRef:
    """Return what `in_one_object` wrote.

    Raises:
        RowError: it is no medium.
    """
    where = {name: value for name, value in raw.items() if name not in ("kind", *_FACTS)}
    return _read(raw["kind"], where, raw, field)


def _waiting(row: Mapping[str, Any]) -> dict[MediaKind, deque[tuple[str, Any]]]:
    """Return by kind what stands in the columns, each with the field in which it stands."""
    waiting: dict[MediaKind, deque[tuple[str, Any]]] = {}
    for kind, column in COLUMN_OF.items():
        waiting[kind] = deque((f"{column}[{k}]", raw) for k, raw in enumerate(_entries(row, column)))
    for k, raw in enumerate(_entries(row, OTHER_KINDS)):
        field = f"{OTHER_KINDS}[{k}]"
        where = {name: value for name, value in raw.items() if name != "kind"}
        waiting.setdefault(_kind_of(raw, field), deque()).append((field, where))
    return waiting


def _entries(row: Mapping[str, Any], column: str) -> list[Any]:
    media = [] if row.get(column) is None else row[column]
    if not isinstance(media, list):
        raise RowError("column must be a list of media", field=column, value=media, hint="write [...] around it")
    return media


def _kind_of(raw: Any, field: str) -> MediaKind:
    """Return the kind that an entry of the column `media` names."""
    kind = raw.get("kind") if isinstance(raw, Mapping) else None
    if not isinstance(kind, str):
        raise RowError('medium must be {"kind": ..., "path": ...}', field=field, value=raw)
    if kind in COLUMN_OF:
        hint = f"put it into {COLUMN_OF[kind]}, where others find it"
        raise RowError("medium is of a kind that has a column of its own", field=field, value=kind, hint=hint)
    return kind


def _read(kind: MediaKind, raw: Any, facts: Mapping[str, Any], field: str) -> MediaRef:
    said = {name: facts[name] for name in _FACTS if facts.get(name) is not None}
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    filled = {name: raw[name] for name in raw if raw[name] is not None} if isinstance(raw, Mapping) else raw
    if (filled is None or filled == {}) and "frames" in said:
        return MediaRef(kind=kind, **said)
    if isinstance(filled, Mapping) and kind not in COLUMN_OF and "json" in filled:
        ref = _only_json(kind, filled, field)
    else:
        ref = MediaRef.parse(kind, raw, field=field)
    return dataclasses.replace(ref, **said)


def _only_json(kind: MediaKind, filled: Mapping[str, Any], field: str) -> MediaRef:
    if len(filled) > 1:
        raise RowError("medium is said in two ways", field=field, value=sorted(filled), hint="keep json or path")
    return MediaRef.of_json(kind, filled["json"], field=field)
