"""What published rows have in common: turns under several names, and tags and parts in them that stand for media."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import HOW_SHOWN, MediaKind, MediaRef
from mmalign.formats.message import MediaPart, Message, Part, TextPart
from mmalign.formats.preference import Response
from mmalign.sources.media_columns import TAG_OF, medium

TAGS = re.compile(f"<({'|'.join(TAG_OF)})>")
"""What parts a text at its tags: every second piece is the name of a kind."""
ROLE_OF = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


class TurnReader:
    """Reads the turns of one row and gives every placeholder its medium, in the order in which they are met.

    Args:
        media: the row's media; those of one kind stand in the order of their placeholders.
        tagged: whether `<image>` and `<video>` in a text stand for media; else text is only text.
        strip_newline: whether the line break that parts a tag from the text belongs to the tag.
    """

    def __init__(self, media: Sequence[MediaRef], *, tagged: bool = True, strip_newline: bool = False) -> None:
        self._waiting = list(media)
        self._tagged, self._strip_newline = tagged, strip_newline
        self._media: list[MediaRef] = []
        self._missing: list[MediaKind] = []

    @property
    def media(self) -> tuple[MediaRef, ...]:
        """The row's media, once the prompt is read; one without placeholder stands last, and the record refuses it.

        Raises:
            RowError: a placeholder of one kind has no medium while one of another kind has no placeholder.
        """
        if self._missing and self._waiting:
            reason = "placeholders and media do not match: they are of different kinds"
            hint = f"its place is {TAG_OF[self._waiting[0].kind]}"
            raise RowError(reason, field=f"{self._waiting[0].kind}s", value=TAG_OF[self._missing[0]], hint=hint)
        return (*self._media, *self._waiting)

    def messages(self, raw: Any, field: str) -> tuple[Message, ...]:
        """Read a list of turns.

        Raises:
            RowError: it is no list, is empty, or a turn in it cannot be read.
        """
        if not isinstance(raw, list | tuple) or not raw:
            raise RowError("turns must be a list that is not empty", field=field, value=or_nothing(raw))
        return tuple(self.message(turn, f"{field}[{k}]") for k, turn in enumerate(raw))

    def message(self, raw: Any, field: str) -> Message:
        """Read one turn: {"role", "content"} or {"from", "value"}."""
        if not isinstance(raw, Mapping):
            raise RowError(
                'a turn must be {"role", "content"} or {"from", "value"}', field=field, value=or_nothing(raw)
            )
        role_key, content_key = ("from", "value") if raw.get("from") is not None else ("role", "content")
        role = raw.get(role_key)
        if not isinstance(role, str) or role.lower() not in ROLE_OF:
            known = ", ".join(ROLE_OF)
            raise RowError(
                "role is unknown", field=f"{field}.{role_key}", value=or_nothing(role), hint=f"known: {known}"
            )
        if raw.get("tool_calls"):
            raise RowError("tool calls are not supported", field=f"{field}.tool_calls", value=raw["tool_calls"])
        parts = self.parts(raw.get(content_key), f"{field}.{content_key}")
        return Message(role=ROLE_OF[role.lower()], parts=parts)

    def parts(self, raw: Any, field: str) -> tuple[Part, ...]:
        """Read what a turn says: a text (with tags), or a list of typed parts."""
        if isinstance(raw, str):
            return self._parts_of(raw)
        if not isinstance(raw, list | tuple):
            raise RowError("content must be a text or a list of parts", field=field, value=or_nothing(raw))
        return tuple(part for k, piece in enumerate(raw) for part in self._typed(piece, f"{field}[{k}]"))

    def _parts_of(self, text: str) -> tuple[Part, ...]:
        pieces = TAGS.split(text) if self._tagged else [text]
        if len(pieces) == 1:
            return (TextPart(text=text),)
        parts: list[Part] = []
        for k, piece in enumerate(pieces):
            if k % 2:  # what the pattern caught: the name of a kind
                parts.append(self._placeholder(piece))
                continue
            if self._strip_newline:
                piece = piece.removeprefix("\n") if k else piece
                piece = piece.removesuffix("\n") if k < len(pieces) - 1 else piece
            if piece:
                parts.append(TextPart(text=piece))
        return tuple(parts)

    def _typed(self, raw: Any, field: str) -> tuple[Part, ...]:
        kind = raw.get("type") if isinstance(raw, Mapping) else None
        if kind == "text" and isinstance(raw.get("text"), str):
            return self._parts_of(raw["text"])
        kind = kind.removesuffix("_url") if isinstance(kind, str) else kind
        if isinstance(kind, str) and kind in TAG_OF:
            return (self._medium(kind, {key: raw[key] for key in raw if key != "type"}, field),)
        raise RowError("a part must be a text, an image or a video", field=field, value=or_nothing(raw))

    def _medium(self, kind: MediaKind, said: Mapping[str, Any], field: str) -> MediaPart:
        """Read a part of a turn that is a medium: the medium itself, or the place of the next one of the column."""
        filled = {key: value for key, value in said.items() if value not in (None, "", [], {})}
        place = sum(ref.kind == kind for ref in self._media) + self._missing.count(kind)
        if filled.pop("index", place) != place:
            raise RowError("parts must name the media in their order", field=f"{field}.index", value=said["index"])
        if filled.keys() <= HOW_SHOWN:
            return self._placeholder(kind)
        return self._placeholder(kind, medium(filled, field, kind))

    def _placeholder(self, kind: MediaKind, inline: MediaRef | None = None) -> MediaPart:
        """Number the next placeholder; when no medium of its kind is left for it, the row is refused at the end."""
        part = MediaPart(index=len(self._media) + len(self._missing))
        waiting = next((ref for ref in self._waiting if ref.kind == kind), None)
        if inline is not None:
            self._media.append(inline)
        elif waiting is not None:
            self._media.append(waiting)
            self._waiting.remove(waiting)
        else:
            self._missing.append(kind)
        return part


def response_from(raw: Any, field: str, *, tagged: bool = True, **facts: Any) -> Response:
    """Read a response: a text, one turn, or a list of turns.

    Raises:
        RowError: it is none of these, does not begin with the assistant, or holds a medium.
    """
    if isinstance(raw, str):
        raw = {"role": "assistant", "content": raw}
    reader = TurnReader((), tagged=tagged)
    messages = reader.messages(raw, field) if isinstance(raw, list | tuple) else (reader.message(raw, field),)
    if any(message.media_indices for message in messages):
        raise RowError("a response must not hold media", field=field, value=raw, hint="media belong into the prompt")
    if messages[0].role != "assistant":
        raise RowError("a response must be the assistant's", field=field, value=messages[0].role)
    return Response(messages=messages, **facts)


def split_answer(messages: tuple[Message, ...], field: str) -> tuple[tuple[Message, ...], Response]:
    """Part a whole conversation into the turns before its last answer and that answer.

    Raises:
        RowError: the conversation does not end with the assistant, or nothing stands before the answer.
    """
    answer = messages[-1]
    if answer.role != "assistant":
        raise RowError("conversation must end with the assistant's answer", field=field, value=answer.role)
    if len(messages) < 2:
        raise RowError("conversation has no turn before the answer", field=field, value=answer.text)
    if answer.media_indices:
        raise RowError("a response must not hold media", field=field, value=answer.text)
    return messages[:-1], Response(messages=(answer,))


def require_answerable(messages: tuple[Message, ...], field: str) -> None:
    """Refuse turns after which no answer of the assistant can stand.

    Raises:
        RowError: the last turn is neither the user's nor a tool's.
    """
    if messages[-1].role not in ("user", "tool"):
        raise RowError("turns before the answers must end with the user", field=field, value=messages[-1].role)


def require_same_prompt(prompt: tuple[Message, ...], other: tuple[Message, ...], field: str) -> None:
    """Refuse a row whose two whole conversations differ before their last answers, in a speaker or in a word.

    Where media stand in the second is not compared: the first says it for both.

    Raises:
        RowError: they differ; the first turn that does is shown.
    """
    said = [(message.role, message.text) for message in prompt]
    said_there = [(message.role, message.text) for message in other]
    if said != said_there:
        both = zip(said, said_there, strict=False)
        differing = next((there for here, there in both if here != there), said_there[-1])
        raise RowError("the two conversations must share their prompt", field=field, value=": ".join(differing))


def is_turns(value: Any) -> bool:
    """Tell whether a column holds a list of turns, under either pair of names."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, Mapping) and ("role" in turn or "from" in turn) for turn in value[:1])
    )


def or_nothing(value: Any) -> Any:
    """Make a missing value visible in a message."""
    return "nothing" if value is None else value
