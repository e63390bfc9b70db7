"""Media in the terminal: how large each is, which frames of it a model gets to see, or why it cannot be read."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from mmalign.errors import RowError
from mmalign.formats.media import MediaKind, MediaRef
from mmalign.modalities import fetch
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.table import MODALITIES
from mmalign.modalities.video import ClipShape
from mmalign.recipes.terminal import safe
from mmalign.report.media_shelf import described

MOST_MEDIA = 100
_MOST_FRAMES = 12


def media_table(
    named: Iterable[tuple[str, MediaRef]], limits: Mapping[MediaKind, MediaLimits]
) -> tuple[RenderableType, int]:
    """Return a table with a line a medium, and how many of them cannot be read.

    Args:
        named: what to call each medium, and where it is.
        limits: by kind of media, what they may be.
    """
    table = Table("", "where", "what", box=None, header_style="dim", pad_edge=False)
    refused = 0
    for name, ref in named:
        try:
            said = _facts(ref, limits[ref.kind])
        except RowError as error:
            said = f"[red]{safe(error.reason)}[/]" + (f" [dim]({safe(error.hint)})[/]" if error.hint else "")
            refused += 1
        table.add_row(name, safe(fetch.shown(ref)[:80]), said)
    return table, refused


def _facts(ref: MediaRef, limits: MediaLimits) -> str:
    """Return what a model would see of a medium."""
    shape = MODALITIES[ref.kind].check(ref, limits)
    taken = _taken(shape, ref, limits)
    return safe(described(shape)) + (f"\n{taken}" if taken else "")


@functools.singledispatch
def _taken(shape: Any, ref: MediaRef, limits: MediaLimits) -> str:
    """Return which parts of a medium are taken, where a modality takes parts: it is decoded for that."""
    return ""


@_taken.register
def _(shape: ClipShape, ref: MediaRef, limits: MediaLimits) -> str:
    clip = MODALITIES[ref.kind].load(ref, limits)
    moments = list(zip(clip.indices, clip.timestamps_s, strict=True))
    said = ", ".join(f"{index} ({moment:.2f} s)" for index, moment in moments[:_MOST_FRAMES])
    more = len(moments) - _MOST_FRAMES
    return f"[dim]taken are[/] {said}" + (f" [dim]and {more} more[/]" if more > 0 else "")
