"""Text: what a chat template is told about it, and what no tokenizer can read."""

from __future__ import annotations

from typing import Any

from mmalign.errors import RowError


def check(text: str, *, field: str = "text") -> None:
    """Refuse text that has no UTF-8 form: half of a surrogate pair, as broken JSON escapes leave behind.

    Raises:
        RowError: naming the position.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(
            "text is not valid Unicode",
            field=field,
            value=text[max(0, error.start - 20) : error.end + 20],
            hint=f"character {error.start} is half of a surrogate pair",
        ) from error


def messages(text: str) -> dict[str, Any]:
    """Return the content part by which chat templates know a text."""
    return {"type": "text", "text": text}
