"""Answers that are more than text, as a page shows them: a picture and what is known of it, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference, Response
from mmalign.modalities.answers import ANSWERS, answer_kind
from mmalign.modalities.fetch import MediaLimits
from mmalign.report.media_shelf import PICTURE_PIXELS, described

Draw = Callable[[Preference, int], dict[str, Any]]
"""Takes a row and the position of an answer; returns what a page says of it, nothing for plain text."""


def told(row: Preference, response: Response) -> tuple[str, str, RowError | None] | None:
    """Return the kind of an answer, what is known of it, and why it cannot be read if so; None for plain text."""
    name = answer_kind(row)
    if name is None:
        return None
    try:
        return name, described(ANSWERS[name].check(row, response)), None
    except RowError as error:
        return name, "", error


def drawn(
    row: Preference,
    k: int,
    limits: Mapping[str, MediaLimits],
    place: Callable[[MediaRef, str], int],
    *,
    is_full: bool,
) -> dict[str, Any]:
    """Return what a page says of answer `k` of a row: its kind, facts, and the number of its picture.

    Args:
        limits: of every kind of media.
        place: takes the picture and the field that names it, and returns its number.
        is_full: whether the page has no room for pictures; nothing is drawn then.
    """
    response = row.responses[k]
    known = told(row, response)
    if known is None:
        return {}
    name, facts, error = known
    made = {"kind": name, "facts": facts}
    if error is None and is_full:
        return {**made, "left_out": True}
    try:
        if error is not None:
            raise error
        picture = ANSWERS[name].render(row, response, limits["image"], PICTURE_PIXELS)
    except RowError as trouble:
        return {**made, "trouble": str(trouble)}
    return {**made, "picture": place(picture, f"responses[{k}]")}
