"""Media as they reach a processor: what can be said of them before a pixel is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference

Size = tuple[int, int]
"""(width, height) in pixels"""

SMALLEST_PIXELS = 28 * 28
"""No medium is shrunk below this area."""


class Medium(NamedTuple):
    """One medium of a row, and the field in which it stands there."""

    field: str
    ref: MediaRef


@dataclass(frozen=True)
class PixelBounds:
    """Pixel bounds that a processor applies itself (the Qwen kind); None leaves its own default.

    Args:
        min_pixels, max_pixels: area of a picture, or of one frame, as the vision tower sees it.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None

    def size(self, processor: Any, frames: int = 1) -> dict[str, int]:
        """Return the `size` argument of an image processor, or of a video processor for a clip of so many frames."""
        times = frames if bounds_all_frames(processor) else 1
        longest = times * self.max_pixels if self.max_pixels else processor.size["longest_edge"]
        shortest = times * self.min_pixels if self.min_pixels else processor.size["shortest_edge"]
        return {"shortest_edge": min(shortest, longest), "longest_edge": longest}


@dataclass(frozen=True, kw_only=True)
class ArrivingClip:
    """A video as it reaches the processor: its frames are chosen, and what is left is to say when they are.

    Args:
        frames, width, height: of what the processor gets.
        timestamps_s: of each frame, in seconds since the start of the file.
        source_fps: frames per second of the file.
        duration_s: of the part of the file that the frames stand for.
        bounds: pixel bounds that the processor applies itself, None when frames are resized before it.
    """

    frames: int
    width: int
    height: int
    timestamps_s: tuple[float, ...]
    source_fps: float
    duration_s: float
    bounds: PixelBounds | None = None

    def metadata(self) -> dict[str, Any]:
        """Return what processors want to know, in the terms of transformers' `VideoMetadata`.

        They take index / fps for the time of a frame, and frames / total * fps for the rate of the sampled video. Files
        of variable rate, and clips out of a file, get the indices and the total that make both true.
        """
        return {
            "total_num_frames": self.duration_s * self.source_fps,
            "fps": self.source_fps,
            "width": self.width,
            "height": self.height,
            "duration": self.duration_s,
            "frames_indices": [round(time_s * self.source_fps, 3) for time_s in self.timestamps_s],
        }

    def arguments(self, video_processor: Any) -> dict[str, Any]:
        """Return the `videos_kwargs` of the processor's call."""
        how: dict[str, Any] = {"do_sample_frames": False, "input_data_format": "channels_last"}
        if self.bounds is not None:
            how["size"] = self.bounds.size(video_processor, self.frames)
        if hasattr(video_processor, "cap_pixels_per_frame"):
            how["cap_pixels_per_frame"] = bool(video_processor.cap_pixels_per_frame)  # None warns and means False
        return how


@dataclass(frozen=True, kw_only=True)
class Arriving:
    """The media of a prompt as they reach the processor, each kind in the order of the prompt.

    Args:
        pictures: their sizes.
        bounds: pixel bounds of pictures that the processor applies itself, None when they are resized before it.
        clips: their shapes and times.
    """

    pictures: Sequence[Size] = ()
    bounds: PixelBounds | None = None
    clips: Sequence[ArrivingClip] = ()


def bounds_all_frames(processor: Any) -> bool:
    """True when the pixel bounds of a video processor are those of all frames together."""
    return type(processor).__name__ == "Qwen3VLVideoProcessor"


def has_pixel_bounds(processor: Any) -> bool:
    """True when an image or video processor takes bounds on the area of a picture, as the Qwen family's do."""
    edges = [edge(processor.size, name) for name in ("shortest_edge", "longest_edge")]
    return None not in edges and hasattr(processor, "merge_size")


def edge(size: Any, name: str) -> int | None:
    """Return an entry of a processor's size, which is a dict or a SizeDict, by version."""
    return size[name] if name in size else None  # noqa: SIM401 (a SizeDict has no `get` everywhere)


def field_of(preference: Preference, index: int) -> str:
    """Return how published rows call a medium: images and videos are counted in columns of their own."""
    kind = preference.media[index].kind
    return f"{kind}s[{sum(ref.kind == kind for ref in preference.media[:index])}]"


def within(area: int | None, least: int, most: int | None) -> int | None:
    """Return the area a medium is shrunk to: not below what is kept of every medium, not above what is configured."""
    if area is None:
        return most
    return max(area, least) if most is None else min(max(area, least), most)
