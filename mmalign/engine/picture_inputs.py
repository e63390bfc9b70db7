"""Pictures on their way into an image processor.

Two kinds of processor differ in who keeps pictures within `max_pixels`. The Qwen kind has bounds of its own and resizes
once, to whole patches: it gets the bounds. For all others pictures are resized here, before the processor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL.Image import Image, fromarray

from mmalign.engine.arriving import SMALLEST_PIXELS, Medium, PixelBounds, Size, edge, has_pixel_bounds, within
from mmalign.engine.views import Change
from mmalign.modalities import image
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.pixels import bounded_size, resized


class Pictures:
    """Pictures for one image processor.

    Args:
        image_processor: of the model.
        limits: where pictures may come from and how large they may be.
    """

    def __init__(self, image_processor: Any, limits: ImageLimits) -> None:
        self._processor, self._limits = image_processor, limits
        self._resized_inside = has_pixel_bounds(image_processor)

    @property
    def smallest_pixels(self) -> int:
        """Area below which no picture is shrunk."""
        own = self._processor.size["shortest_edge"] if self._resized_inside else SMALLEST_PIXELS
        return max(own, self._limits.min_pixels or 1)

    def max_pixels(self, shrunk_to: int | None) -> int | None:
        """Return the bound on a picture's area in a row whose media are shrunk to this area (None: not)."""
        return within(shrunk_to, self.smallest_pixels, self._limits.max_pixels)

    def size(self, medium: Medium) -> Size:
        """Return (width, height) from the header."""
        return image.check(medium.ref, self._limits, field=medium.field)

    def bounds(self, shrunk_to: int | None) -> PixelBounds | None:
        """Return the bounds the processor keeps pictures in itself, None when they are resized before it."""
        if not self._resized_inside:
            return None
        return PixelBounds(self._limits.min_pixels, self.max_pixels(shrunk_to))

    def arguments(self, shrunk_to: int | None) -> dict[str, Any]:
        """Return what the processor's call gets beside text and pictures."""
        bounds = self.bounds(shrunk_to)
        return {} if bounds is None else {"images_kwargs": {"size": bounds.size(self._processor)}}

    def arriving(self, sizes: Sequence[Size], shrunk_to: int | None) -> list[Size]:
        """Return the sizes at which pictures of these sizes reach the processor."""
        if self._resized_inside:
            return list(sizes)
        bounds = {"min_pixels": self._limits.min_pixels, "max_pixels": self.max_pixels(shrunk_to)}
        return [bounded_size(*size, **bounds) for size in sizes]

    def seen_pixels(self, sizes: Sequence[Size]) -> list[int]:
        """Return the area of each picture as the model sees it."""
        areas = [width * height for width, height in self.arriving(sizes, None)]
        bounds = self.bounds(None)
        return areas if bounds is None else [min(area, bounds.size(self._processor)["longest_edge"]) for area in areas]

    def load(
        self, media: Sequence[Medium], shrunk_to: int | None, change: Change | None = None
    ) -> tuple[list[Image], list[Any]]:
        """Decode pictures, and change them; return them, and for each what tells it from others unchanged."""
        pictures, names = [], []
        for place, (name, ref) in enumerate(media):
            content = image.read_bytes(ref, self._limits, field=name)
            names.append(hashlib.sha256(content).hexdigest())
            how = {"field": name, "bounded": not self._resized_inside}
            picture = image.decode(content, ref, self._limits, self.max_pixels(shrunk_to), **how)
            pictures.append(picture if change is None else self._changed(picture, Medium(name, ref), change, place))
        return pictures, names

    def _changed(self, picture: Image, medium: Medium, change: Change, place: int) -> Image:
        """Return a picture changed, at its size.

        It is changed at the size at which the model sees it: noise on more pixels would be averaged away again.
        """
        seen = resized(picture, bounded_size(*picture.size, max_pixels=self._largest_seen))
        changed = resized(change("image", seen, place), seen.size)
        if change.box is not None:
            rows, columns = change.inside(seen.size, self.size(medium))
            whole = np.array(seen)
            whole[rows, columns] = np.asarray(changed)[rows, columns]
            changed = fromarray(whole)
        return resized(changed, picture.size)

    @property
    def _largest_seen(self) -> int:
        """Area beyond which the processor makes pictures smaller, or cuts them."""
        if self._resized_inside:
            return PixelBounds(max_pixels=self.max_pixels(None)).size(self._processor)["longest_edge"]
        sides = (edge(self._processor.size, name) for name in ("height", "width", "shortest_edge", "longest_edge"))
        return max(side or 1 for side in sides) ** 2
