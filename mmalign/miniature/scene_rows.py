"""Bedrooms as rows: pieces placed by the hurried annotator or the designer, and preferences over placements."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from tokenizers import pre_tokenizers

from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference, Response
from mmalign.formats.scene_task import Task
from mmalign.miniature import scenes as world
from mmalign.miniature.scenes import Room
from mmalign.miniature.shape_rows import ANNOTATOR, MODEL, TRUTH
from mmalign.modalities.scene_perturb import perturb
from mmalign.modalities.scene_top import paint_top
from mmalign.rewards.scene import judge

MISTAKES: Mapping[str, float] = {"wall": 0.8, "overlap": 1.0, "size": 0.6, "rotation": 1.0}
"""How placements are made worse -> the largest strength; the smallest is a quarter of it."""
_PICTURE_PX = 84


@dataclass(frozen=True, kw_only=True)
class House:
    """Rooms and the task of each, in the same order.

    Args:
        name: prefix of the rows' ids.
    """

    name: str
    rooms: tuple[Room, ...]
    tasks: tuple[Task, ...]

    def truths(self) -> list[world.SceneObject]:
        """Return what the designer adds to each."""
        return [world.truth(room) for room in self.rooms]


def draw_house(name: str, count: int, *, seed: int, is_shown: bool = False) -> House:
    """Draw `count` rooms.

    Args:
        name: of the house.
        count: of rooms.
        seed: the same seed draws the same rooms.
        is_shown: whether prompts show the room from above, for models that see.
    """
    rng = np.random.default_rng(seed)
    rooms = tuple(world.draw_room(rng) for _ in range(count))
    tasks = [world.task(room) for room in rooms]
    if is_shown:
        tasks = [replace(task, picture=_from_above(task)) for task in tasks]
    return House(name=name, rooms=rooms, tasks=tuple(tasks))


def _from_above(task: Task) -> MediaRef:
    buffer = io.BytesIO()
    picture = paint_top(task.scene, (_PICTURE_PX, _PICTURE_PX), is_numbered=False)
    picture.save(buffer, format="PNG", optimize=True)
    return MediaRef(kind="image", content=buffer.getvalue())


def prompts(house: House) -> Iterator[Preference]:
    """Yield one row a room that asks for its piece and holds the designer's as its only response."""
    return demonstrations(house, biased=False, seed=0)


def demonstrations(house: House, *, biased: bool, seed: int) -> Iterator[Preference]:
    """Yield one row a room, as supervised fine-tuning wants them: by the hurried annotator, or by the designer."""
    rng = np.random.default_rng(seed)
    for index, (room, task) in enumerate(zip(house.rooms, house.tasks, strict=True)):
        item = world.hurried(room, rng) if biased else world.truth(room)
        response = task.response(task.scene.added(item), annotator=ANNOTATOR if biased else TRUTH)
        yield task.row(f"{house.name}:{index}", [response])


def comparisons(house: House, *, seed: int) -> Iterator[Preference]:
    """Yield one preference row a room: the designer's piece before a worse one, by a way and a strength drawn.

    The difficulty of a row is 1 - strength by the largest strength of its way.
    """
    rng = np.random.default_rng(seed)
    for index, (task, truth) in enumerate(zip(house.tasks, house.truths(), strict=True)):
        how = list(MISTAKES)[rng.integers(len(MISTAKES))]
        share, after = float(rng.uniform(0.25, 1.0)), task.scene.added(truth)
        worse = perturb(after, how, seed=int(rng.integers(2**31)), strength=share * MISTAKES[how])
        pair = [task.response(after, annotator=TRUTH), task.response(worse)]
        if pair[0].text != pair[1].text:
            yield task.row(f"{house.name}:{index}", pair, difficulty=1 - share, tags={"mistake": how})


def rewarded(house: House, answers: Sequence[Sequence[str]]) -> Iterator[Preference]:
    """Yield a preference row for every room of whose sampled answers one is worth more: best and worst by reward.

    The reward is ReSpace's (`mmalign.rewards.scene`); among answers of the same reward the one with less loss is worth
    more. Descriptions and sizes are compared with the truth, places are not.

    Args:
        house: N rooms.
        answers: several of the model to each room, in their order.
    """
    for index, (task, truth) in enumerate(zip(house.tasks, house.truths(), strict=True)):
        scored = sorted(((*_worth(task, answer, truth), answer) for answer in answers[index]), reverse=True)
        best, worst = scored[0], scored[-1]
        if best[:2] > worst[:2] and best[0] > 0:
            pair = [Response.of(text, score=reward, model=MODEL) for reward, _, text in (best, worst) if text]
            if len(pair) == 2:
                yield task.row(f"{house.name}:{index}", pair)


def _worth(task: Task, answer: str, truth: world.SceneObject) -> tuple[float, float]:
    verdict = judge(task, answer, truth)
    return verdict.reward, -(verdict.delta_pbl_m3 or 0.0)


def words() -> tuple[str, ...]:
    """Return the pieces of this world's prompts and answers that a miniature tokenizer should keep whole."""
    pieces: dict[str, None] = dict.fromkeys(("system", "user", "assistant"))
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in _all_texts():
        pieces |= dict.fromkeys(text[start:end].strip(" ") for _, (start, end) in splitter.pre_tokenize_str(text))
    return tuple(piece for piece in pieces if len(piece) > 1)


def _all_texts() -> Iterable[str]:
    for width, depth, wall, piece, material in product(
        world.SIDES_M, world.SIDES_M, world.WALLS, world.PIECES, world.MATERIALS
    ):
        other = next(name for name in world.PIECES if name != piece)
        room = Room(width, depth, wall, other, piece, material)
        task = world.task(room)
        yield from (message.text for message in task.prompt()[0])
        yield task.response(task.scene.added(world.truth(room))).text
