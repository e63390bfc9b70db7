"""Decoded pictures: one way to 8-bit RGB, sizes within bounds, and seeded changes that hide what a picture shows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = (255, 255, 255, 255)


def turns_sideways(orientation: int) -> bool:
    """True when an EXIF orientation exchanges width and height."""
    return orientation in (5, 6, 7, 8)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the picture as its EXIF orientation says it is to be seen."""
    how = _TRANSPOSITIONS.get(orientation)
    return image if how is None else image.transpose(how)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a decoded picture of any mode as 8-bit RGB.

    Transparency is laid on white. 16-bit and floating-point pictures are scaled to their full range, where a plain
    conversion would clip them at 255.
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = _scaled_to_8_bits(image)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, _WHITE)
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Map the full range of a deep grey picture to 0..255.

    "I;16" says what its range is. "I" and "F" do not: the smallest usual full scale that holds the largest value is
    taken (1 for "F", 255, 65535), or that value itself.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    largest = values.max(initial=0.0)
    usual = (65535.0,) if image.mode.startswith("I;16") else (255.0, 65535.0)
    if image.mode == "F":
        usual = (1.0, *usual)
    full_scale = next((scale for scale in usual if largest <= scale), largest)
    return Image.fromarray(np.clip(np.rint(values * (255.0 / full_scale)), 0, 255).astype(np.uint8))


def bounded_size(
    width: int, height: int, *, min_pixels: int | None = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """Return (width, height) of the same aspect, min_pixels <= area <= max_pixels as far as whole pixels allow."""
    area = width * height
    if max_pixels is not None and area > max_pixels:
        scale = math.sqrt(max_pixels / area)
        return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    if min_pixels is not None and area < min_pixels:
        scale = math.sqrt(min_pixels / area)
        return math.ceil(width * scale), math.ceil(height * scale)
    return width, height


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the picture at (width, height), with antialiasing."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


_SHARPNESS_PIXELS = 131_072


def sharpness(image: Image.Image) -> float:
    """Return the mean absolute Laplacian of a picture's grey values after a 3 x 3 Gaussian blur.

    The blur is [1 2 1] x [1 2 1] / 16, the Laplacian [2 0 2; 0 -8 0; 2 0 2], borders are mirrored: what OpenCV's
    GaussianBlur and Laplacian do with a kernel size of 3, and TEMPLE with them. Departure: larger pictures are shrunk
    to 131,072 pixels before, which bounds the time and makes files of different sizes comparable.
    """
    grey = resized(image.convert("L"), bounded_size(*image.size, max_pixels=_SHARPNESS_PIXELS))
    values = np.asarray(grey, dtype=np.float32)
    if min(values.shape) < 2:
        return 0.0
    padded = np.pad(values, 1, mode="reflect")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    blurred = np.rint((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16)
    around = np.pad(blurred, 1, mode="reflect")
    corners = around[:-2, :-2] + around[:-2, 2:] + around[2:, :-2] + around[2:, 2:]
    return float(np.abs(2 * corners - 8 * blurred).mean())


def _crop(image: Image.Image, generator: np.random.Generator, strength: float) -> Image.Image:
    """Cut a window out of a random place whose area is (1 - strength) of the whole."""
    side = math.sqrt(1.0 - strength)
    width, height = max(1, round(image.width * side)), max(1, round(image.height * side))
    left = int(generator.integers(0, image.width - width + 1))
    top = int(generator.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _blur(image: Image.Image, generator: np.random.Generator, strength: float) -> Image.Image:
    """Blur with a Gaussian whose radius is a tenth of the shorter side at strength 1."""
    return image.filter(ImageFilter.GaussianBlur(0.1 * strength * min(image.size)))


def _noise(image: Image.Image, generator: np.random.Generator, strength: float) -> Image.Image:
    """Mix in Gaussian noise as a diffusion step does: sqrt(1 - strength) * picture + sqrt(strength) * noise."""
    clean = np.asarray(image, dtype=np.float32) / 127.5 - 1.0
    noise = generator.standard_normal(clean.shape, dtype=np.float32)
    mixed = math.sqrt(1.0 - strength) * clean + math.sqrt(strength) * noise
    return Image.fromarray(np.clip(np.rint((mixed + 1.0) * 127.5), 0, 255).astype(np.uint8))


def _blank(image: Image.Image, generator: np.random.Generator, strength: float) -> Image.Image:
    """Fade towards a plain picture of the mean colour; nothing but the colour is left at strength 1."""
    mean = np.asarray(image, dtype=np.float64).mean(axis=(0, 1))
    plain = Image.new("RGB", image.size, tuple(round(float(channel)) for channel in mean))
    return Image.blend(image, plain, strength)


def _black(image: Image.Image, generator: np.random.Generator, strength: float) -> Image.Image:
    """Fade towards black; nothing is left at strength 1."""
    return Image.blend(image, Image.new("RGB", image.size), strength)


def _static(image: Image.Image, generator: np.random.Generator, strength: float) -> Image.Image:
    """Fade towards a picture each value of which is drawn evenly from all; nothing else is left at strength 1."""
    drawn = generator.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)
    return Image.blend(image, Image.fromarray(drawn), strength)


def diffusion_strength(step: int, steps: int = 1000) -> float:
    """Return the strength of "noise" after so many of the steps of a diffusion whose rates follow a sigmoid.

    That is 1 minus the product of 1 - rate, rates from 1e-5 to 5e-3 along sigmoid(-6) to sigmoid(6).

    Source: POVID, arXiv:2402.11411, as in the authors' code.
    """
    rates = 1e-5 + (5e-3 - 1e-5) / (1 + np.exp(-np.linspace(-6.0, 6.0, steps)))
    return float(1 - np.prod(1 - rates[: step + 1]))


PERTURBATIONS: dict[str, Callable[[Image.Image, np.random.Generator, float], Image.Image]] = {
    "crop": _crop,
    "blur": _blur,
    "noise": _noise,
    "blank": _blank,
    "black": _black,
    "static": _static,
}
