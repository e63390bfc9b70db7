"""Texts of strangers on a terminal: what would steer the terminal is shown instead of sent."""

from __future__ import annotations

import re

from rich.markup import escape

# Control characters but tab and line break, and the marks that turn the direction of writing.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Return `text` with every character that would steer the terminal, and half a surrogate pair, as its escape."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def safe(text: str) -> str:
    """Return `text` for a place that reads markup: visible, and its brackets only brackets."""
    return escape(visible(text))
