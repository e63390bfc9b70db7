"""Clips of moving squares as rows: frames written as PNG files, captions, and captions in a wrong order.

A clip lies on disk as a folder of frames, which is exact: what a lossy codec would do to squares of two frames is not
what this world asks about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from mmalign.evaluate.order import inversions
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.miniature import events as world
from mmalign.miniature.events import Events
from mmalign.miniature.shape_rows import ANNOTATOR, TRUTH

Mistake = Literal["fine", "coarse", "mixed"]


@dataclass(frozen=True, kw_only=True)
class Reel:
    """Clips and what happens in each.

    Args:
        name: prefix of the rows' ids.
        truths: what happens, clip by clip.
        refs: where the frames are, in the order of `truths`.
    """

    name: str
    truths: tuple[Events, ...]
    refs: tuple[MediaRef, ...]


def draw_reel(name: str, count: int, root: Path, *, seed: int) -> Reel:
    """Draw `count` clips and write the frames of each to `<root>/videos/<name>/<number>/`."""
    rng = np.random.default_rng(seed)
    truths, refs = [], []
    for index in range(count):
        truth = world.draw_events(rng)
        folder = root / "videos" / name / f"{index:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(world.render(truth, rng)):
            frame.save(folder / f"{number}.png", compress_level=1)
        truths.append(truth)
        refs.append(MediaRef(kind="video", uri=folder.relative_to(root).as_posix()))
    return Reel(name=name, truths=tuple(truths), refs=tuple(refs))


def with_shuffled_events(reel: Reel, *, seed: int) -> tuple[Reel, tuple[Events, ...]]:
    """Return the clips with their events shown in another order, under the truths of before; and what they show.

    The frames are those on disk. A model that looks at them tells what they show, and is wrong by the truths of before.
    """
    rng = np.random.default_rng(seed)
    refs, shown = [], []
    for ref, truth in zip(reel.refs, reel.truths, strict=True):
        while inversions(order := rng.permutation(len(truth)).tolist()) == 0:
            pass
        numbers = [event * world.EVENT_FRAMES + frame for event in order for frame in range(world.EVENT_FRAMES)]
        refs.append(MediaRef(kind="video", frames=tuple(f"{ref.uri}/{number}.png" for number in numbers)))
        shown.append(world.reordered(truth, order))
    return Reel(name=f"{reel.name}_shuffled", truths=reel.truths, refs=tuple(refs)), tuple(shown)


def with_blank_frames(reel: Reel, root: Path) -> Reel:
    """Return the clips with nothing in them, under the truths of before; writes the one empty frame they share."""
    grey = (world.DARKEST + world.LIGHTEST_BACKGROUND) // 2
    path = root / "videos" / "blank.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (world.FRAME_PX, world.FRAME_PX), (grey, grey, grey)).save(path)
    blank = MediaRef(kind="video", frames=(path.relative_to(root).as_posix(),) * world.FRAMES)
    return Reel(name=f"{reel.name}_blank", truths=reel.truths, refs=(blank,) * len(reel.truths))


def prompts(reel: Reel) -> Iterator[Preference]:
    """Yield one row a clip that asks what happens and holds the truth as its only response."""
    return demonstrations(reel, biased=False, seed=0)


def demonstrations(reel: Reel, *, biased: bool, seed: int) -> Iterator[Preference]:
    """Yield one row a clip, as supervised fine-tuning wants them: captions by the biased annotator, or the truth."""
    rng = np.random.default_rng(seed)
    for index, truth in enumerate(reel.truths):
        text = world.biased_caption(truth, rng) if biased else world.caption(truth)
        yield _row(reel, index, (Response.of(text, annotator=ANNOTATOR if biased else TRUTH),))


def comparisons(reel: Reel, mistake: Mistake, *, seed: int) -> Iterator[Preference]:
    """Yield one preference row a clip: the true caption before one that tells the same events in a wrong order.

    Args:
        mistake: "fine" exchanges two neighbours, "coarse" reverses or shuffles, "mixed" does one or the other.

    The difficulty of a row is the share of pairs of events that the wrong caption leaves in their order.
    """
    rng = np.random.default_rng(seed)
    for index, truth in enumerate(reel.truths):
        mistakes = _MISTAKES[mistake]
        told = mistakes[rng.integers(len(mistakes))](truth, rng)
        wrong = inversions([truth.index(event) for event in told])
        pair = (Response.of(world.caption(truth), annotator=TRUTH), Response.of(world.caption(told)))
        yield _row(reel, index, pair, difficulty=1 - wrong / (len(truth) * (len(truth) - 1) / 2))


_MISTAKES: Mapping[Mistake, tuple[Callable[[Events, np.random.Generator], Events], ...]] = {
    "fine": (world.swapped,),
    "coarse": (world.reversed_or_shuffled,),
    "mixed": (world.swapped, world.reversed_or_shuffled),
}


def _row(reel: Reel, index: int, responses: tuple[Response, ...], *, difficulty: float | None = None) -> Preference:
    return Preference(
        id=f"{reel.name}:{index}",
        prompt=(Message.of("user", 0, world.CAPTION_PROMPT),),
        media=(reel.refs[index],),
        responses=responses,
        difficulty=difficulty,
    )
