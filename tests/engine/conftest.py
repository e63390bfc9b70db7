"""Fixtures that tests of the engine share."""

import functools
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def tokeniser(tiny_model) -> Callable:
    """`tokeniser("llava", max_length=200)` makes rows of that family's miniature into trees."""
    from transformers import AutoConfig

    from mmalign.engine.families import family_of
    from mmalign.engine.tokenise import Tokeniser, load_processor
    from mmalign.modalities.image import ImageLimits

    @functools.cache
    def make(name: str, **how) -> Tokeniser:
        directory = tiny_model(name)
        family = family_of(AutoConfig.from_pretrained(directory))
        return Tokeniser(load_processor(directory), family, how.pop("limits", ImageLimits()), **how)

    return make
