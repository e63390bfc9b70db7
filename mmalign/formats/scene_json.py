"""Scenes as text, exactly and back: what `json.dumps` writes, in ReSpace's order of keys.

    {"room_type": ..., "bounds_top": [[x, y, z], ...], "bounds_bottom": [...], "objects": [{"desc": ..., "size": [...],
    "pos": [...], "rot": [...]}, ...]}

Keys may stand in any order when read. The object that ReSpace's released model writes has the order desc, pos, rot,
size, for reasons of its data's storage; `compat="official"` writes that one. Errors name the object and the rule.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.compat import Compat, require_compat
from mmalign.formats.scene import Scene, SceneObject

OBJECT_KEYS = {"corrected": ("desc", "size", "pos", "rot"), "official": ("desc", "pos", "rot", "size")}
_ASSET = "jid"
_RUNTIME_KEYS = ("sampled_asset_jid", "sampled_asset_desc", "sampled_asset_size", "uuid", "prompt")
"""What ReSpace's program adds to objects while it runs; left out before a model sees them."""
_ROOM_KEYS = ("room_type", "bounds_top", "bounds_bottom", "objects")
_OTHER_KEYS = ("room_id",)


def write(scene: Scene) -> str:
    """Return a scene as text, ids of assets included where it has any; `read` gives it back."""
    return json.dumps(to_json(scene))


def write_object(item: SceneObject, compat: Compat = "corrected") -> str:
    """Return one object as text, the answer to an `<add>`."""
    return json.dumps(object_to_json(item, compat))


def read(text: str) -> Scene:
    """Return the scene that a text holds.

    Raises:
        RowError: it is no JSON, or no scene; the message names the object and the rule.
    """
    return from_json(_loaded(text))


def read_object(text: str) -> SceneObject:
    """Return the object that a text holds.

    Raises:
        RowError: it is no JSON, or no object; the message names the rule.
    """
    return object_from_json(_loaded(text), "object")


def to_json(scene: Scene) -> dict[str, Any]:
    """Return the scene as plain JSON values."""
    return {
        "room_type": scene.room_type,
        "bounds_top": [list(corner) for corner in scene.bounds_top],
        "bounds_bottom": [list(corner) for corner in scene.bounds_bottom],
        "objects": [object_to_json(item) for item in scene.objects],
    }


def object_to_json(item: SceneObject, compat: Compat = "corrected") -> dict[str, Any]:
    """Return an object as plain JSON values, in one of the two orders of keys."""
    require_compat(compat)
    made = {name: _plain(getattr(item, name)) for name in OBJECT_KEYS[compat]}
    return made if item.asset is None else {**made, _ASSET: item.asset}


def from_json(raw: Any) -> Scene:
    """Return the scene that JSON values hold.

    Raises:
        RowError: a key is missing, unknown, or holds what cannot be; the message names it.
    """
    if not isinstance(raw, Mapping):
        raise RowError("scene is no object", value=raw, hint=f"it has the keys {', '.join(_ROOM_KEYS)}")
    _require_keys(raw, _ROOM_KEYS, _OTHER_KEYS, "scene")
    objects = raw["objects"]
    if not isinstance(objects, list):
        raise RowError("objects must be a list", field="objects", value=objects)
    return Scene(
        room_type=raw["room_type"],
        bounds_top=_corners(raw["bounds_top"], "bounds_top"),
        bounds_bottom=_corners(raw["bounds_bottom"], "bounds_bottom"),
        objects=tuple(object_from_json(entry, f"objects[{k}]") for k, entry in enumerate(objects)),
    )


def object_from_json(raw: Any, where: str) -> SceneObject:
    """Return the object that JSON values hold, told of as `where`.

    Raises:
        RowError: as `from_json`.
    """
    if not isinstance(raw, Mapping):
        hint = f"it has the keys {', '.join(OBJECT_KEYS['corrected'])}"
        raise RowError("object is none", field=where, value=raw, hint=hint)
    _require_keys(raw, OBJECT_KEYS["corrected"], (_ASSET, *_RUNTIME_KEYS), where)
    said = {name: _vector(raw[name]) for name in OBJECT_KEYS["corrected"]}
    try:
        return SceneObject(**said, asset=raw.get(_ASSET))
    except RowError as error:
        raise located(error, where, raw["desc"]) from error


def located(error: RowError, where: str, desc: Any) -> RowError:
    """Return the same refusal, told of an object inside a scene."""
    said = f"the object is {desc[:48]!r}" if isinstance(desc, str) and desc.strip() else ""
    hint = "; ".join(part for part in (error.hint, said) if part)
    field = f"{where}.{error.field}" if error.field else where
    return RowError(error.reason, field=field, value=error.value, hint=hint)


def _require_keys(raw: Mapping[str, Any], needed: Sequence[str], others: Sequence[str], where: str) -> None:
    missing = next((name for name in needed if name not in raw), None)
    if missing is not None:
        desc = raw.get("desc")
        about = f"; it is {desc[:48]!r}" if isinstance(desc, str) and desc else ""
        hint = f"needed are {', '.join(needed)}{about}"
        raise RowError("key is missing", field=where, value=missing, hint=hint)
    unknown = next((name for name in raw if name not in needed and name not in others), None)
    if unknown is not None:
        hint = f"known are {', '.join((*needed, *others))}"
        raise RowError("key is not read", field=where, value=unknown, hint=hint)


def _corners(raw: Any, field: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise RowError("corners must be a list", field=field, value=raw, hint="write [[x, y, z], ...]")
    return tuple(_vector(corner) for corner in raw)


def _vector(raw: Any) -> Any:
    return tuple(raw) if isinstance(raw, list) else raw


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowError("answer is not JSON", field="answer", value=text, hint=str(error)) from error
