"""Layouts: the verbs of an answer that is one. See `mmalign.modalities.answers` for who calls them.

A row asks for a layout in its prompt (`mmalign.formats.layout_task`) and holds boxes as its answers; a picture of an
answer needs both.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

from PIL import Image

from mmalign.formats.layout import Layout
from mmalign.formats.layout_task import Task, asks_for_layout, task_of
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference, Response
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.layout_fonts import typeface
from mmalign.modalities.layout_perturb import perturb as perturb_layout
from mmalign.modalities.layout_render import paint
from mmalign.modalities.layout_scores import score

__all__ = ["LayoutFacts", "asks_for", "check", "cut_out", "load", "perturb", "render"]

asks_for = asks_for_layout


@dataclass(frozen=True, kw_only=True)
class LayoutFacts:
    """What people are told of a layout; the scores are those of `layout_scores`."""

    elements: int
    beyond_canvas: int
    alignment: float
    overlap: float
    balance: float
    set_in: str


def load(row: Preference, response: Response) -> Layout:
    """Return the layout that an answer of a row describes.

    Raises:
        RowError: the prompt or the answer is none; the message names the element.
    """
    return task_of(row).layout(response.text)


def check(row: Preference, response: Response) -> LayoutFacts:
    """Return what the answer of a row is, without drawing it.

    Raises:
        RowError: as `load`.
    """
    layout = load(row, response)
    scores = score(layout)
    texts = [element for element in layout.brief.elements if element.kind == "text" and element.asset is None]
    return LayoutFacts(
        elements=len(layout.boxes),
        beyond_canvas=len(layout.overflowing()),
        alignment=scores["alignment"],
        overlap=scores["overlap"],
        balance=scores["balance"],
        set_in=", ".join(dict.fromkeys(typeface(element.font) for element in texts)) or "pictures",
    )


def render(row: Preference, response: Response, limits: ImageLimits, max_pixels: int = 200_704) -> MediaRef:
    """Return the answer of a row as a picture to look at.

    Raises:
        RowError: as `load`, and where the picture of an element cannot be read.
    """
    buffer = io.BytesIO()
    paint(load(row, response), limits, max_pixels).save(buffer, format="PNG")
    return MediaRef(kind="image", content=buffer.getvalue())


def perturb(row: Preference, response: Response, how: str, *, seed: int, strength: float = 0.5) -> Response:
    """Return a worse answer to a row; see `layout_perturb.perturb`.

    Raises:
        ConfigError, RowError: as there, and as `load`.
    """
    task: Task = task_of(row)
    return task.response(perturb_layout(task.layout(response.text), how, seed=seed, strength=strength))


def cut_out(layout: Layout, screenshot: Image.Image) -> Layout:
    """Return the layout with a picture for every element, cut out of a picture of the whole.

    Args:
        screenshot: of the canvas in any size; elements beyond it keep what they have.
    """
    elements = []
    for element, box in zip(layout.brief.elements, layout.boxes, strict=True):
        sides = (screenshot.width, screenshot.height) * 2
        left, top, right, bottom = (round(edge * side) for edge, side in zip(box.edges(), sides, strict=True))
        left, top = max(0, left), max(0, top)
        right, bottom = min(screenshot.width, right), min(screenshot.height, bottom)
        if left < right and top < bottom:
            buffer = io.BytesIO()
            screenshot.crop((left, top, right, bottom)).save(buffer, format="PNG")
            element = replace(element, asset=MediaRef(kind="image", content=buffer.getvalue()))
        elements.append(element)
    return replace(layout, brief=replace(layout.brief, elements=tuple(elements)))
