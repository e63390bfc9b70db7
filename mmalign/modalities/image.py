"""Pictures: the five verbs check, load, messages, render, perturb.

`check` reads a header, `load` decodes. Both see the same picture: the first frame, upright as EXIF says, and both
refuse the same things with the same words.
"""

from __future__ import annotations

import base64
import functools
import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities.fetch import MediaLimits, content_hash, opened, read_bytes, shown
from mmalign.modalities.pixels import PERTURBATIONS, bounded_size, resized, to_rgb, turns_sideways, upright

__all__ = ["ImageLimits", "check", "content_hash", "load", "messages", "perturb", "read_bytes", "render"]

# Pillow also opens EPS by running Ghostscript, and formats that nobody publishes pictures in: those stay shut.
# MPO has no opener of its own: Pillow's JPEG opener makes it.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")
_ORIENTATION_TAG = 0x0112
_TAIL_BYTES = 1024
# What the last bytes of a complete file hold, and a cut file almost never.
_LAST_WORDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}


@dataclass(frozen=True, kw_only=True)
class ImageLimits(MediaLimits):
    """What a picture may be; see `MediaLimits` for where it may come from.

    Args:
        min_pixels: smaller pictures are scaled up to this area; None leaves them.
        max_pixels: larger pictures are scaled down to this area; None leaves them.
        max_decoded_pixels: pictures whose header promises more are refused before they are decoded.
        max_aspect_ratio: longer side over shorter side; beyond it vision processors fail or see a line.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    max_decoded_pixels: int = 89_478_485  # Pillow's own bound: a quarter of a GiB as RGB
    max_aspect_ratio: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_pixels", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"data.{name} must be positive, got {value}")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ConfigError(f"data.min_pixels {self.min_pixels} exceeds data.max_pixels {self.max_pixels}")


def check(ref: MediaRef, limits: ImageLimits, *, field: str = "image") -> tuple[int, int]:
    """Return (width, height) of a picture as it is to be seen, from its header and its last bytes.

    Nothing is decoded, unless the end of the file is not where it should be: then decoding decides.

    Raises:
        RowError: the picture is missing, out of bounds, of no known format, truncated, or a decompression bomb.
    """
    with opened(ref, limits, field=field) as file, _reading(ref, field):
        image = _picture(file)
        size = _seen_size(image, ref, limits, field)
        if not _is_complete(file, image):
            file.seek(0)
            _picture(file).load()
    return size


def load(
    ref: MediaRef, limits: ImageLimits, max_pixels: int | None = None, *, field: str = "image", bounded: bool = True
) -> Image.Image:
    """Return a picture as 8-bit RGB: first frame, upright, transparency on white, within the pixel bounds.

    Args:
        max_pixels: overrides `limits.max_pixels`.
        bounded: False leaves the size alone, for processors that have pixel bounds of their own.

    Raises:
        RowError: as `check`, and when the pixels cannot be decoded.
    """
    return decode(read_bytes(ref, limits, field=field), ref, limits, max_pixels, field=field, bounded=bounded)


def decode(
    content: bytes,
    ref: MediaRef,
    limits: ImageLimits,
    max_pixels: int | None = None,
    *,
    field: str = "image",
    bounded: bool = True,
    transparent: bool = False,
) -> Image.Image:
    """Return `load`'s picture from bytes that were read already; `transparent` keeps it see-through, as RGBA."""
    with _reading(ref, field):
        image = _picture(io.BytesIO(content))
        size = _seen_size(image, ref, limits, field)
        goal = bounded_size(*size, min_pixels=limits.min_pixels, max_pixels=max_pixels or limits.max_pixels)
        orientation = _orientation(image)
        if bounded and goal[0] < size[0]:
            # JPEG decodes to a half, a quarter or an eighth for less; twice the goal leaves room for antialiasing.
            image.draft(None, tuple(2 * side for side in (goal[::-1] if turns_sideways(orientation) else goal)))
        image.load()
        seen = upright(image.convert("RGBA") if transparent else to_rgb(image), orientation)
    return resized(seen, goal) if bounded else seen


def messages(ref: MediaRef) -> dict[str, Any]:
    """Return the content part by which chat templates know a picture; pixels go to the processor beside the text."""
    return {"type": "image"}


def render(ref: MediaRef, limits: ImageLimits, max_pixels: int = 65_536, *, field: str = "image") -> str:
    """Return a small JPEG of the picture as a `data:` URI, for people to look at."""
    buffer = io.BytesIO()
    load(ref, limits, max_pixels, field=field).save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def perturb(image: Image.Image, how: str, *, seed: int, strength: float = 0.5) -> Image.Image:
    """Return the picture with some of what it shows hidden: the contrast side of visual preference objectives.

    Args:
        image: 8-bit RGB.
        how: "crop" (a window with 1 - strength of the area), "blur", "noise" (a diffusion step), "blank" (mean colour),
            "black", "static" (values drawn evenly).
        seed: the same seed gives the same picture.
        strength: 0 < strength <= 1 (< 1 for "crop").

    Raises:
        ConfigError: unknown `how` or strength out of range.
    """
    if how not in PERTURBATIONS:
        raise ConfigError(f"image perturbation {how!r} is unknown; use one of {', '.join(PERTURBATIONS)}")
    if not 0 < strength <= 1 or (how == "crop" and strength == 1):
        raise ConfigError(f"strength of {how!r} must satisfy 0 < strength <= 1 (< 1 for 'crop'), got {strength}")
    return PERTURBATIONS[how](image, np.random.default_rng(seed), strength)


def _picture(file: BinaryIO) -> Image.Image:
    """Read a header. Pillow's warning before a bomb is silenced: `_seen_size` has the say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(file, formats=_readable_formats())


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    """Return those of `_FORMATS` that the installed Pillow knows; AVIF is younger than some."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextmanager
def _reading(ref: MediaRef, field: str) -> Iterator[None]:
    """Turn what Pillow raises on bad files into refusals."""
    try:
        yield
    except RowError:
        raise
    except UnidentifiedImageError as error:
        hint = f"readable are {', '.join(_readable_formats())}"
        raise RowError("image is not in a known format", field=field, value=shown(ref), hint=hint) from error
    except Image.DecompressionBombError as error:
        raise RowError("image has too many pixels", field=field, value=shown(ref), hint=str(error)) from error
    except MemoryError as error:
        raise RowError("image has too many pixels", field=field, value=shown(ref), hint="out of memory") from error
    except (
        Exception
    ) as error:  # decoders raise whatever broken bytes lead them to: OSError, SyntaxError, struct.error...
        raise RowError("image is truncated or broken", field=field, value=shown(ref), hint=str(error)) from error


def _seen_size(image: Image.Image, ref: MediaRef, limits: ImageLimits, field: str) -> tuple[int, int]:
    """Return (width, height) after orientation, or refuse what is too large or too narrow to decode."""
    width, height = image.size
    if width * height > limits.max_decoded_pixels:
        hint = f"{width} x {height} exceeds {limits.max_decoded_pixels:,}; make it smaller"
        raise RowError("image has too many pixels", field=field, value=shown(ref), hint=hint)
    if max(width, height) > limits.max_aspect_ratio * min(width, height):
        hint = f"{width} x {height} is beyond {limits.max_aspect_ratio:g} to 1"
        raise RowError("image is too narrow", field=field, value=shown(ref), hint=hint)
    return (height, width) if turns_sideways(_orientation(image)) else (width, height)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 when there is none or it is broken.

    TIFF files come upright from Pillow. PNG files are asked through the base class, because PNG's own method decodes
    the picture in search of a late EXIF chunk.
    """
    if image.format == "TIFF":
        return 1
    try:
        return int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
    except (ValueError, TypeError, KeyError, OSError, SyntaxError, struct.error):
        return 1


def _is_complete(file: BinaryIO, image: Image.Image) -> bool:
    """True when the last bytes are those of a whole file, as far as its format has last words."""
    end = file.seek(0, io.SEEK_END)
    if image.format == "WEBP":
        file.seek(4)
        return end >= 8 + int.from_bytes(file.read(4), "little")
    words = _LAST_WORDS.get(image.format)
    if words is None:
        return False
    file.seek(max(0, end - _TAIL_BYTES))
    return words in file.read(_TAIL_BYTES)
