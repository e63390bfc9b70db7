"""One preference as one row of columns, and back.

The columns are those of TRL's conversational preference format, so that a row with two responses loads there
unchanged:

    id          text
    prompt      [{"role": ..., "content": [{"type": "image"}, {"type": "text", "text": ...}]}, ...]
    images      the pictures in the order of their placeholders; [] when there is none, and no column at all in a file
                without a single picture
    chosen      the best response, a list of messages
    rejected    the worst response, of several that are equally bad the first; absent when there is one response only
    completion  in place of chosen and rejected, an only response that was judged by itself; with it label: true for
                good, false for bad, as in TRL's unpaired rows

and, only in rows where they say something:

    videos      the clips in the order of their placeholders
    media       media of every other kind in the order of their placeholders: {"kind", "bytes", "path"}
    margin, weight, difficulty, ties, tags, provenance
    responses   every response, best first, with its facts: when there are more than two, or one has a score, spans ...
    media_facts one entry a placeholder: frames, sha256, span_s, frame_indices
    media_order the row's media in the order of `Preference.media`, when that is not the order of the placeholders

An absent column and a null mean the same. Media are `{"bytes": ..., "path": ...}`, the layout of image and video
columns in the `datasets` library; in JSONL a path or a `data:` URI (`media_columns.py` has the details). A video may be
a file or a folder of frames. One that is a list of frame files has its paths in media_facts.frames, since a column has
one type, and nothing in `videos`: who does not read media_facts finds no clip there, never a wrong one. The same holds
for a response's own media.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaKind, MediaRef
from mmalign.formats.media_columns import (
    COLUMN_OF,
    facts_column,
    in_columns,
    in_one_object,
    kinds_of,
    read_media,
    read_one_object,
)
from mmalign.formats.message import MediaPart, Message, TextPart
from mmalign.formats.preference import Preference, Response, Span
from mmalign.formats.values import require_map, require_position

_RESPONSE_FACTS = ("score", "scores", "critique", "spans", "media", "model", "annotator")
_FIRST = ("chosen", "completion")
"""Column of the first response: of a row that was compared or demonstrates, and of an answer judged by itself."""


def to_columns(preference: Preference) -> dict[str, Any]:
    """Return the row that holds `preference`; see the head of this module for its columns."""
    order = _placeholder_order(preference.prompt)
    media = [preference.media[index] for index in order]
    columns = in_columns(media)
    kinds = {index: ref.kind for index, ref in enumerate(preference.media)}
    responses = preference.responses
    row: dict[str, Any] = {
        "id": preference.id,
        "prompt": [_message_column(message, kinds) for message in preference.prompt],
        "images": columns.pop("images"),
        _FIRST[preference.label is not None]: [_message_column(message, kinds) for message in responses[0].messages],
    }
    if len(responses) > 1:
        row["rejected"] = [_message_column(message, kinds) for message in preference.rejected.messages]
    facts = {
        **columns,
        "label": preference.label,
        "margin": preference.margin,
        "weight": preference.weight if preference.weight != 1.0 else None,
        "difficulty": preference.difficulty,
        "ties": [list(group) for group in preference.ties],
        "tags": dict(preference.tags),
        "provenance": dict(preference.provenance),
        "responses": _responses_column(responses, order, kinds),
        "media_facts": facts_column(media),
        "media_order": order if order != sorted(order) else None,
    }
    return row | {name: value for name, value in facts.items() if value not in (None, [], {})}


def from_columns(row: Mapping[str, Any]) -> Preference:
    """Return the preference that a row of `to_columns` holds.

    Raises:
        RowError: a column is missing, has the wrong shape, or the values break a rule of `Preference`.
    """
    try:
        return _from_columns(row)
    except RowError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise RowError("a column has the wrong shape", value=f"{type(error).__name__}: {error}") from error


def _from_columns(row: Mapping[str, Any]) -> Preference:
    prompt, kinds = _read_messages(row.get("prompt"), "prompt", kinds_of(row))
    media = read_media(row, kinds)
    order = list(row.get("media_order") or range(len(media)))
    for index in order:
        require_position(index, "media_order")
    if sorted(order) != list(range(len(media))):
        raise RowError("media_order must name every medium once", field="media_order", value=order)
    ends, responses = _read_ends(row), _read_responses(row, order)
    preference = Preference(
        id="" if row.get("id") is None else str(row["id"]),
        prompt=tuple(_renumber(message, order) for message in prompt),
        media=_in_order(media, order),
        responses=responses or ends,
        ties=tuple(tuple(group) for group in row.get("ties") or ()),
        label=row.get("label"),
        margin=row.get("margin"),
        weight=1.0 if row.get("weight") is None else row["weight"],
        difficulty=row.get("difficulty"),
        tags=_without_nulls(row.get("tags"), "tags"),
        provenance=_without_nulls(row.get("provenance"), "provenance"),
    )
    _require_ends(preference, ends)
    return preference


# ---- writing -------------------------------------------------------------------------------------------------------


def _placeholder_order(prompt: Iterable[Message]) -> list[int]:
    return [index for message in prompt for index in message.media_indices]


def _message_column(message: Message, kinds: Mapping[int, str]) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": kinds[part.index]}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def _responses_column(responses: tuple[Response, ...], order: list[int], kinds: Mapping[int, str]) -> list[dict]:
    said = any(getattr(response, name) not in (None, (), {}) for response in responses for name in _RESPONSE_FACTS)
    if len(responses) <= 2 and not said:
        return []
    return [_response_column(response, order, kinds) for response in responses]


def _response_column(response: Response, order: list[int], kinds: Mapping[int, str]) -> dict[str, Any]:
    column: dict[str, Any] = {"messages": [_message_column(message, kinds) for message in response.messages]}
    for name in ("score", "critique", "model", "annotator"):
        if getattr(response, name) is not None:
            column[name] = getattr(response, name)
    if response.scores:
        column["scores"] = dict(response.scores)
    if response.spans:
        column["spans"] = [{"start": span.start, "end": span.end, "weight": span.weight} for span in response.spans]
    if response.media is not None:
        column["media"] = [in_one_object(response.media[index]) for index in order]
    return column


# ---- reading -------------------------------------------------------------------------------------------------------


def _read_messages(raw: Any, field: str, known: Set[MediaKind]) -> tuple[list[Message], list[MediaKind]]:
    """Return the messages, their placeholders numbered from 0 in order, and the kind of each placeholder.

    Args:
        raw: the column.
        field: its name.
        known: kinds of media that a part may name.
    """
    if not isinstance(raw, list) or not raw:
        raise RowError("column must be a list of messages", field=field, value=raw if raw is not None else "nothing")
    kinds: list[MediaKind] = []
    messages = [_read_message(message, f"{field}[{turn}]", known, kinds) for turn, message in enumerate(raw)]
    return messages, kinds


def _read_answer(raw: Any, field: str) -> tuple[Message, ...]:
    """Return the messages of a response, which names no media."""
    messages, kinds = _read_messages(raw, field, COLUMN_OF.keys())
    if kinds:
        raise RowError("a response must not hold media", field=field, value=kinds[0])
    return tuple(messages)


def _read_message(raw: Any, field: str, known: Set[MediaKind], kinds: list[MediaKind]) -> Message:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("content"), list | str):
        raise RowError('a message must be {"role": ..., "content": ...}', field=field, value=raw)
    content = raw["content"]
    parts: list[TextPart | MediaPart] = []
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append(TextPart(text=part["text"]))
        elif isinstance(kind, str) and kind in known and not any(part[name] for name in part if name != "type"):
            parts.append(MediaPart(index=len(kinds)))
            kinds.append(kind)
        else:
            hint = f"kinds of media of this row are {', '.join(sorted(known))}"
            raise RowError("a part must be a text or a medium", field=f"{field}.content", value=part, hint=hint)
    return Message(role=raw.get("role"), parts=tuple(parts))


def _read_ends(row: Mapping[str, Any]) -> tuple[Response, ...]:
    """Return what stands in the columns `chosen` and `rejected`, or `completion`."""
    columns = ("completion", "chosen", "rejected")
    said = [_read_answer(row[name], name) for name in columns if row.get(name) is not None]
    return tuple(Response(messages=messages) for messages in said)


def _read_responses(row: Mapping[str, Any], order: list[int]) -> tuple[Response, ...]:
    return tuple(_read_response(raw, f"responses[{k}]", order) for k, raw in enumerate(row.get("responses") or ()))


def _require_ends(preference: Preference, ends: tuple[Response, ...]) -> None:
    """Refuse a row whose columns `chosen` and `rejected` are not the best and the worst of its responses."""
    both = (preference.chosen, preference.rejected)
    for name, end, response in zip(("chosen", "rejected"), ends, both, strict=False):
        if end.messages != response.messages:
            raise RowError(
                "chosen and rejected must be the best and the worst of responses",
                field=name,
                value=end.text,
                hint="of several that are equally bad the first; change both, or leave out the column responses",
            )


def _read_response(raw: Any, field: str, order: list[int]) -> Response:
    if not isinstance(raw, Mapping):
        raise RowError('a response must be {"messages": ...}', field=field, value=raw)
    media = raw.get("media")
    if media is not None:
        media = _in_order([read_one_object(ref, f"{field}.media") for ref in media], order)
    return Response(
        messages=_read_answer(raw.get("messages"), f"{field}.messages"),
        score=raw.get("score"),
        scores=_without_nulls(raw.get("scores"), f"{field}.scores"),
        critique=raw.get("critique"),
        spans=tuple(
            Span(start=span["start"], end=span["end"], weight=span["weight"]) for span in raw.get("spans") or ()
        ),
        media=media,
        model=raw.get("model"),
        annotator=raw.get("annotator"),
    )


def _renumber(message: Message, order: list[int]) -> Message:
    """Turn placeholders that count from 0 in reading order into indices of the row's media."""
    parts = tuple(
        MediaPart(index=order[part.index] if part.index < len(order) else part.index)
        if isinstance(part, MediaPart)
        else part
        for part in message.parts
    )
    return Message(role=message.role, parts=parts)


def _in_order(media: list[MediaRef], order: list[int]) -> tuple[MediaRef, ...]:
    """Put media that stand in reading order where `order` says they belong in the row's list."""
    if len(media) != len(order):
        raise RowError("a response's own media must be as many as the row's", field="media", value=len(media))
    placed = dict(zip(order, media, strict=True))
    return tuple(placed[index] for index in range(len(media)))


def _without_nulls(raw: Any, field: str) -> dict[str, Any]:
    """Tables fill the keys that a row does not have with nulls; take them out again."""
    values = {} if raw is None else raw
    require_map(values, field)
    return {key: value for key, value in values.items() if value is not None}
