"""What every row must be, whatever format it came in: rules that a single record can check without opening a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference, Response
from mmalign.formats.values import require_text
from mmalign.sources.meaning import is_empty

NOT_SUPPORTED = ("audio", "audios", "tools", "chat_template_kwargs")


def require_readable_columns(values: Mapping[str, Any]) -> None:
    """Refuse rows with a column that would change their meaning and that no format here reads.

    Raises:
        RowError: the row has audio, tools, or arguments of its own for the chat template.
    """
    for name in NOT_SUPPORTED:
        if not is_empty(values.get(name)):
            hint = "text, images and videos are"
            raise RowError(f"column {name} is not supported", field=name, value=values[name], hint=hint)


def require_sound(preference: Preference) -> None:
    """Refuse rows from which nothing can be learnt, or something wrong.

    Raises:
        RowError: an answer is empty, two answers of different rank are the same, the prompt says nothing, or a
            text is not valid Unicode.
    """
    if not preference.media and not any(message.text.strip() for message in preference.prompt):
        raise RowError("prompt is empty", field="prompt")
    for k, response in enumerate(preference.responses):
        if not response.text.strip():
            raise RowError("response is empty", field=_name(preference, k), value=response.text)
    _require_different_answers(preference)
    _require_unicode(preference)


def _require_different_answers(preference: Preference) -> None:
    levels, seen = preference.levels(), {}
    for k, response in enumerate(preference.responses):
        said = _key(response, preference)
        if seen.setdefault(said, levels[k]) != levels[k]:
            reason = "chosen equals rejected" if len(levels) == 2 else "two answers of different rank are the same"
            raise RowError(reason, field=_name(preference, k), value=response.text)


def _require_unicode(preference: Preference) -> None:
    texts = [("prompt", message.text) for message in preference.prompt]
    texts += [(_name(preference, k), response.text) for k, response in enumerate(preference.responses)]
    for field, text in texts:
        require_text(text, field)


def _key(response: Response, preference: Preference) -> Any:
    """What makes a response the same as another: its words, and the media that it saw."""
    media = preference.media if response.media is None else response.media
    words = tuple((message.role, message.text.strip()) for message in response.messages)
    return words, tuple(ref.identity() for ref in media)


def _name(preference: Preference, k: int) -> str:
    if len(preference.responses) == 2:
        return ("chosen", "rejected")[k]
    return f"responses[{k}]"
