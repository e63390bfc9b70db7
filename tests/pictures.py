"""Pictures that tests of several rooms make for themselves."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encoded(image: Image.Image, format: str = "PNG", **how) -> bytes:
    """Return the file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **how)
    return buffer.getvalue()


def halves(width: int = 8, height: int = 4, left=(255, 0, 0), right=(0, 0, 255)) -> Image.Image:
    """A picture whose left half and right half have one colour each."""
    image = Image.new("RGB", (width, height), right)
    image.paste(left, (0, 0, width // 2, height))
    return image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture no two of whose pixels are alike."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def with_orientation(image: Image.Image, orientation: int, format: str) -> bytes:
    """Return the file of a picture whose EXIF data names an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, format, exif=exif.tobytes() if format == "PNG" else exif)
