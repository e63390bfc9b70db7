"""One edit of a scene as a prompt, and back: whoever has the prompt can read the answers to it.

    <instruction>
        <add>gray fabric sofa</add>
    </instruction>
    <scenegraph>
        {"room_type": "livingroom", "bounds_top": ..., "bounds_bottom": ..., "objects": [...]}
    </scenegraph>

The answer to an `<add>` is one object, that to a `<remove>` the scene without it: ReSpace (arXiv:2506.02459), whose
system prompt is told here in our own words. Nothing about the task is kept beside the prompt, so rows of it are
ordinary rows in every file and in every program.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mmalign.errors import RowError
from mmalign.formats.compat import Compat
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.formats.scene import Scene, SceneObject
from mmalign.formats.scene_json import read, read_object, write, write_object
from mmalign.formats.values import require_text

Verb = Literal["add", "remove"]
SYSTEM = {
    "add": (
        "You are an expert interior designer. The header names a piece of furniture, the body lists a room and what "
        "stands in it: metres, y up, pos the middle of the underside, rot a quaternion x y z w. Add the piece where it "
        "fits, inside the room and clear of other objects. Answer with the new object as JSON of the same form and "
        "nothing else."
    ),
    "remove": (
        "You are an expert interior designer. The header names a piece of furniture, the body lists a room and what "
        "stands in it. Take out what the header names and leave everything else as it is. Answer with the whole scene "
        "as JSON of the same form and nothing else."
    ),
}
_PROMPT = re.compile(
    r"<instruction>\n\t<(add|remove)>([^<>\n]*)</\1>\n</instruction>\n<scenegraph>\n\t(.*)\n</scenegraph>"
)
_FIRST = re.compile(r"<instruction>\n\t<(add|remove)>")


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is to be done, and to what: a short noun phrase."""

    verb: Verb
    words: str

    def __post_init__(self) -> None:
        if self.verb not in get_args(Verb):
            hint = f"use one of {', '.join(get_args(Verb))}"
            raise RowError("instruction is unknown", field="instruction", value=self.verb, hint=hint)
        require_text(self.words, "instruction")
        if not self.words.strip() or any(sign in self.words for sign in "<>\n"):
            hint = "a few words on one line, without < and >"
            raise RowError("instruction names no furniture", field="instruction", value=self.words, hint=hint)

    def text(self) -> str:
        """Return the instruction as prompts hold it."""
        return f"<{self.verb}>{self.words}</{self.verb}>"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A scene, what is to be done to it, and a picture of it where the model is shown one.

    Args:
        scene: before the edit.
        edit: the instruction.
        picture: stands before the words of the prompt.
    """

    scene: Scene
    edit: Edit
    picture: MediaRef | None = None

    def prompt(self) -> tuple[tuple[Message, ...], tuple[MediaRef, ...]]:
        """Return the turns that ask, and the picture in them if there is one."""
        body = write(self.scene.bare())
        text = f"<instruction>\n\t{self.edit.text()}\n</instruction>\n<scenegraph>\n\t{body}\n</scenegraph>"
        parts = [text] if self.picture is None else [0, text]
        media = () if self.picture is None else (self.picture,)
        return (Message.of("system", SYSTEM[self.edit.verb]), Message.of("user", *parts)), media

    def response(self, after: Scene, *, compat: Compat = "corrected", **facts: Any) -> Response:
        """Return the answer that leads to the scene `after`, with what is known about it.

        Args:
            after: of an `<add>` the last object is the answer.
            compat: order of keys of an object, see `scene_json`.
        """
        bare = after.bare()
        text = write_object(bare.objects[-1], compat) if self.edit.verb == "add" else write(bare)
        return Response.of(text, **facts)

    def row(self, name: str, responses: Sequence[Response], **facts: Any) -> Preference:
        """Return a row that asks for this edit and holds these answers, best first."""
        messages, media = self.prompt()
        return Preference(id=name, prompt=messages, media=media, responses=tuple(responses), **facts)

    def after(self, answer: str) -> Scene:
        """Return the scene that an answer leads to.

        Raises:
            RowError: the answer is no object or scene, or a removal removes nothing or changes something else.
        """
        return self.scene.added(self.item(answer)) if self.edit.verb == "add" else self._rest(answer)

    def item(self, answer: str) -> SceneObject:
        """Return the object that the answer to an `<add>` places.

        Raises:
            RowError: it is none.
        """
        return read_object(answer.strip())

    def _rest(self, answer: str) -> Scene:
        given, rest = self.scene.bare(), read(answer.strip()).bare()
        if replace(rest, objects=()) != replace(given, objects=()):
            raise RowError("answer changes the room", field="answer", hint="only objects are taken out")
        if len(rest.objects) >= len(given.objects):
            raise RowError("answer removes nothing", field="objects", value=len(rest.objects))
        left = iter(given.objects)
        for k, item in enumerate(rest.objects):
            if all(item != other for other in left):
                hint = f"it is {item.named()}"
                raise RowError("answer changes an object that was to stay", field=f"objects[{k}]", hint=hint)
        return rest


def asks_for_scene(preference: Preference) -> bool:
    """Tell whether a row is of this task."""
    return _FIRST.match(preference.prompt[-1].text) is not None


def task_of(preference: Preference) -> Task:
    """Return the task that the last turn of a row's prompt states.

    Raises:
        RowError: it states none, or its scene is none.
    """
    turn = preference.prompt[-1]
    said = _PROMPT.fullmatch(turn.text)
    if said is None:
        hint = "an <instruction> with one <add> or <remove>, then a <scenegraph>"
        raise RowError("prompt is no edit of a scene", field="prompt", value=turn.text, hint=hint)
    picture = preference.media[turn.media_indices[0]] if turn.media_indices else None
    return Task(scene=read(said[3]), edit=Edit(verb=said[1], words=said[2]), picture=picture)
