"""Answers that are more than text: a literal table of who can read, check, draw and worsen which.

A modality of `table.py` is a kind of media that prompts hold; a kind of answer is a form that responses have. Whoever
shows rows walks this table and does not ask what an answer is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference, Response
from mmalign.modalities import layout, scene


class AnswerKind(NamedTuple):
    """The verbs of a kind of answer.

    Args:
        asks_for: row -> whether its prompt asks for such an answer.
        load: row, response -> the answer as a record.
        check: row, response -> what people are told of it; refuses an answer that is none.
        render: row, response, limits of pictures, bound on pixels -> a picture of it.
        perturb: row, response, how, seed, strength -> a worse answer to the same prompt.
    """

    asks_for: Callable[[Preference], bool]
    load: Callable[[Preference, Response], Any]
    check: Callable[[Preference, Response], Any]
    render: Callable[..., MediaRef]
    perturb: Callable[..., Response]


ANSWERS: dict[str, AnswerKind] = {
    "layout": AnswerKind(layout.asks_for, layout.load, layout.check, layout.render, layout.perturb),
    "scene": AnswerKind(scene.asks_for, scene.load, scene.check, scene.render, scene.perturb),
}


def answer_kind(row: Preference) -> str | None:
    """Return the name of the kind of answer that a row's prompt asks for, None for plain text."""
    return next((name for name, kind in ANSWERS.items() if kind.asks_for(row)), None)
