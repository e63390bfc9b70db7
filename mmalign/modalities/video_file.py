"""A video file: when its frames are shown, and its frames. Runs in the decoder's process, never beside a training loop.

PyAV reads the packets once, without decoding them: they say when each frame is shown, which of them stand alone, and
whether the file is damaged. Then decord decodes where it can be trusted (`_decord`), PyAV everywhere else. Frames that
decord gives as plain black are asked of PyAV again.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
from PIL import Image

from mmalign.modalities.clips import Refused, Want, require_size
from mmalign.modalities.sampling import Timeline

# Containers that hold their video themselves. Playlists and concatenations stay shut: they can point anywhere.
_CONTAINERS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg,mpegvideo,m4v,h264,hevc,ivf,rm,gif,apng"
_DECORDS_OWN = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
"""Containers in which decord finds the frames it is asked for. In MPEG-TS it gives others, without a word."""

_DECORDS_MOST_BYTES = 512 << 20
"""decord decodes ahead of a slow reader without bound: all frames of the file may lie in memory at once."""

_SMALLEST_SHARE = 0.9
"""A file with fewer frames than this share of what its header promises was cut."""

_NO_TIME = -(1 << 62)
_RATE_WITHOUT_TIMES = 25.0
_SAME_TIME_S = 0.005
"""decord keeps times as 32-bit floats."""

_MOST_LOST = 2
"""A codec may keep its last frames to itself; a frame this much earlier or later stands in for one that never came."""


class VideoFile:
    """A `FrameReader` of an encoded file.

    Args:
        source: a path, or the bytes of the file.
        want: what is too large.

    Raises:
        Refused: it is no video, has no pictures, is damaged, or too large.
    """

    def __init__(self, source: str | bytes, want: Want) -> None:
        self._source, self._want = source, want
        container = _open(source)
        try:
            stream = _picture_stream(container)
            require_size(stream.codec_context.width, stream.codec_context.height, want)
            ticks, self.timeline = _index(container, stream)
            self._container_name = container.format.name
        finally:
            container.close()
        self._decoder = _Decoder(source, ticks, self.timeline)
        first = self._decoder.at(0)
        self._turns = round(first.rotation / 90) % 4  # against the clock, until the picture is upright
        sideways = self._turns % 2 == 1
        self.width, self.height = (first.height, first.width) if sideways else (first.width, first.height)

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """Yield the frames with these numbers, ascending, upright and as RGB."""
        # decord turns pictures itself, but those on their side come out in a wrong shape.
        size_bytes = 3 * self.width * self.height * len(self.timeline)
        trusted = self._container_name in _DECORDS_OWN and self._turns == 0 and size_bytes <= _DECORDS_MOST_BYTES
        fast = _decord(self._source, self.timeline) if trusted else None
        for index in indices:
            pixels = None
            if fast is not None:
                try:
                    pixels = fast[index].asnumpy()
                except Exception:  # decord raises DECORDError, or its limit of repaired frames: PyAV has the last word
                    fast = None
            if pixels is None or not pixels.any():
                frame = self._decoder.at(index)
                require_size(frame.width, frame.height, self._want)
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), self._turns)
            yield Image.fromarray(np.ascontiguousarray(pixels))


def _open(source: str | bytes) -> Any:
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        return av.open(file, options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"})
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise Refused("is not in a known format or broken", str(error)) from error


def _picture_stream(container: Any) -> Any:
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise Refused("has no picture stream", "it holds sound or other data alone")


def _index(container: Any, stream: Any) -> tuple[np.ndarray | None, Timeline]:
    """Return when each frame is shown in ticks of the stream, None in a file that does not say so, and the timeline.

    Raises:
        Refused: the file is damaged or was cut.
    """
    promised, length_bytes = stream.frames, _length_bytes(stream.codec_context)
    ticks, lengths, alone = array("q"), array("q"), []
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if length_bytes and not _adds_up(packet, length_bytes):
                raise Refused("is truncated or broken", f"packet {len(ticks)} is damaged")
            tick = packet.pts if packet.pts is not None else packet.dts
            ticks.append(_NO_TIME if tick is None else tick)
            lengths.append(packet.duration or 0)
            alone.append(packet.is_keyframe)
    except av.error.FFmpegError as error:
        raise Refused("is truncated or broken", str(error)) from error
    if not ticks or len(ticks) < _SMALLEST_SHARE * promised:
        raise Refused("is truncated or broken", f"{len(ticks)} of {promised} frames are there")
    rate = float(stream.average_rate or stream.guessed_rate or _RATE_WITHOUT_TIMES)
    if len(np.unique(ticks)) <= len(ticks) // 2:
        return None, Timeline(times_s=np.arange(len(ticks)) / rate, end_s=len(ticks) / rate, keyframes=_places(alone))
    timeline = _timeline(np.array(ticks), np.array(lengths), np.array(alone), float(stream.time_base), rate)
    # AVI knows when frames are decoded. With frames coded out of order that does not say which one is shown when.
    out_of_order = container.format.name == "avi" and stream.codec_context.has_b_frames
    return None if out_of_order else np.unique(ticks), timeline


def _places(alone: Sequence[bool]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(alone).tolist())


def _length_bytes(codec: Any) -> int:
    """Return how many bytes say how long each unit of an H.264 or H.265 packet is, 0 where units are found otherwise.

    The decoder's settings (avcC, hvcC) say it in the two lowest bits of byte 4 or 21: ISO/IEC 14496-15.
    """
    place = {"h264": 4, "hevc": 21}.get(codec.name)
    settings = codec.extradata or b""
    return 0 if place is None or len(settings) <= place or settings[0] != 1 else (settings[place] & 3) + 1


def _adds_up(packet: Any, length_bytes: int) -> bool:
    """True when the units of a packet fill it exactly: a damaged packet is found without decoding it."""
    content, place = memoryview(packet), 0
    while place < len(content):
        length = int.from_bytes(content[place : place + length_bytes], "big")
        place += length_bytes + length
        if length == 0 or place > len(content):
            return False
    return True


def _timeline(ticks: np.ndarray, lengths: np.ndarray, alone: np.ndarray, tick_s: float, rate: float) -> Timeline:
    """Put packets, which come in the order of decoding, in the order of showing."""
    order = np.argsort(ticks, kind="stable")
    ticks, first_of_its_time = np.unique(ticks[order], return_index=True)
    lengths, alone = lengths[order][first_of_its_time], alone[order][first_of_its_time]
    times_s = (ticks - ticks[0]) * tick_s
    usual_s = float(np.median(np.diff(times_s))) if len(ticks) > 1 else 1 / rate
    end_s = float(times_s[-1]) + (float(lengths[-1]) * tick_s if lengths[-1] > 0 else usual_s)
    return Timeline(times_s=times_s, end_s=end_s, keyframes=_places(alone))


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
        self._container = _open(self._source)
        self._stream = _picture_stream(self._container)
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
