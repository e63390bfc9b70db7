"""Rows of graphic layouts: our own JSON, Crello's templates, and WebUI's pages.

Every row becomes the task of placing its elements (`mmalign.formats.layout_task`): a row with one layout is a
demonstration, one with `chosen` and `rejected`, or `layouts` best first (each a list of boxes, or `{"boxes",
"score"}`), is a preference over layouts of the same elements. Boxes are told as JSON on a grid of 128 bins, by the
format `layout_tokens` as position tokens; a row may say otherwise (`form`, `bins`, `overflow`).

Crello (huggingface.co/datasets/cyberagent/crello): lists over elements in the order of painting; `left`, `top`,
`width`, `height` are fractions of the canvas and may lie beyond it; `image` is the rendered element. Class labels must
be decoded to their names. A picture that is painted first and covers the canvas is a background too. `angle` is read
as radians, and that is from memory, as is which names the types have.

WebUI (huggingface.co/datasets/biglab/webui-70k-elements): one screenshot with boxes in pixels, of which leaves are
kept: those that hold no other box, lie on the page and cover a thousandth of it or more. That `contentBoxes` are left,
top, right and bottom is from memory. Elements are what their labels say. The screenshot shows the answer, so it is no
medium of the row; `mmalign.modalities.layout.cut_out` gives elements their pictures out of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.errors import ConfigError, RowError
from mmalign.formats.layout import Box, Element, ElementKind, Layout
from mmalign.formats.layout import Brief as _Brief
from mmalign.formats.layout_json import box_of, brief_from_json, from_json, located
from mmalign.formats.layout_task import Task
from mmalign.formats.layout_text import Form, Grid
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference
from mmalign.sources.candidates import number

_BACKGROUND = {"idx": 0, "type": "background", "bbox": [0, 0, 1, 1], "color": [250, 244, 230]}
_TITLE = {"idx": 1, "type": "text", "text": "Summer sale"}
_BUTTON = {"idx": 2, "type": "shape", "category": "rounded", "color": [200, 60, 40]}
_CANVAS = {"w": 1080, "h": 1350}
EXAMPLES = {
    "our JSON: a demonstration": {
        "id": "sale-1",
        "canvas": _CANVAS,
        "elements": [
            _BACKGROUND,
            {**_TITLE, "bbox": [0.1, 0.1, 0.8, 0.2]},
            {**_BUTTON, "bbox": [0.1, 0.75, 0.4, 0.1]},
        ],
    },
    "our JSON: two layouts of the same elements": {
        "id": "sale-2",
        "canvas": _CANVAS,
        "elements": [_BACKGROUND, _TITLE, _BUTTON],
        "chosen": [[0, 0, 1, 1], [0.1, 0.1, 0.8, 0.2], [0.1, 0.75, 0.4, 0.1]],
        "rejected": [[0, 0, 1, 1], [0.1, 0.1, 0.8, 0.2], [0.13, 0.25, 0.4, 0.1]],
    },
    "Crello": {
        "id": "592d6c2c95a7a863ddcda140",
        "canvas_width": 1080,
        "canvas_height": 1350,
        "length": 2,
        "type": ["coloredBackground", "textElement"],
        "left": [0.0, 0.1],
        "top": [0.0, 0.1],
        "width": [1.0, 0.8],
        "height": [1.0, 0.2],
        "angle": [0.0, 0.0],
        "opacity": [1.0, 1.0],
        "text": ["", "Summer sale"],
    },
    "WebUI": {
        "image": "default_1280-720-screenshot.png",
        "key_name": "default_1280-720",
        "labels": [["WebArea"], ["heading"], ["button"]],
        "contentBoxes": [[0, 0, 1280, 720], [64, 48, 700, 112], [64, 300, 264, 360]],
    },
}
NEEDS = ("canvas", "elements")

CRELLO_KINDS: Mapping[str, ElementKind] = {
    "coloredBackground": "background",
    "imageElement": "image",
    "maskElement": "image",
    "svgElement": "shape",
    "textElement": "text",
}
WEB_KINDS: Mapping[str, ElementKind] = {
    **dict.fromkeys(("StaticText", "heading", "paragraph", "text", "label", "link"), "text"),
    **dict.fromkeys(("img", "image", "figure", "graphics-document"), "image"),
}
SMALLEST_WEB_SHARE = 0.001
_COVERS = 0.99
_VIEWPORT = re.compile(r"(\d{2,5})[-x](\d{2,5})")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row is a layout of one of the three kinds."""
    return _reader(values) is not None


def parse(values: Mapping[str, Any], form: Form = "json") -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: the row has no layout, or an element of it cannot be; the message names the element.
    """
    grid = _grid(values)
    form = values.get("form") or form
    answers = _answers(values)
    layouts, facts = ([layout_of(values)], [{}]) if answers is None else answers
    try:
        task = Task(brief=layouts[0].brief, grid=grid, form=form)
    except ConfigError as error:
        raise RowError("form of layouts is unknown", field="form", value=form, hint="use json or tokens") from error
    responses = [task.response(layout, **known) for layout, known in zip(layouts, facts, strict=True)]
    beyond = sum(bool(grid.beyond(layout)) for layout in layouts)
    tags = {"overflow": "cut"} if beyond else {}
    return task.row(_name(values), responses, tags=tags)


def layout_of(values: Mapping[str, Any]) -> Layout:
    """Return the layout that stands in a row.

    Raises:
        RowError: as `parse`.
    """
    read = _reader(values)
    if read is None:
        hint = "a row has canvas and elements, or Crello's or WebUI's columns"
        raise RowError("row holds no layout", field="columns", value=sorted(map(str, values)), hint=hint)
    return read(values)


def _reader(values: Mapping[str, Any]) -> Any:
    if isinstance(values.get("canvas"), Mapping) and isinstance(values.get("elements"), list):
        return _ours
    if "canvas_width" in values and all(isinstance(values.get(name), list) for name in ("type", "left", "top")):
        return _crello
    if isinstance(values.get("contentBoxes"), list) and isinstance(values.get("labels"), list):
        return _web_page
    return None


# ---- our own rows ----------------------------------------------------------------------------------------------


def _ours(values: Mapping[str, Any]) -> Layout:
    return from_json({name: values.get(name) for name in ("canvas", "elements")} | {"id": _name(values)})


def _answers(values: Mapping[str, Any]) -> tuple[list[Layout], list[dict[str, Any]]] | None:
    """Return the layouts of a row that compares some, best first, and what is known of each; None for other rows."""
    listed = values.get("layouts")
    if listed is None and values.get("chosen") is None:
        return None
    raw = listed if listed is not None else [values.get("chosen"), values.get("rejected")]
    if not isinstance(raw, list) or not raw:
        raise RowError("layouts must be a list, best first", field="layouts", value=raw)
    named = [f"layouts[{k}]" for k in range(len(raw))] if listed is not None else ["chosen", "rejected"]
    brief = brief_from_json({name: values.get(name) for name in ("canvas", "elements")} | {"id": _name(values)})
    layouts, facts = [], []
    for name, entry in zip(named, raw, strict=True):
        score = entry.get("score") if isinstance(entry, Mapping) else None
        boxes = entry.get("boxes") if isinstance(entry, Mapping) else entry
        facts.append({} if score is None else {"score": number(score, f"{name}.score")})
        layouts.append(_boxed(brief, boxes, name))
    return layouts, facts


def _boxed(brief: _Brief, boxes: Any, name: str) -> Layout:
    if not isinstance(boxes, list) or len(boxes) != len(brief.elements):
        hint = f"one box for each of {len(brief.elements)} elements, in their order"
        raise RowError("layout needs one box for every element", field=name, value=boxes, hint=hint)
    try:
        made = tuple(box_of(raw, k, brief.elements[k]) for k, raw in enumerate(boxes))
    except RowError as error:
        raise RowError(error.reason, field=f"{name}.{error.field}", value=error.value, hint=error.hint) from error
    return Layout(brief=brief, boxes=made)


def _name(values: Mapping[str, Any]) -> str:
    return str(values.get("id") or "")


def _grid(values: Mapping[str, Any]) -> Grid:
    usual = Grid()
    bins, overflow = values.get("bins"), values.get("overflow")
    try:
        return Grid(
            bins=usual.bins if bins is None else int(number(bins, "bins")),
            overflow=usual.overflow if overflow is None else number(overflow, "overflow"),
        )
    except ConfigError as error:
        raise RowError("grid is out of bounds", field="bins", value=bins, hint=str(error)) from error


# ---- Crello ----------------------------------------------------------------------------------------------------


def _crello(values: Mapping[str, Any]) -> Layout:
    kinds = values["type"]
    columns = {name: _column(values, name, len(kinds)) for name in ("left", "top", "width", "height")}
    optional = {
        name: _column(values, name, len(kinds))
        for name in ("angle", "opacity", "text", "image", "font_size", "text_align")
        if values.get(name) is not None
    }
    boxes = [box_of([column[k] for column in columns.values()], k, Element(kind="image")) for k in range(len(kinds))]
    elements = []
    for k, name in enumerate(kinds):
        try:
            elements.append(_crello_element(name, {key: column[k] for key, column in optional.items()}, boxes[k], k))
        except RowError as error:
            raise located(error, f"elements[{k}]") from error
    brief = _Brief(
        id=_name(values),
        width_px=_side(values, "canvas_width"),
        height_px=_side(values, "canvas_height"),
        elements=tuple(elements),
    )
    return Layout(brief=brief, boxes=tuple(boxes))


def _crello_element(name: Any, said: Mapping[str, Any], box: Box, k: int) -> Element:
    if name not in CRELLO_KINDS:
        hint = f"known are {', '.join(CRELLO_KINDS)}; decode class labels with dataset.features"
        raise RowError("kind of element is unknown", field="type", value=name, hint=hint)
    kind = CRELLO_KINDS[name]
    covers = box.x <= 1 - _COVERS and box.y <= 1 - _COVERS and min(box.right, box.bottom) >= _COVERS
    if kind == "image" and k == 0 and covers:
        kind = "background"
    picture = said.get("image")
    size = said.get("font_size")
    align = said.get("text_align")
    return Element(
        kind=kind,
        category=name,
        angle_deg=math.degrees(number(said.get("angle") or 0.0, "angle")),
        opacity=number(1.0 if said.get("opacity") is None else said["opacity"], "opacity"),
        text=(said.get("text") or None) if kind == "text" else None,
        font_size_px=size if kind == "text" and size else None,
        text_align=align if kind == "text" and isinstance(align, str) and align else None,
        asset=None if not picture else MediaRef.parse("image", picture, field="image"),
    )


def _column(values: Mapping[str, Any], name: str, length: int) -> Sequence[Any]:
    column = values.get(name)
    if not isinstance(column, list) or len(column) != length:
        hint = f"the column type has {length} entries"
        raise RowError("columns of elements are not equally long", field=name, value=column, hint=hint)
    return column


def _side(values: Mapping[str, Any], name: str) -> int:
    return round(number(values.get(name), name))


# ---- WebUI -----------------------------------------------------------------------------------------------------


def _web_page(values: Mapping[str, Any]) -> Layout:
    values.get("image")  # seen and left out on purpose: the screenshot shows the answer
    labels, name = values["labels"], str(values.get("key_name") or values.get("id") or "")
    raw = _column({"contentBoxes": values["contentBoxes"]}, "contentBoxes", len(labels))
    edges = [_edges(box, k) for k, box in enumerate(raw)]
    said = _VIEWPORT.search(name)
    sides = said.groups() if said else [max((box[side] for box in edges), default=1.0) for side in (2, 3)]
    width, height = (max(1, round(float(side))) for side in sides)
    kept = [k for k in _leaves(edges) if _is_on_page(edges[k], width, height)]
    elements, boxes = [], []
    for k in kept:
        words = [str(label) for label in labels[k]] if isinstance(labels[k], list) else [str(labels[k])]
        kind = next((WEB_KINDS[word] for word in words if word in WEB_KINDS), "shape")
        left, top, right, bottom = edges[k]
        elements.append(Element(kind=kind, category=" ".join(words)))
        place = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        boxes.append(box_of(place, k, elements[-1]))
    brief = _Brief(id=name, width_px=width, height_px=height, elements=tuple(elements))
    return Layout(brief=brief, boxes=tuple(boxes))


def _edges(box: Any, k: int) -> tuple[float, ...]:
    if not isinstance(box, list) or len(box) != 4:
        raise RowError("box is not four numbers", field=f"contentBoxes[{k}]", value=box)
    return tuple(number(side, f"contentBoxes[{k}]") for side in box)


def _leaves(edges: Sequence[tuple[float, ...]]) -> list[int]:
    """Return the positions of boxes that hold no other; of equal ones the first."""

    def holds(outer: tuple[float, ...], inner: tuple[float, ...]) -> bool:
        return all(outer[side] <= inner[side] for side in (0, 1)) and all(outer[side] >= inner[side] for side in (2, 3))

    return [
        k
        for k, box in enumerate(edges)
        if not any(holds(box, other) and (other != box or j < k) for j, other in enumerate(edges) if j != k)
    ]


def _is_on_page(box: tuple[float, ...], width: int, height: int) -> bool:
    left, top, right, bottom = box
    seen = max(0.0, min(right, width) - max(left, 0.0)) * max(0.0, min(bottom, height) - max(top, 0.0))
    return right > left and bottom > top and seen >= SMALLEST_WEB_SHARE * width * height
