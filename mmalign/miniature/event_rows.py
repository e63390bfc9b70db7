"""Clips of moving squares as rows: captions of what happens, and captions in a wrong order.

A clip is a GIF of about a kilobyte, which is exact: what a lossy codec would do to squares of two frames is not what
this world asks about.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageSequence

from mmalign.evaluate.order import inversions
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.miniature import events as world
from mmalign.miniature.events import Events
from mmalign.miniature.shape_rows import ANNOTATOR, TRUTH

FRAME_MS = 500
Mistake = Literal["fine", "coarse", "mixed"]


@dataclass(frozen=True, kw_only=True)
class Reel:
    """Clips and what happens in each.

    Args:
        name: prefix of the rows' ids.
        truths: what happens, clip by clip.
        refs: the clips, in the order of `truths`.
    """

    name: str
    truths: tuple[Events, ...]
    refs: tuple[MediaRef, ...]


def draw_reel(name: str, count: int, root: Path, *, seed: int) -> Reel:
    """Draw `count` clips and write each to `<root>/videos/<name>/<number>.gif`."""
    return _draw(name, count, lambda index, frames: _write(frames, root, f"videos/{name}/{index:05d}.gif"), seed)


def draw_inline_reel(name: str, count: int, *, seed: int) -> Reel:
    """Draw `count` clips whose rows carry them as bytes."""
    return _draw(name, count, lambda index, frames: MediaRef(kind="video", content=_gif(frames)), seed)


def with_shuffled_events(reel: Reel, root: Path, *, seed: int) -> tuple[Reel, tuple[Events, ...]]:
    """Return the clips with their events shown in another order, under the truths of before; and what they show.

    A model that looks at the frames tells what they show, and is wrong by the truths of before.
    """
    rng = np.random.default_rng(seed)
    name, refs, shown = f"{reel.name}_shuffled", [], []
    for index, (ref, truth) in enumerate(zip(reel.refs, reel.truths, strict=True)):
        while inversions(order := rng.permutation(len(truth)).tolist()) == 0:
            pass
        with Image.open(root / ref.uri) as clip:
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(clip)]
        moved = [frames[event * world.EVENT_FRAMES + k] for event in order for k in range(world.EVENT_FRAMES)]
        refs.append(_write(moved, root, f"videos/{name}/{index:05d}.gif"))
        shown.append(world.reordered(truth, order))
    return Reel(name=name, truths=reel.truths, refs=tuple(refs)), tuple(shown)


def with_blank_frames(reel: Reel, root: Path) -> Reel:
    """Return one clip for all, as long and with nothing in it, under the truths of before."""
    middle = (world.DARKEST + world.LIGHTEST_BACKGROUND) // 2
    # A GIF would merge equal frames to one, so the grey flickers by one level.
    greys = [middle + number % 2 for number in range(world.FRAMES)]
    frames = [Image.new("RGB", (world.FRAME_PX, world.FRAME_PX), (grey, grey, grey)) for grey in greys]
    blank = _write(frames, root, "videos/blank.gif")
    return Reel(name=f"{reel.name}_blank", truths=reel.truths, refs=(blank,) * len(reel.truths))


def _draw(name: str, count: int, store: Callable[[int, Sequence[Image.Image]], MediaRef], seed: int) -> Reel:
    rng = np.random.default_rng(seed)
    truths, refs = [], []
    for index in range(count):
        truths.append(world.draw_events(rng))
        refs.append(store(index, world.render(truths[-1], rng)))
    return Reel(name=name, truths=tuple(truths), refs=tuple(refs))


def _write(frames: Sequence[Image.Image], root: Path, uri: str) -> MediaRef:
    path = root / uri
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_gif(frames))
    return MediaRef(kind="video", uri=uri)


def _gif(frames: Sequence[Image.Image]) -> bytes:
    """Return the frames as a GIF; two colours a frame fit its palette, so nothing is lost."""
    first, *others = (frame.quantize(2) for frame in frames)
    file = io.BytesIO()
    first.save(file, format="GIF", save_all=True, append_images=others, duration=FRAME_MS)
    return file.getvalue()


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
