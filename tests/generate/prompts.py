"""Prompts with pictures and videos, and models that answer them, for tests of generation."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmalign.engine.families import family_of
from mmalign.engine.load import load_model
from mmalign.engine.tokenise import Tokeniser, load_processor
from mmalign.formats.media import MediaRef
from mmalign.formats.prompt import Prompt
from mmalign.generate.hf import LocalSampler
from mmalign.modalities.table import limits_below


def sampler(directory, root, **how) -> LocalSampler:
    model = load_model(directory)
    tokeniser = Tokeniser(load_processor(directory), family_of(model.config), limits_below(root))
    return LocalSampler(model, tokeniser, name="tiny", **how)


def picture(place, name: str, height: int, width: int) -> MediaRef:
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(place / name)
    return MediaRef(kind="image", uri=name)


def video(place, frames: int) -> MediaRef:
    names = [f"{frames}-{number}.png" for number in range(frames)]
    for number, name in enumerate(names):
        noise = np.random.default_rng(10 * frames + number).integers(0, 256, (56, 84, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / name)
    return MediaRef(kind="video", frames=tuple(names))


def picture_prompts(place) -> list[Prompt]:
    """Three prompts of different length with pictures of different size, as every vision family reads them."""
    sizes = [(56, 56), (84, 112), (60, 30)]
    pictures = [picture(place, f"{number}.png", *size) for number, size in enumerate(sizes)]
    return [Prompt.ask("what?" * (k + 1), ref, id=str(k)) for k, ref in enumerate(pictures)]


def text_prompts() -> list[Prompt]:
    return [Prompt.ask("hm? " * (3 * k + 1), id=f"text {k}") for k in range(3)]


def video_prompts(place) -> list[Prompt]:
    """Videos of different length, a row with more of them than others, a picture, and text alone."""
    short, long, middle = (video(place, frames) for frames in (2, 5, 3))
    shown = picture(place, "0.png", 56, 56)
    asked = [(short,), (long, middle), (shown,), (), (shown, long)]
    return [Prompt.ask("what is it?", *media, id=f"video {k}") for k, media in enumerate(asked)]
