"""Layouts as JSON, exactly and back: `{"id", "canvas": {"w", "h"}, "elements": [{"idx", "type", "bbox", ...}, ...]}`.

The elements of a file may stand in any order and say which they are (`idx`, from 0); a brief is the same without
`bbox`. What an element does not say has the default of `mmalign.formats.layout.Element`. Errors name the element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.layout import Box, Brief, Element, Layout
from mmalign.formats.media import MediaRef

_KEYS = {
    "type": "kind",
    "category": "category",
    "z": "z",
    "angle": "angle_deg",
    "opacity": "opacity",
    "text": "text",
    "font": "font",
    "font_size": "font_size_px",
    "color": "colour",
    "text_align": "text_align",
    "asset": "asset",
}
"""Key of an element -> field of `Element`."""
_DEFAULTS = Element(kind="image")


def to_json(layout: Layout) -> dict[str, Any]:
    """Return the layout as plain JSON values; what has its default is left out."""
    made = brief_to_json(layout.brief)
    for element, box in zip(made["elements"], layout.boxes, strict=True):
        element["bbox"] = list(box.values())
    return made


def brief_to_json(brief: Brief) -> dict[str, Any]:
    """Return a brief as plain JSON values."""
    return {
        "id": brief.id,
        "canvas": {"w": brief.width_px, "h": brief.height_px},
        "elements": [{"idx": k, **element_to_json(element)} for k, element in enumerate(brief.elements)],
    }


def element_to_json(element: Element) -> dict[str, Any]:
    """Return what an element says, its kind first."""
    said: dict[str, Any] = {"type": element.kind}
    for key, name in _KEYS.items():
        value = getattr(element, name)
        if name != "kind" and value != getattr(_DEFAULTS, name):
            said[key] = _plain(value)
    return said


def _plain(value: Any) -> Any:
    if isinstance(value, MediaRef):
        return value.uri if value.content is None else value.data_uri("image/png")
    return list(value) if isinstance(value, tuple) else value


def from_json(raw: Any) -> Layout:
    """Return the layout that JSON values hold.

    Raises:
        RowError: a key is missing, unknown or out of bounds, an element stands twice or not at all; it is named.
    """
    brief = brief_from_json(raw)
    boxes = []
    for k, entry in enumerate(_ordered(raw["elements"])):
        if "bbox" not in entry:
            raise RowError("element has no box", field=f"elements[{k}].bbox", hint=brief.elements[k].named())
        boxes.append(box_of(entry["bbox"], k, brief.elements[k]))
    return Layout(brief=brief, boxes=tuple(boxes))


def brief_from_json(raw: Any) -> Brief:
    """Return the brief that JSON values hold; boxes, where there are any, are left out.

    Raises:
        RowError: as `from_json`.
    """
    if not isinstance(raw, Mapping) or not isinstance(raw.get("canvas"), Mapping):
        hint = 'write {"canvas": {"w": ..., "h": ...}, "elements": [...]}'
        raise RowError("layout has no canvas", field="canvas", value=type(raw).__name__, hint=hint)
    canvas = raw["canvas"]
    elements = tuple(element_from_json(entry, k) for k, entry in enumerate(_ordered(raw.get("elements"))))
    name = raw.get("id", "")
    return Brief(id=name, width_px=canvas.get("w"), height_px=canvas.get("h"), elements=elements)


def element_from_json(raw: Mapping[str, Any], k: int) -> Element:
    """Return the element that JSON values say, element `k` of its layout.

    Raises:
        RowError: a key is unknown, or its value is no such thing.
    """
    unknown = next((key for key in raw if key not in _KEYS and key not in ("idx", "bbox")), None)
    if unknown is not None:
        hint = f"known are idx, bbox, {', '.join(_KEYS)}"
        raise RowError("element has a key that is not read", field=f"elements[{k}]", value=unknown, hint=hint)
    if "type" not in raw:
        raise RowError("element has no type", field=f"elements[{k}].type")
    said = {_KEYS[key]: value for key, value in raw.items() if key in _KEYS and value is not None}
    try:
        if isinstance(said.get("colour"), list):
            said["colour"] = tuple(said["colour"])
        if "asset" in said:
            said["asset"] = MediaRef.parse("image", said["asset"], field="asset")
        return Element(**said)
    except RowError as error:
        raise located(error, f"elements[{k}]") from error


def box_of(raw: Any, k: int, element: Element) -> Box:
    """Return the box `[x, y, width, height]` of element `k`.

    Raises:
        RowError: it is no such list, not finite, empty or giant; the message names the element.
    """
    if isinstance(raw, str) or not isinstance(raw, Sequence) or len(raw) != 4:
        hint = f"write [x, y, width, height]; the element is {element.named()}"
        raise RowError("box is not four numbers", field=f"elements[{k}].bbox", value=raw, hint=hint)
    try:
        return Box(x=raw[0], y=raw[1], width=raw[2], height=raw[3])
    except RowError as error:
        raise located(error, f"elements[{k}].bbox", element) from error


def located(error: RowError, where: str, element: Element | None = None) -> RowError:
    """Return the same refusal, told of a place inside a layout and of the element that stands there."""
    field = where if not error.field or element is not None else f"{where}.{error.field}"
    about = f"the element is {element.named()}" if element is not None else ""
    hint = "; ".join(said for said in (error.hint, about) if said)
    return RowError(error.reason, field=field, value=error.value, hint=hint)


def _ordered(elements: Any) -> list[Mapping[str, Any]]:
    """Return the elements by their `idx`; where none has one they stand in order."""
    if not isinstance(elements, list) or not all(isinstance(entry, Mapping) for entry in elements):
        raise RowError("elements must be a list of objects", field="elements", value=elements)
    if not any("idx" in entry for entry in elements):
        return list(elements)
    return in_order([(entry.get("idx"), entry) for entry in elements], len(elements), "elements")


def in_order(entries: Sequence[tuple[Any, Any]], count: int, field: str, names: Sequence[str] = ()) -> list[Any]:
    """Return entries by their number; each number from 0 to `count` - 1 must stand exactly once.

    Args:
        entries: number and entry, in any order.
        names: how messages speak of each number, where that is known.

    Raises:
        RowError: a number is none, is missing, stands twice or is too large.
    """
    found: dict[int, Any] = {}
    for number, entry in entries:
        if isinstance(number, bool) or not isinstance(number, int):
            raise RowError("element has no number", field=field, value=entry, hint="idx counts from 0")
        if not 0 <= number < count:
            hint = f"there are elements 0 to {count - 1}"
            raise RowError("element does not exist", field=f"{field}[{number}]", value=number, hint=hint)
        if number in found:
            hint = f"it is {names[number]}" if names else "idx counts from 0, each number once"
            raise RowError("element stands twice", field=f"{field}[{number}]", value=number, hint=hint)
        found[number] = entry
    missing = [number for number in range(count) if number not in found]
    if missing:
        hint = f"it is {names[missing[0]]}" if names else f"{len(missing)} are missing"
        raise RowError("element is missing", field=f"{field}[{missing[0]}]", value=missing[0], hint=hint)
    return [found[number] for number in range(count)]
