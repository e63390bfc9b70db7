"""Posters as rows: layouts by the hurried annotator or the designer, and preferences over layouts."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import pre_tokenizers

from mmalign.errors import RowError
from mmalign.formats import boxes as geometry
from mmalign.formats.layout import Layout
from mmalign.formats.layout_task import Task
from mmalign.formats.layout_text import Form
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference, Response
from mmalign.miniature import layouts as world
from mmalign.miniature.layouts import Poster
from mmalign.miniature.shape_rows import ANNOTATOR, MODEL, TRUTH
from mmalign.modalities import layout_scores
from mmalign.modalities.layout_perturb import perturb

MISTAKES: Mapping[str, float] = {"overlap": 0.4, "misalign": 1.0, "jitter": 0.5, "swap": 1.0}
"""How layouts are made worse -> the largest strength; the smallest is a quarter of it."""


@dataclass(frozen=True, kw_only=True)
class Wall:
    """Posters and the task of each, in the same order.

    Args:
        name: prefix of the rows' ids.
    """

    name: str
    posters: tuple[Poster, ...]
    tasks: tuple[Task, ...]

    def truths(self) -> list[Layout]:
        """Return the designer's layouts."""
        return [world.truth(poster, task) for poster, task in zip(self.posters, self.tasks, strict=True)]


def draw_wall(name: str, count: int, root: Path, *, seed: int) -> Wall:
    """Draw `count` posters and write the picture of each to `<root>/images/<name>/<number>.png`."""
    return _draw(name, count, lambda index, picture: _write(picture, root, f"images/{name}/{index:05d}.png"), seed)


def draw_inline_wall(name: str, count: int, *, seed: int, form: Form = "tokens") -> Wall:
    """Draw `count` posters whose rows carry their pictures as bytes."""
    return _draw(name, count, lambda index, picture: MediaRef(kind="image", content=_png(picture)), seed, form)


def _draw(
    name: str, count: int, store: Callable[[int, Image.Image], MediaRef], seed: int, form: Form = "tokens"
) -> Wall:
    rng = np.random.default_rng(seed)
    posters, tasks = [], []
    for index in range(count):
        posters.append(world.draw_poster(rng))
        tasks.append(world.task(posters[-1], store(index, world.paint_picture(posters[-1], rng)), form))
    return Wall(name=name, posters=tuple(posters), tasks=tuple(tasks))


def _write(picture: Image.Image, root: Path, uri: str) -> MediaRef:
    path = root / uri
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_png(picture))
    return MediaRef(kind="image", uri=uri)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def prompts(wall: Wall) -> Iterator[Preference]:
    """Yield one row a poster that asks for its layout and holds the designer's as its only response."""
    return demonstrations(wall, biased=False, seed=0)


def demonstrations(wall: Wall, *, biased: bool, seed: int) -> Iterator[Preference]:
    """Yield one row a poster, as supervised fine-tuning wants them: by the hurried annotator, or by the designer."""
    rng = np.random.default_rng(seed)
    for index, (poster, task) in enumerate(zip(wall.posters, wall.tasks, strict=True)):
        layout = world.hurried(poster, task, rng) if biased else world.truth(poster, task)
        yield task.row(f"{wall.name}:{index}", [task.response(layout, annotator=ANNOTATOR if biased else TRUTH)])


def comparisons(wall: Wall, *, seed: int) -> Iterator[Preference]:
    """Yield one preference row a poster: the designer's layout before a worse one, by a way and a strength drawn.

    The difficulty of a row is 1 - strength by the largest strength of its way.
    """
    rng = np.random.default_rng(seed)
    for index, (task, truth) in enumerate(zip(wall.tasks, wall.truths(), strict=True)):
        how = list(MISTAKES)[rng.integers(len(MISTAKES))]
        share = float(rng.uniform(0.25, 1.0))
        worse = perturb(truth, how, seed=int(rng.integers(2**31)), strength=share * MISTAKES[how])
        pair = [task.response(truth, annotator=TRUTH), task.response(worse)]
        if pair[0].text != pair[1].text:
            yield task.row(f"{wall.name}:{index}", pair, difficulty=1 - share, tags={"mistake": how})


def judged(wall: Wall, answers: Sequence[Sequence[str]]) -> Iterator[Preference]:
    """Yield a preference row for every poster of whose sampled answers the judge prefers one: best and worst.

    This is AesthetiQ's way (arXiv:2503.00591): no true layout is looked at, the judge sees the candidates alone.

    Args:
        answers: several of the model to each poster, in the order of the wall.
    """
    for index, (poster, task) in enumerate(zip(wall.posters, wall.tasks, strict=True)):
        scored = sorted(((judge(poster, task, answer), answer) for answer in answers[index]), reverse=True)
        (best, chosen), (worst, rejected) = scored[0], scored[-1]
        if best > worst and chosen:
            pair = [Response.of(text, score=value, model=MODEL) for value, text in ((best, chosen), (worst, rejected))]
            yield task.row(f"{wall.name}:{index}", pair)


def judge(poster: Poster, task: Task, answer: str) -> float:
    """Return how good an answer looks, -1 to 1: rules of thumb for alignment and overlap, and the subject left free.

    What cannot be read as a layout is worst.
    """
    try:
        layout = task.layout(answer)
    except RowError:
        return -1.0
    scores = layout_scores.score(layout)
    return scores["alignment"] + scores["overlap"] - 1 - occlusion(poster, layout)


def occlusion(poster: Poster, layout: Layout) -> float:
    """Return the share of the subject's box that elements cover, summed over elements, at most 1."""
    subject = world.subject_edges(poster)
    edges = geometry.as_edges([layout.boxes[k] for k in layout.placed()])
    return min(1.0, float(geometry.intersections(edges, subject).sum() / geometry.areas(subject)[0]))


def words() -> tuple[str, ...]:
    """Return the pieces of this world's prompts that a miniature tokenizer should keep whole."""
    pieces: dict[str, None] = dict.fromkeys(("user", "assistant"))
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    picture = MediaRef(kind="image", uri="picture.png")
    for poster in _all_posters():
        text = world.task(poster, picture).prompt()[0][0].text
        pieces |= dict.fromkeys(text[start:end].strip(" ") for _, (start, end) in splitter.pre_tokenize_str(text))
    return tuple(piece for piece in pieces if len(piece) > 1)


def _all_posters() -> Iterable[Poster]:
    combinations = product(world.SIDES, world.TITLES, world.ALIGNMENTS, (False, True))
    return (Poster(*values) for values in combinations)


def with_pictures_exchanged(wall: Wall) -> Wall:
    """Return the wall with the picture of another poster, whose subject stands elsewhere; the truths stay."""
    count = len(wall.posters)
    tasks = []
    for k, task in enumerate(wall.tasks):
        others = ((k + step) % count for step in range(1, count))
        other = next(o for o in others if wall.posters[o].side != wall.posters[k].side)
        ground = wall.tasks[other].brief.elements[0]
        brief = replace(task.brief, elements=(ground, *task.brief.elements[1:]))
        tasks.append(replace(task, brief=brief))
    return replace(wall, name=f"{wall.name}_exchanged", tasks=tuple(tasks))
