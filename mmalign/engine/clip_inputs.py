"""Videos on their way into a video processor.

Frames are chosen and brought within their bounds while they are decoded, whoever the processor: thirty-two frames of
1080p take 200 MB, and no worker should hold them. The Qwen kind gets the bounds as well, because what it rounds to
whole patches must not come out larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from mmalign.engine.arriving import SMALLEST_PIXELS, ArrivingClip, Medium, PixelBounds, Size, has_pixel_bounds, within
from mmalign.engine.views import Change
from mmalign.modalities import video
from mmalign.modalities.clips import frame_size, pixels_per_frame
from mmalign.modalities.pixels import resized
from mmalign.modalities.video import Clip, ClipShape, VideoLimits


class Clips:
    """Videos for one video processor.

    Args:
        video_processor: of the model.
        limits: where videos may come from, which frames are taken and how large they may be.
    """

    def __init__(self, video_processor: Any, limits: VideoLimits) -> None:
        self._limits = limits
        self._bounded_inside = has_pixel_bounds(video_processor)
        self._fewest = getattr(video_processor, "temporal_patch_size", 1)

    @property
    def smallest_pixels(self) -> int:
        """Area below which no frame is shrunk."""
        return max(SMALLEST_PIXELS, self._limits.min_pixels or 1)

    def max_pixels(self, shrunk_to: int | None) -> int | None:
        """Return the bound on a frame's area in a row whose media are shrunk to this area (None: not)."""
        return within(shrunk_to, self.smallest_pixels, self._limits.max_pixels)

    def shape(self, medium: Medium) -> ClipShape:
        """Return what the header says of the frames that are going to be taken; sizes follow from that in the file."""
        return video.check(medium.ref, self._limits, field=medium.field)

    def arriving(self, shape: ClipShape, shrunk_to: int | None) -> ArrivingClip:
        """Return how a clip of this shape reaches the processor."""
        limits = replace(self._limits, max_pixels=self.max_pixels(shrunk_to))
        width, height = frame_size(shape.source_width, shape.source_height, shape.frames, limits)
        return self._arriving(shape, (width, height), shape.timestamps_s, limits)

    def load(
        self, medium: Medium, shrunk_to: int | None, change: Change | None = None, place: int = 0
    ) -> tuple[np.ndarray, ArrivingClip, Any]:
        """Decode a clip; return its frames uint8 [F, H, W, 3], what they are, and what tells them from others.

        A still is shown for as long as the processor's shortest video.

        Args:
            change: what is done to the frames; their shape and their times stay.
            place: of the clip among those of the row.
        """
        clip = video.load(medium.ref, self._limits, self.max_pixels(shrunk_to), field=medium.field)
        frames, (height, width) = clip.frames, clip.frames.shape[1:3]
        if change is not None:
            frames = self._changed(clip, medium, change, place)
        limits = replace(self._limits, max_pixels=self.max_pixels(shrunk_to))
        arriving = self._arriving(clip, (width, height), clip.timestamps_s, limits)
        if arriving.frames > len(frames):
            frames = np.concatenate([frames, np.repeat(frames[-1:], arriving.frames - len(frames), axis=0)])
        return frames, arriving, [clip.sha256, clip.indices, frames.shape]

    def _changed(self, clip: Clip, medium: Medium, change: Change, place: int) -> np.ndarray:
        """Return the frames of a changed clip in the shape of the clip; frames beside those left out are held."""
        count, height, width = clip.frames.shape[:3]
        changed = change("video", clip, place).frames
        changed = changed[np.arange(count) * len(changed) // count]
        if changed.shape[1:3] != (height, width):
            pictures = (resized(Image.fromarray(frame), (width, height)) for frame in changed)
            changed = np.stack([np.asarray(picture) for picture in pictures])
        if change.box is None:
            return changed
        shape = self.shape(medium)
        rows, columns = change.inside((width, height), (shape.source_width, shape.source_height))
        frames = clip.frames.copy()
        frames[:, rows, columns] = changed[:, rows, columns]
        return frames

    def _arriving(
        self, clip: Clip | ClipShape, size: Size, timestamps_s: Sequence[float], limits: VideoLimits
    ) -> ArrivingClip:
        missing = max(0, self._fewest - len(timestamps_s))
        most = pixels_per_frame(len(timestamps_s), limits)
        return ArrivingClip(
            frames=len(timestamps_s) + missing,
            width=size[0],
            height=size[1],
            timestamps_s=(*timestamps_s, *timestamps_s[-1:] * missing),
            source_fps=clip.source_fps,
            duration_s=clip.duration_s,
            bounds=PixelBounds(limits.min_pixels, most) if self._bounded_inside else None,
        )
