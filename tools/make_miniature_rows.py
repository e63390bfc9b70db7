"""Write the rows that the configs under configs/miniature/ train on: shapes, moving squares, posters, truth first.

    python tools/make_miniature_rows.py

The same seed gives the same bytes, so running it again changes nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.formats.store import write_jsonl
from mmalign.miniature import event_rows, layout_rows, scene_rows, shapes

DIRECTORY = Path(__file__).resolve().parents[1] / "configs" / "miniature"
SEED = 2026


def rows(count: int, name: str, rng: np.random.Generator) -> Iterator[Preference]:
    """Yield `count` rows: the truth is preferred to a phantom in even rows, to wrong colours in odd ones."""
    for number in range(count):
        scene = shapes.draw_scene(rng)
        stated = with_phantom(scene) if number % 2 == 0 else with_wrong_colours(scene)
        picture = io.BytesIO()
        shapes.render(scene, rng).save(picture, format="PNG", optimize=True)
        yield Preference(
            id=f"{name}-{number:03d}",
            prompt=(Message.of("user", 0, shapes.CAPTION_PROMPT),),
            media=(MediaRef(kind="image", content=picture.getvalue()),),
            responses=(Response.of(shapes.caption(scene)), Response.of(shapes.caption(stated))),
        )


def ranked_rows(count: int, rng: np.random.Generator) -> Iterator[Preference]:
    """Yield `count` lists: the truth, a phantom, wrong colours, both; scored by their mistakes."""
    for number in range(count):
        scene = shapes.draw_scene(rng)
        stated = (scene, with_phantom(scene), with_wrong_colours(scene), with_wrong_colours(with_phantom(scene)))
        picture = io.BytesIO()
        shapes.render(scene, rng).save(picture, format="PNG", optimize=True)
        yield Preference(
            id=f"ranked-{number:03d}",
            prompt=(Message.of("user", 0, shapes.CAPTION_PROMPT),),
            media=(MediaRef(kind="image", content=picture.getvalue()),),
            responses=tuple(
                Response.of(shapes.caption(one), score=score)
                for one, score in zip(stated, (3.0, 2.0, 1.0, 0.0), strict=True)
            ),
        )


def judged_rows(count: int, rng: np.random.Generator) -> Iterator[Preference]:
    """Yield `count` answers judged by themselves: true captions, and in odd rows captions with a phantom."""
    for number in range(count):
        scene = shapes.draw_scene(rng)
        stated = scene if number % 2 == 0 else with_phantom(scene)
        picture = io.BytesIO()
        shapes.render(scene, rng).save(picture, format="PNG", optimize=True)
        yield Preference(
            id=f"judged-{number:03d}",
            prompt=(Message.of("user", 0, shapes.CAPTION_PROMPT),),
            media=(MediaRef(kind="image", content=picture.getvalue()),),
            responses=(Response.of(shapes.caption(stated)),),
            label=number % 2 == 0,
        )


def with_phantom(scene: shapes.Scene) -> shapes.Scene:
    """Return the scene with a blue cross that is not there."""
    order = list(shapes.CELLS)
    return tuple(sorted((*scene, shapes.phantom_of(scene)), key=lambda thing: order.index(thing.cell)))


def with_wrong_colours(scene: shapes.Scene) -> shapes.Scene:
    """Return the scene with every colour replaced by the next one."""
    colours = list(shapes.COLOURS)
    return tuple(thing._replace(colour=colours[(colours.index(thing.colour) + 1) % len(colours)]) for thing in scene)


def main() -> None:
    """Write training and held-out rows of pictures, of clips, of posters and of rooms."""
    rng = np.random.default_rng(SEED)
    for number, (name, count) in enumerate((("train", 64), ("held_out", 16))):
        clips = event_rows.draw_inline_reel(f"events_{name}", count, seed=SEED + number)
        posters = layout_rows.draw_inline_wall(f"posters_{name}", count, seed=SEED + number, form="json")
        rooms = scene_rows.draw_house(f"rooms_{name}", count, seed=SEED + number, is_shown=True)
        for world, made in (
            ("corners", rows(count, name, rng)),
            ("events", event_rows.comparisons(clips, "mixed", seed=SEED + number)),
            ("posters", layout_rows.comparisons(posters, seed=SEED + number)),
            ("rooms", scene_rows.comparisons(rooms, seed=SEED + number)),
        ):
            path = DIRECTORY / f"{world}_{name}.jsonl"
            print(f"{path.name}: {write_jsonl(path, made)} rows")
    rng = np.random.default_rng(SEED + 1)
    for name, count in (("train", 32), ("held_out", 8)):
        path = DIRECTORY / f"corners_ranked_{name}.jsonl"
        print(f"{path.name}: {write_jsonl(path, ranked_rows(count, rng))} rows")
    rng = np.random.default_rng(SEED + 2)
    for name, count in (("train", 64), ("held_out", 16)):
        path = DIRECTORY / f"corners_judged_{name}.jsonl"
        print(f"{path.name}: {write_jsonl(path, judged_rows(count, rng))} rows")


if __name__ == "__main__":
    main()
