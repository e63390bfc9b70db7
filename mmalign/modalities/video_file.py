"""A video file: when its frames are shown, and its frames. Runs in the decoder's process, never beside a training loop.

PyAV reads the packets once, without decoding them: they say when each frame is shown, which of them stand alone, and
whether the file is damaged. Then decord decodes where it can be trusted (`_decord`), PyAV everywhere else. Frames that
decord gives as plain black are asked of PyAV again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
from PIL import Image

from mmalign.modalities.clips import Refused, Want, require_size
from mmalign.modalities.packets import index_of, open_container, picture_stream
from mmalign.modalities.sampling import Timeline

_DECORDS_OWN = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers in which decord finds the frames it is asked for. In MPEG-TS it gives others; of AVI it has no times."""

_DECORDS_SHARE = 8
"""decord decodes ahead of a slow reader without bound: all frames of the file may lie in memory at once, and are to
fill no more than one part in so many of it."""

_SAME_TIME_S = 0.005
"""decord keeps times as 32-bit floats."""

_MOST_LOST = 2
"""A codec may keep its last frames to itself; a frame this much earlier or later stands in for one that never came."""


class VideoFile:
    """A `FrameReader` of an encoded file.

    Args:
        source: a path, or the bytes of the file.
        want: what is too large.
        uses_decord: False leaves all decoding to PyAV.

    Raises:
        Refused: it is no video, has no pictures, is damaged, or too large.
    """

    def __init__(self, source: str | bytes, want: Want, *, uses_decord: bool = True) -> None:
        self._source, self._want = source, want
        container = open_container(source)
        try:
            stream = picture_stream(container)
            require_size(stream.codec_context.width, stream.codec_context.height, want)
            ticks, self.timeline = index_of(container, stream)
            self._container_name = container.format.name
        finally:
            container.close()
        self._decoder = _Decoder(source, ticks, self.timeline)
        first = self._decoder.at(0)
        self._turns = round(first.rotation / 90) % 4  # against the clock, until the picture is upright
        sideways = self._turns % 2 == 1
        self.width, self.height = (first.height, first.width) if sideways else (first.width, first.height)
        self._uses_decord = uses_decord and self._is_for_decord()

    def _is_for_decord(self) -> bool:
        """True for files in which decord finds the right frames, upright, in bounded memory."""
        size_bytes = 3 * self.width * self.height * len(self.timeline)
        is_small = size_bytes <= self._want.decode_memory_bytes // _DECORDS_SHARE
        # decord turns pictures itself, but those on their side come out in a wrong shape.
        return self._container_name in _DECORDS_OWN and self._turns == 0 and is_small

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """Yield the frames with these numbers, ascending, upright and as RGB."""
        fast = _decord(self._source, self.timeline) if self._uses_decord else None
        for index in indices:
            pixels = None
            if fast is not None:
                try:
                    pixels = fast[index].asnumpy()
                except Exception:  # decord raises DECORDError, or its limit of repaired frames: PyAV has the last word
                    fast = None
            if pixels is None or pixels.shape != (self.height, self.width, 3) or not pixels.any():
                frame = self._decoder.at(index)
                require_size(frame.width, frame.height, self._want)
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), self._turns)
            yield Image.fromarray(np.ascontiguousarray(pixels))


class _Lost(Exception):  # noqa: N818
    """A frame did not come out where it was expected."""


class _Decoder:
    """PyAV's frames by number, for ascending numbers: it goes on decoding, or jumps to a later frame that stands alone.

    When a jump leads astray, it decodes from the beginning, once; when a frame is lost even so, the file is broken.
    """

    def __init__(self, source: str | bytes, ticks: np.ndarray | None, timeline: Timeline) -> None:
        self._source, self._ticks = source, ticks
        self._keyframes = np.array(timeline.keyframes, dtype=np.int64)
        self._jumps = ticks is not None
        self._restart()

    def at(self, target: int) -> Any:
        """Return the frame with this number as PyAV has it."""
        try:
            return self._find(target)
        except _Lost:
            self._jumps = False
            self._restart()
        try:
            return self._find(target)
        except _Lost as lost:
            raise Refused("is truncated or broken", f"frame {target} cannot be decoded: {lost}") from lost

    def _restart(self) -> None:
        self._container = open_container(self._source)
        self._stream = picture_stream(self._container)
        self._stream.codec_context.thread_count = 1
        self._frames = self._container.decode(self._stream)
        self._position, self._held = -1, None

    def _find(self, target: int) -> Any:
        if target < self._position:
            self._restart()
        self._jump(target)
        while self._position < target:
            previous = self._position, self._held
            try:
                self._held = next(self._frames)
            except StopIteration:
                return self._stand_in(target, *previous, "the file ends before it")
            except av.error.FFmpegError as error:
                raise _Lost(str(error)) from error
            self._position = self._number(self._held)
        if self._position - target > _MOST_LOST:
            raise _Lost(f"frame {self._position} came instead")
        if self._held.is_corrupt:
            raise _Lost("it is damaged")
        return self._held

    def _stand_in(self, target: int, position: int, held: Any, why: str) -> Any:
        if held is None or target - position > _MOST_LOST:
            raise _Lost(why)
        return held

    def _jump(self, target: int) -> None:
        """Go to the last frame before the target that stands alone, if that is ahead."""
        place = int(np.searchsorted(self._keyframes, target, side="right")) - 1
        if not self._jumps or place < 0 or self._keyframes[place] <= self._position + 1:
            return
        try:
            self._container.seek(int(self._ticks[self._keyframes[place]]), stream=self._stream)
        except av.error.FFmpegError as error:
            raise _Lost(str(error)) from error
        self._frames = self._container.decode(self._stream)
        self._position, self._held = -1, None

    def _number(self, frame: Any) -> int:
        """Return which frame of the timeline this is; without times the next one."""
        tick = frame.pts if frame.pts is not None else frame.dts
        if self._ticks is None or tick is None:
            return self._position + 1
        return max(0, int(np.searchsorted(self._ticks, tick, side="right")) - 1)


def _decord(source: str | bytes, timeline: Timeline) -> Any:
    """Return decord's reader, None where it is not installed, refuses the file, or sees other times than PyAV."""
    try:
        import decord
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        # The smallest share above 0: a single repaired frame ends the reading.
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        reader = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1, fault_tol=1e-9)
    except Exception:
        return None
    if len(reader) != len(timeline):
        return None
    starts_s = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    agrees = np.abs(starts_s - starts_s[0] - timeline.times_s).max() < _SAME_TIME_S
    return reader if agrees else None
