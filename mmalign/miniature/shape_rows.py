"""Scenes as rows: pictures written as PNG files, demonstrations, and corrections of a model's own captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.miniature import shapes
from mmalign.miniature.shapes import Scene

ANNOTATOR, TRUTH, MODEL = "annotator", "truth", "model"


@dataclass(frozen=True, kw_only=True)
class Album:
    """Scenes and the picture of each.

    Args:
        name: prefix of the rows' ids.
        scenes: the truth.
        uris: paths of the pictures below the data root, in the order of `scenes`.
    """

    name: str
    scenes: tuple[Scene, ...]
    uris: tuple[str, ...]


def draw_album(name: str, count: int, root: Path, *, seed: int) -> Album:
    """Draw `count` scenes and write their pictures to `<root>/images/<name>/`."""
    rng = np.random.default_rng(seed)
    folder = root / "images" / name
    folder.mkdir(parents=True, exist_ok=True)
    scenes, uris = [], []
    for index in range(count):
        scene = shapes.draw_scene(rng)
        path = folder / f"{index:05d}.png"
        shapes.render(scene, rng).save(path, compress_level=1)
        scenes.append(scene)
        uris.append(path.relative_to(root).as_posix())
    return Album(name=name, scenes=tuple(scenes), uris=tuple(uris))


def prompts(album: Album) -> Iterator[Preference]:
    """Yield one row a picture that asks for its caption and holds the truth as its only response."""
    return demonstrations(album, biased=False, question_share=0.0, seed=0)


def demonstrations(album: Album, *, biased: bool, question_share: float, seed: int) -> Iterator[Preference]:
    """Yield one row a picture, as supervised fine-tuning wants them.

    Args:
        biased: captions by the annotator who sees phantoms; otherwise the truth.
        question_share: share of rows that ask about one thing instead of a caption; answers are always true.
        seed: of the phantoms and questions.
    """
    rng = np.random.default_rng(seed)
    for index, scene in enumerate(album.scenes):
        if rng.random() < question_share:
            question, answer = shapes.question(scene, rng)
        else:
            question = shapes.CAPTION_PROMPT
            answer = shapes.biased_caption(scene, rng) if biased else shapes.caption(scene)
        response = Response.of(answer, annotator=ANNOTATOR if biased else TRUTH)
        yield _row(album, index, question, (response,))


def corrections(album: Album, answers: Sequence[str]) -> Iterator[Preference]:
    """Yield a preference row for every picture whose answer is not the true caption: the truth before the answer."""
    for index, (scene, answer) in enumerate(zip(album.scenes, answers, strict=True)):
        truth = shapes.caption(scene)
        if answer.strip() and answer.strip() != truth:
            pair = (Response.of(truth, annotator=TRUTH), Response.of(answer.strip(), model=MODEL))
            yield _row(album, index, shapes.CAPTION_PROMPT, pair)


def _row(album: Album, index: int, question: str, responses: tuple[Response, ...]) -> Preference:
    return Preference(
        id=f"{album.name}:{index}",
        prompt=(Message.of("user", 0, question),),
        media=(MediaRef(kind="image", uri=album.uris[index]),),
        responses=responses,
    )
