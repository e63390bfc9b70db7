"""Rows of furnished rooms, as ReSpace has them: a whole scene, or an edit of one with its answers.

Every row becomes the task of editing a scene (`mmalign.formats.scene_task`). A whole scene, alone or under `scene` as
in the data set SSR-3DFRONT, is a demonstration: its last object is the answer, the ones before it stand in the room,
and three words of its description ask for it, or `instruction` does. A row with `scene`, `instruction`
(`<add>...</add>` or `<remove>...</remove>`) and `chosen` with `rejected`, or `answers` best first (each an answer, or
`{"answer", "score"}`), compares answers: objects for an addition, scenes for a removal. The best answer must be one; of
the others, what cannot be read stands as it is written, since it is a worse answer all the same.

Ids of assets (`jid`) and what ReSpace's program adds while it runs are read and not shown to a model. Scenes with an
open or crossing floor, quaternions that are not of length 1, sizes that are not positive or keys that are missing are
refused, the object and the rule named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference, Response
from mmalign.formats.scene_commands import read_command
from mmalign.formats.scene_json import from_json, object_from_json
from mmalign.formats.scene_task import Edit, Task
from mmalign.formats.scene_words import short_phrase
from mmalign.sources.candidates import number

_ROOM = {
    "room_type": "bedroom",
    "bounds_top": [[-2.0, 2.6, 1.5], [2.0, 2.6, 1.5], [2.0, 2.6, -1.5], [-2.0, 2.6, -1.5]],
    "bounds_bottom": [[-2.0, 0.0, 1.5], [2.0, 0.0, 1.5], [2.0, 0.0, -1.5], [-2.0, 0.0, -1.5]],
}
_BED = {
    "desc": "Modern gray fabric bed with a wooden frame.",
    "size": [1.6, 0.9, 2.0],
    "pos": [0.0, 0.0, -0.45],
    "rot": [0, 0, 0, 1],
}
_STAND = {
    "desc": "Oak nightstand with one drawer.",
    "size": [0.5, 0.5, 0.4],
    "pos": [1.1, 0.0, -1.25],
    "rot": [0, 0, 0, 1],
}
_THROUGH_THE_WALL = {**_STAND, "pos": [1.9, 0.0, -1.25]}
EXAMPLES = {
    "a whole scene: its last object is asked for": {"id": "room-1", **_ROOM, "objects": [_BED, _STAND]},
    "an addition, two answers": {
        "id": "room-2",
        "scene": {**_ROOM, "objects": [_BED]},
        "instruction": "<add>oak nightstand</add>",
        "chosen": _STAND,
        "rejected": _THROUGH_THE_WALL,
    },
    "a removal": {
        "id": "room-3",
        "scene": {**_ROOM, "objects": [_BED, _STAND]},
        "instruction": "<remove>oak nightstand</remove>",
        "answers": [{"answer": {**_ROOM, "objects": [_BED]}, "score": 1.0}],
    },
}
NEEDS = ("room_type", "bounds_top", "bounds_bottom", "objects")
_OUTSIDE_KEYS = ("room_id", *NEEDS)


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row is a scene, or has one."""
    inner = values.get("scene")
    held = inner if isinstance(inner, Mapping) else values
    return all(name in held for name in ("bounds_top", "bounds_bottom"))


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: the row has no scene, or an object of it cannot be; the message names the object and the rule.
    """
    inner = values.get("scene")
    raw = inner if isinstance(inner, Mapping) else {name: values[name] for name in _OUTSIDE_KEYS if name in values}
    scene = _told_of(lambda: from_json(raw), "scene" if inner is not None else "")
    name = str(values.get("id") or raw.get("room_id") or "")
    said = values.get("instruction")
    listed = _answers(values)
    if listed is None:
        if not scene.objects:
            raise RowError("scene has no object to ask for", field="objects", hint="or give an instruction and answers")
        last = scene.objects[-1]
        edit = Edit(verb="add", words=short_phrase(last.desc)) if said is None else read_command(said, "instruction")
        if edit.verb != "add":
            hint = "give chosen and rejected, or answers: scenes without it"
            raise RowError("removal has no answer", field="instruction", value=said, hint=hint)
        task = Task(scene=scene.without(len(scene.objects) - 1), edit=edit)
        return task.row(name, [task.response(scene)])
    if said is None:
        hint = "write <add>...</add> or <remove>...</remove>"
        raise RowError("answers stand without an instruction", field="instruction", hint=hint)
    task = Task(scene=scene, edit=read_command(said, "instruction"))
    responses = [_response(task, field, answer, is_best=k == 0) for k, (field, answer) in enumerate(listed)]
    return task.row(name, responses)


def _told_of(make: Any, where: str) -> Any:
    try:
        return make()
    except RowError as error:
        field = ".".join(part for part in (where, error.field) if part)
        raise RowError(error.reason, field=field, value=error.value, hint=error.hint) from error


def _answers(values: Mapping[str, Any]) -> list[tuple[str, Any]] | None:
    """Return the answers of a row and where each stands, best first; None for a whole scene."""
    listed = values.get("answers")
    if listed is None and values.get("chosen") is None:
        return None
    if listed is None:
        pair = [(name, values.get(name)) for name in ("chosen", "rejected")]
        return [(name, answer) for name, answer in pair if answer is not None]
    if not isinstance(listed, list) or not listed:
        raise RowError("answers must be a list, best first", field="answers", value=listed)
    return [(f"answers[{k}]", answer) for k, answer in enumerate(listed)]


def _response(task: Task, field: str, answer: Any, *, is_best: bool) -> Response:
    facts = {}
    if isinstance(answer, Mapping) and "answer" in answer:
        if answer.get("score") is not None:
            facts["score"] = number(answer["score"], f"{field}.score")
        answer = answer["answer"]
    written = answer if isinstance(answer, str) else json.dumps(answer)
    try:
        return task.response(_after(task, answer), **facts)
    except RowError as error:
        if is_best or not written.strip():
            raise RowError(error.reason, field=f"{field}.{error.field}", value=error.value, hint=error.hint) from error
        return Response.of(written, **facts)


def _after(task: Task, answer: Any) -> Any:
    if isinstance(answer, Mapping) and task.edit.verb == "add":
        return task.scene.added(object_from_json(answer, "object"))
    return task.after(answer if isinstance(answer, str) else json.dumps(answer))
