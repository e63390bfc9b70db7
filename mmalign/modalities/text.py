"""Text: what a chat template is told about it, and what no tokenizer can read."""

from __future__ import annotations

from typing import Any

from mmalign.formats.values import require_text


def check(text: str, *, field: str = "text") -> None:
    """Refuse text that has no UTF-8 form: half of a surrogate pair, as broken JSON escapes leave behind.

    Raises:
        RowError: naming the position.
    """
    require_text(text, field)


def messages(text: str) -> dict[str, Any]:
    """Return the content part by which chat templates know a text."""
    return {"type": "text", "text": text}
