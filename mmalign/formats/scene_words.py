"""A short name for an object, out of its description."""

from __future__ import annotations

import re

_CUT = re.compile(r"\s+(?:with|featuring|that|in a|made|having|including|and)\s|[,;.](?=\s|$)")
_ARTICLES = ("a", "an", "the")
MOST_WORDS = 3


def short_phrase(desc: str) -> str:
    """Return up to three words that name an object, its noun last: what stands before the first "with" or comma."""
    for piece in _CUT.split(desc.strip()):
        words = [word for word in re.findall(r"[^\s/]+", piece.lower()) if word not in _ARTICLES]
        if len(words) >= 2:
            return " ".join(words[-MOST_WORDS:])
    words = re.findall(r"[^\s<>]+", desc.lower())
    return " ".join(words[:MOST_WORDS]).strip(" ,.;")
