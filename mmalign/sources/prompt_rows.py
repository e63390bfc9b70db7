"""Rows as prompts: any format that is read, its answers left out, and rows that have no answer to begin with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmalign.formats.preference import Preference
from mmalign.formats.prompt import Prompt
from mmalign.sources import detect
from mmalign.sources.quarantine import Refusal
from mmalign.sources.read import RawRow

_MEDIA = ("image", "images", "video", "videos", "media", "media_facts", "media_order")
_ANSWERLESS = frozenset(("id", "idx", "prompt", *_MEDIA, "tags", "provenance", "weight", "difficulty"))
_UNREAD = "-"


def read_prompts(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    on_refused: Callable[[Refusal], None],
    allow_network: bool = False,
) -> Iterator[Prompt]:
    """Yield the prompts of a file, folder or hub id in their order; arguments and errors as in `detect.read`.

    A row that has a column `prompt` and no answer is read as a row with one would be: by the columns `prompt` (a text
    or a list of turns), `images` and `videos`, with an `id` or without.
    """
    how = {"format": format, "on_refused": on_refused, "allow_network": allow_network}
    yield from map(Prompt.of, detect.read(path, parse=_parse, **how))


def _parse(raw: RawRow, format: str | None) -> Preference:
    """Return a row with an answer that nobody reads where it has none."""
    if not _has_no_answer(raw.values):
        return detect.parse(raw, format)
    turn = {"role": "assistant", "content": [{"type": "text", "text": _UNREAD}]}
    is_ours = "id" in raw.values and _has_typed_parts(raw.values["prompt"])
    answer = {"completion": [turn] if isinstance(raw.values["prompt"], list) else _UNREAD}
    return detect.parse(RawRow(raw.file, raw.row, raw.values | ({"chosen": [turn]} if is_ours else answer)), format)


def _has_no_answer(values: Mapping[str, Any]) -> bool:
    given = {name for name, value in values.items() if value not in (None, "", [])}
    return "prompt" in given and given <= _ANSWERLESS


def _has_typed_parts(prompt: Any) -> bool:
    return isinstance(prompt, list) and all(
        isinstance(turn, Mapping) and isinstance(turn.get("content"), list) for turn in prompt
    )
