"""Wishes in free words: a language model turns them into `<remove>` and `<add>` commands, carried out one by one.

In ReSpace (arXiv:2506.02459) a chat model plans and the trained model places. A whole room is such a wish too
(`full_room`): "create a bedroom with 5 objects", then one `<add>` after the other. Departures from its released
program, which are defects there: examples reach the prompt, commands keep their order, and closing tags close.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmalign.errors import RowError
from mmalign.formats.message import Message
from mmalign.formats.scene import ROOM_TYPES, Scene
from mmalign.formats.scene_json import write
from mmalign.formats.scene_task import Edit, Task
from mmalign.formats.values import require_text

MOST_COMMANDS = 200
MOST_WORDS = 5
_COMMAND = re.compile(r"<(add|remove)>([^<>\n]*)</\1>")
_PLANNER = (
    "You plan changes of a furnished room. The prompt says what is wished, the body lists the room as it is. Answer "
    'with JSON: {{"reasoning": "...", "commands": ["<remove>...</remove>", "<add>...</add>"]}}. Removals come first; '
    "to exchange a piece, remove it and add another. Never remove what nobody asked to be removed; say in reasoning "
    "why you remove something. A piece to add is told in two or three words, at most {words}, its noun last, in the "
    "style of the room.{classes}{examples}"
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a planner answered: commands, removals first, and its reasons."""

    edits: tuple[Edit, ...]
    reasoning: str = ""


def plan_prompt(
    scene: Scene, wish: str, *, classes: Sequence[str] = (), examples: Sequence[Sequence[str]] = ()
) -> tuple[Message, ...]:
    """Return the turns that ask a chat model for commands.

    Args:
        scene: as it is.
        wish: in free words, without < and >.
        classes: kinds of furniture that may be added; all if empty.
        examples: lists of pieces of similar rooms.

    Raises:
        RowError: the wish cannot stand in a prompt.
    """
    require_text(wish, "wish")
    if not wish.strip() or "<" in wish or ">" in wish:
        raise RowError("wish cannot stand in a prompt", field="wish", value=wish, hint="words without < and >")
    allowed = f" Add only: {', '.join(classes)}." if classes else ""
    shown = "".join(f"\nA similar room has: {', '.join(pieces)}." for pieces in examples)
    system = _PLANNER.format(words=MOST_WORDS, classes=allowed, examples=shown)
    body = f"<prompt>{wish.strip()}</prompt>\n<scenegraph>\n\t{write(scene.bare())}\n</scenegraph>"
    return Message.of("system", system), Message.of("user", body)


def full_room(scene: Scene, count: int) -> str:
    """Return the wish for a whole room: `plan_prompt` asks for it, `carry_out` places it piece by piece.

    Raises:
        RowError: `count` is no number of objects.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_COMMANDS:
        hint = f"1 to {MOST_COMMANDS}"
        raise RowError("number of objects is out of bounds", field="count", value=count, hint=hint)
    names = dict(zip(ROOM_TYPES, ("bedroom", "living room", "room"), strict=True))
    return f"create a {names[scene.room_type]} with {count} objects"


def read_plan(answer: str) -> Plan:
    """Return the plan that a chat model answered with.

    Raises:
        RowError: it is no JSON, holds something that is no command, removes after it adds, or removes without a reason.
    """
    try:
        raw = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise RowError("answer is not JSON", field="answer", value=answer, hint=str(error)) from error
    commands = raw.get("commands") if isinstance(raw, dict) else None
    if not isinstance(commands, list) or not 0 < len(commands) <= MOST_COMMANDS:
        hint = 'write {"commands": ["<add>...</add>", ...]}'
        raise RowError("answer has no commands, or too many", field="commands", value=commands, hint=hint)
    edits = tuple(read_command(command, f"commands[{k}]") for k, command in enumerate(commands))
    verbs = [edit.verb for edit in edits]
    if verbs != sorted(verbs, reverse=True):
        raise RowError("a removal stands after an addition", field="commands", value=verbs)
    reasoning = raw.get("reasoning") or ""
    require_text(reasoning, "reasoning")
    if "remove" in verbs and not reasoning:
        raise RowError("something is removed without a reason", field="reasoning")
    return Plan(edits=edits, reasoning=reasoning)


def read_command(command: object, field: str) -> Edit:
    """Return the edit of one command.

    Raises:
        RowError: it is none, or adds something told in more than five words; the message names `field`.
    """
    said = _COMMAND.fullmatch(command.strip()) if isinstance(command, str) else None
    if said is None:
        raise RowError("command is unknown", field=field, value=command, hint="<add>...</add> or <remove>...</remove>")
    if said[1] == "add" and len(said[2].split()) > MOST_WORDS:
        raise RowError(
            "piece to add is told in too many words", field=field, value=said[2], hint=f"at most {MOST_WORDS}"
        )
    return Edit(verb=said[1], words=said[2].strip())


def carry_out(scene: Scene, edits: Sequence[Edit], answer: Callable[[Task], str]) -> Scene:
    """Return the scene after all edits, each asked for with what the ones before it left.

    Args:
        scene: at the beginning; without objects for a whole room.
        edits: of a plan.
        answer: asks a model.

    Raises:
        RowError: an answer cannot be read; the message tells of which command.
    """
    for k, edit in enumerate(edits):
        task = Task(scene=scene, edit=edit)
        try:
            scene = task.after(answer(task))
        except RowError as error:
            field = f"commands[{k}].{error.field}" if error.field else f"commands[{k}]"
            raise RowError(error.reason, field=field, value=error.value, hint=error.hint) from error
    return scene
