"""What pages are made of, as plain records: examples with answers, large figures, pictures that fit into a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from mmalign.report.svg import figure

LONGEST_SIDE_PX = 360
"""Pictures inside a page are made this small."""

_ENLARGE_BELOW_PX = 160
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of an example.

    Args:
        label: who answers ("before", "after", "chosen").
        text: shown as it is, never as HTML.
        verdict: colours the answer.
        note: what is right or wrong with it.
        marks: characters (start, end) of `text` that are wrong.
    """

    label: str
    text: str
    verdict: Literal["good", "bad", ""] = ""
    note: str = ""
    marks: tuple[tuple[int, int], ...] = ()

    def pieces(self) -> list[tuple[str, bool]]:
        """Return the text cut into pieces, each with whether it is marked."""
        pieces: list[tuple[str, bool]] = []
        at = 0
        for start, end in sorted(self.marks):
            start, end = max(start, at), min(end, len(self.text))
            if start >= end:
                continue
            pieces += [(self.text[at:start], False), (self.text[start:end], True)]
            at = end
        pieces.append((self.text[at:], False))
        return [piece for piece in pieces if piece[0]]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A prompt with its pictures and answers.

    Args:
        prompt: what was asked.
        answers: in the order in which they are shown.
        images: what `data_uri` takes.
        truth: what is right, where it is known.
        title: shown above, e.g. the row's id.
    """

    prompt: str
    answers: tuple[Answer, ...]
    images: tuple[Path | bytes | Image.Image, ...] = ()
    truth: str = ""
    title: str = ""

    def pictures(self) -> list[Picture]:
        """Return the pictures, ready to stand in the page."""
        return [picture(image) for image in self.images]


@dataclass(frozen=True)
class Picture:
    """A picture inside a page.

    Args:
        uri: a data URI, or "" when the file cannot be read.
        alt: its size, or why there is no picture.
        tiny: so small that it should be enlarged with sharp pixels.
    """

    uri: str
    alt: str
    tiny: bool = False


def picture(image: Path | bytes | Image.Image, longest_px: int = LONGEST_SIDE_PX) -> Picture:
    """Return `image` as a small picture inside the page; one that cannot be read says so in its place."""
    try:
        opened = image if isinstance(image, Image.Image) else _open(image)
        width, height = opened.size
        small = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        return Picture("", f"no picture: {error}")
    small.thumbnail((longest_px, longest_px))
    tiny = max(width, height) <= _ENLARGE_BELOW_PX
    kind = "PNG" if tiny else "JPEG"
    buffer = io.BytesIO()
    small.save(buffer, kind, **({"optimize": True} if tiny else {"quality": 82}))
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:{_TYPES[kind]};base64,{encoded}", f"picture, {width} by {height} pixels", tiny)


def _open(image: Path | bytes) -> Image.Image:
    return Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One large figure: what it is, its value, a few words beside it, and what it means."""

    title: str
    value: str | Markup
    beside: str = ""
    meaning: str = ""


def from_to(first: float | str, last: float | str) -> Markup:
    """Return two figures with an arrow between them, the last one large."""
    shown = (value if isinstance(value, str) else figure(value) for value in (first, last))
    return Markup("<small>{} \N{RIGHTWARDS ARROW}</small> {}").format(*shown)


def spread(items: Sequence, most: int) -> list:
    """Return at most `most` items, evenly spread over `items`, first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]
