"""Prompts that are no list of turns (a text, a transcript, a column of earlier questions), and answers of one text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import MediaPart, Message
from mmalign.formats.preference import Response
from mmalign.sources.turns import TAGS, TurnReader, or_nothing


def history(raw: Any) -> list[dict[str, Any]]:
    """Turn a column `history`, a list of [question, answer], into the turns before the question.

    Raises:
        RowError: an entry is no such pair.
    """
    turns = []
    for pair in raw or ():
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError("history must hold [question, answer]", field="history", value=pair)
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns


def media_first(messages: tuple[Message, ...], count: int) -> tuple[Message, ...]:
    """Put `count` placeholders before the text of the first user turn: how formats without tags mean their media."""
    at = next((k for k, message in enumerate(messages) if message.role == "user"), None)
    if not count or at is None:
        return messages
    first = messages[at]
    parts = (*(MediaPart(index=index) for index in range(count)), *first.parts)
    return (*messages[:at], Message(role="user", parts=parts), *messages[at + 1 :])


def question(raw: Any, field: str, media: Sequence[MediaRef]) -> tuple[tuple[Message, ...], tuple[MediaRef, ...]]:
    """Read a prompt that is one text; return it with its media in the order of their placeholders.

    A single medium is put before the text and the tags are dropped, as LLaVA's loaders for DPO do. Tags of several
    media say where each stands; without tags they are put before the text too.

    Raises:
        RowError: it is no text, or has a tag and the row no medium.
    """
    if not isinstance(raw, str):
        raise RowError("column must be a text", field=field, value=or_nothing(raw))
    if len(media) == 1:
        words = "".join(TAGS.split(raw)[::2]).strip()
        return media_first((Message.of("user", words),), 1), tuple(media)
    reader = TurnReader(media, strip_newline=True)
    messages = reader.messages([{"role": "user", "content": raw.strip()}], field)
    if not any(message.media_indices for message in messages):
        messages = media_first(messages, len(media))
    return messages, reader.media


def answer(raw: Any, field: str, **facts: Any) -> Response:
    """Read an answer that is one text, in which tags are only text.

    Raises:
        RowError: it is no text.
    """
    if not isinstance(raw, str):
        raise RowError("column must be a text", field=field, value=or_nothing(raw))
    return Response.of(raw, **facts)


def transcript(text: str, user_mark: str, assistant_mark: str) -> list[dict[str, str]]:
    """Split a text such as "preamble USER: ... ASSISTANT: ..." into turns; a text without marks is one user turn.

    An empty last assistant turn (the text ends with its mark) is where the answer begins and makes no turn.
    """
    marks = {user_mark: "user", assistant_mark: "assistant"}
    pieces = re.split(f"({re.escape(user_mark)}|{re.escape(assistant_mark)})", text)
    if len(pieces) == 1:
        return [{"role": "user", "content": text.strip()}]
    turns = [{"role": "system", "content": pieces[0].strip()}] if pieces[0].strip() else []
    turns += [
        {"role": marks[mark], "content": said.strip()} for mark, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    ends_open = turns[-1] == {"role": "assistant", "content": ""}
    return turns[:-1] if ends_open else turns
