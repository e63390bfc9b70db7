"""The pictures of a row on their way into a processor: how large they arrive there, and what they are.

Two kinds of processor differ in who keeps pictures within `max_pixels`. The Qwen kind has bounds of its own and resizes
once, to whole patches: it gets the bounds. For all others pictures are resized here, before the processor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import transformers
from PIL.Image import Image

from mmalign.engine.fingerprint import of_settings
from mmalign.engine.media_tokens import PixelBounds, Size, has_pixel_bounds
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference
from mmalign.modalities import image
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.pixels import bounded_size

_SMALLEST_PIXELS = 28 * 28


class LoadedMedia(NamedTuple):
    """Pictures in the order of the prompt, and the key under which features of them may be kept."""

    pictures: list[Image]
    key: str


class MediaInputs:
    """Reads the pictures of rows for one processor.

    Args:
        image_processor: of the model.
        limits: where pictures may come from and how large they may be.
        max_pixels: bound on the area of a picture, None for no bound but the processor's own.
    """

    def __init__(self, image_processor: Any, limits: ImageLimits, max_pixels: int | None) -> None:
        self._image_processor, self._limits, self._max_pixels = image_processor, limits, max_pixels
        self._resized_inside = has_pixel_bounds(image_processor)
        self._settings = of_settings({"transformers": transformers.__version__, **image_processor.to_dict()})

    @property
    def smallest_pixels(self) -> int:
        """Area below which no picture is shrunk."""
        own = self._image_processor.size["shortest_edge"] if self._resized_inside else _SMALLEST_PIXELS
        return max(own, self._limits.min_pixels or 1)

    def bounds(self, max_pixels: int | None = None) -> PixelBounds | None:
        """Return the bounds the processor keeps pictures in itself, None when they are resized before it.

        Args:
            max_pixels: what a row's media are shrunk to, None for the configured bound; the same in all methods.
        """
        if not self._resized_inside:
            return None
        return PixelBounds(self._limits.min_pixels, max_pixels or self._max_pixels)

    def arguments(self, max_pixels: int | None = None) -> dict[str, Any]:
        """Return what the processor's call gets beside text and pictures."""
        bounds = self.bounds(max_pixels)
        return {} if bounds is None else {"images_kwargs": {"size": bounds.size(self._image_processor)}}

    def sizes(self, preference: Preference) -> list[Size]:
        """Return (width, height) of each picture in the order of the prompt, from its header.

        Raises:
            RowError: a picture is missing, out of bounds, or no picture.
        """
        return [image.check(ref, self._limits, field=name) for name, ref in in_order(preference)]

    def arriving(self, sizes: Sequence[Size], max_pixels: int | None = None) -> list[Size]:
        """Return the sizes at which pictures of these sizes reach the processor."""
        if self._resized_inside:
            return list(sizes)
        bounds = {"min_pixels": self._limits.min_pixels, "max_pixels": max_pixels or self._max_pixels}
        return [bounded_size(*size, **bounds) for size in sizes]

    def largest_pixels(self, sizes: Sequence[Size]) -> int:
        """Return the area of the largest picture as the model sees it, 0 without pictures."""
        areas = [width * height for width, height in self.arriving(sizes)]
        bounds = self.bounds()
        if bounds is not None:
            areas = [min(area, bounds.size(self._image_processor)["longest_edge"]) for area in areas]
        return max(areas, default=0)

    def load(self, preference: Preference, max_pixels: int | None = None) -> LoadedMedia:
        """Decode the pictures of a row.

        Raises:
            RowError: one of them cannot be read or decoded.
        """
        area, outside = max_pixels or self._max_pixels, not self._resized_inside
        pictures, hashes = [], []
        for name, ref in in_order(preference):
            content = image.read_bytes(ref, self._limits, field=name)
            hashes.append(hashlib.sha256(content).hexdigest())
            pictures.append(image.decode(content, ref, self._limits, area, field=name, bounded=outside))
        bounds = {"min_pixels": self._limits.min_pixels, "max_pixels": area, **self.arguments(max_pixels)}
        key = of_settings({"media": hashes, "processor": self._settings, **bounds})
        return LoadedMedia(pictures, key)


def in_order(preference: Preference) -> list[tuple[str, MediaRef]]:
    """Return the media in the order in which the prompt names them, each with its field."""
    order = [index for message in preference.prompt for index in message.media_indices]
    return [(f"images[{index}]", preference.media[index]) for index in order]
