"""Fixtures that tests of the engine share."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tokeniser(tiny_model) -> Callable:
    """`tokeniser("llava", max_length=200)` makes rows of that family's miniature into trees.

    `root` is where its media are; `image` and `video` are further limits of the two kinds, as pairs of name and value.
    """
    from transformers import AutoConfig

    from mmalign.engine.families import family_of
    from mmalign.engine.tokenise import Tokeniser, load_processor
    from mmalign.modalities.image import ImageLimits
    from mmalign.modalities.video import VideoLimits

    @functools.cache
    def make(name: str, *, root: Path | str = ".", image: tuple = (), video: tuple = (), **how) -> Tokeniser:
        directory = tiny_model(name)
        family = family_of(AutoConfig.from_pretrained(directory))
        limits = {"image": ImageLimits(root=root, **dict(image)), "video": VideoLimits(root=root, **dict(video))}
        return Tokeniser(load_processor(directory), family, limits, **how)

    return make
