"""The task of placing elements as one prompt, and back: whoever has the prompt can read the answers to it.

    Place 3 elements on a canvas of 1080 x 1920.
    0 background <the element's picture>
    1 text {"text":"Summer sale","color":[200,30,30]}
    2 shape {"category":"rounded","color":[255,255,255]}
    Answer with position tokens, 128 bins: x, y, width, height of each.

Pictures are media of the row where they stand. Nothing about the task is kept beside the prompt, so rows of it are
ordinary rows in every file and in every program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmalign.errors import ConfigError, RowError
from mmalign.formats.layout import Brief, Layout
from mmalign.formats.layout_json import element_from_json, element_to_json
from mmalign.formats.layout_text import FORMS, Form, Grid, read, write
from mmalign.formats.media import MediaRef
from mmalign.formats.message import MediaPart, Message, TextPart
from mmalign.formats.preference import Preference, Response

_FORM_WORDS: dict[Form, str] = {"tokens": "position tokens", "json": "JSON"}
_FIRST = re.compile(r"Place (\d{1,6}) elements on a canvas of (\d{1,6}) x (\d{1,6})\.")
_LAST = re.compile(
    f"Answer with ({'|'.join(_FORM_WORDS.values())}), "
    r"(\d{1,6}) bins(?:, overflow ([0-9.]{1,9}))?: x, y, width, height of each\."
)
_ELEMENT = re.compile(r"(\d{1,6}) ([a-z]+)(?: (\{.*\}))? ?")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A brief, and the form in which its answers tell their boxes."""

    brief: Brief
    grid: Grid
    form: Form

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"form of layouts {self.form!r} is unknown; use one of {', '.join(FORMS)}")

    def prompt(self) -> tuple[tuple[Message, ...], tuple[MediaRef, ...]]:
        """Return the turn that asks, and the pictures in it."""
        brief, media = self.brief, []
        parts: list[str | int] = [
            f"Place {len(brief.elements)} elements on a canvas of {brief.width_px} x {brief.height_px}.\n"
        ]
        for k, element in enumerate(brief.elements):
            facts = element_to_json(replace(element, asset=None))
            kind = facts.pop("type")
            said = f" {json.dumps(facts, ensure_ascii=False, separators=(',', ':'))}" if facts else ""
            parts.append(f"{k} {kind}{said}")
            if element.asset is not None:
                parts += [" ", len(media)]
                media.append(element.asset)
            parts.append("\n")
        overflow = f", overflow {self.grid.overflow:g}" if self.grid.overflow else ""
        words = _FORM_WORDS[self.form]
        parts.append(f"Answer with {words}, {self.grid.bins} bins{overflow}: x, y, width, height of each.")
        return (Message.of("user", *_joined(parts)),), tuple(media)

    def response(self, layout: Layout, **facts: Any) -> Response:
        """Return the answer that tells the boxes of `layout`, with what is known about it."""
        return Response.of(write(layout, self.grid, self.form), **facts)

    def row(self, name: str, responses: Sequence[Response], **facts: Any) -> Preference:
        """Return a row that asks for this layout and holds these answers, best first."""
        messages, media = self.prompt()
        return Preference(id=name, prompt=messages, media=media, responses=tuple(responses), **facts)

    def layout(self, answer: str) -> Layout:
        """Return the layout that an answer describes.

        Raises:
            RowError: as `layout_text.read`.
        """
        return read(answer, self.brief, self.grid, self.form)


def asks_for_layout(preference: Preference) -> bool:
    """Tell whether a row is of this task."""
    return _FIRST.match(preference.prompt[-1].text) is not None


def task_of(preference: Preference) -> Task:
    """Return the task that the last turn of a row's prompt states.

    Raises:
        RowError: it states none, or not all of it.
    """
    lines = _lines(preference.prompt[-1])
    first, last = _FIRST.fullmatch(lines[0][0]), _LAST.fullmatch(lines[-1][0])
    if first is None or last is None:
        line = lines[0][0] if first is None else lines[-1][0]
        raise RowError("prompt is no task of placing elements", field="prompt", value=line)
    count, width_px, height_px = map(int, first.groups())
    elements = []
    for k, (line, index) in enumerate(lines[1:-1]):
        said = _ELEMENT.fullmatch(line)
        if said is None or int(said[1]) != k:
            raise RowError("line of the prompt is no element", field=f"elements[{k}]", value=line)
        element = element_from_json({"type": said[2], **_facts(said[3], k)}, k)
        elements.append(element if index is None else replace(element, asset=preference.media[index]))
    if len(elements) != count:
        raise RowError("prompt has not as many elements as it says", field="prompt", value=len(elements))
    form = next(form for form, words in _FORM_WORDS.items() if words == last[1])
    brief = Brief(id=preference.id, width_px=width_px, height_px=height_px, elements=tuple(elements))
    return Task(brief=brief, grid=_grid(last), form=form)


def _grid(said: re.Match[str]) -> Grid:
    try:
        return Grid(bins=int(said[2]), overflow=float(said[3] or 0))
    except ValueError as error:
        raise RowError("grid of the prompt is out of bounds", field="prompt", value=said[0], hint=str(error)) from error


def _facts(text: str | None, k: int) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowError("line of the prompt is no element", field=f"elements[{k}]", value=text) from error


def _joined(parts: Sequence[str | int]) -> list[str | int]:
    """Return the parts with neighbouring texts made one."""
    joined: list[str | int] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _lines(message: Message) -> list[tuple[str, int | None]]:
    """Return the lines of a turn: the text of each, and the medium that stands in it."""
    lines: list[tuple[str, int | None]] = [("", None)]
    for part in message.parts:
        if isinstance(part, MediaPart):
            lines[-1] = (lines[-1][0], part.index)
        elif isinstance(part, TextPart):
            head, *others = part.text.split("\n")
            lines[-1] = (lines[-1][0] + head, lines[-1][1])
            lines += [(text, None) for text in others]
    return lines
