"""What packets say before any is decoded: when frames are shown, which of them stand alone, what is damaged."""

from __future__ import annotations

import io
from array import array
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

from mmalign.modalities.clips import Refused
from mmalign.modalities.sampling import Timeline

# Containers that hold their video themselves. Playlists and concatenations stay shut: they can point anywhere.
_CONTAINERS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg,mpegvideo,m4v,h264,hevc,ivf,rm,gif,apng"
_SMALLEST_SHARE = 0.9
"""A file with fewer frames than this share of what its header promises was cut."""

_NO_TIME = -(1 << 62)
_RATE_WITHOUT_TIMES = 25.0


def open_container(source: str | bytes) -> Any:
    """Open a path or the bytes of a file, as one of the containers that hold their video themselves.

    Raises:
        Refused: it is none of them.
    """
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        return av.open(file, options=options, metadata_errors="replace")  # titles are not read, whatever their bytes
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise Refused("is not in a known format or broken", str(error)) from error


def picture_stream(container: Any) -> Any:
    """Return the first stream of moving pictures; a cover is none.

    Raises:
        Refused: there is none.
    """
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise Refused("has no picture stream", "it holds sound or other data alone")


def index_of(container: Any, stream: Any) -> tuple[np.ndarray | None, Timeline]:
    """Return when each frame is shown in ticks of the stream, None in a file that does not say so, and the timeline.

    Raises:
        Refused: the file is damaged or was cut.
    """
    promised, length_bytes = stream.frames, _length_bytes(stream.codec_context)
    ticks, lengths, alone = array("q"), array("q"), []
    count = places = 0
    is_avi = container.format.name == "avi"
    # AVI has a place for each frame that is skipped, and says when frames are decoded: where none is coded out of order
    # that is also when they are shown. What it seems to say of that itself is guessed.
    is_in_order, is_guessed = is_avi and not stream.codec_context.has_b_frames, False
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if length_bytes and not _adds_up(packet, length_bytes):
                raise Refused("is truncated or broken", f"packet {count} is damaged")
            count += 1
            places = packet.dts + 1 if is_avi and packet.dts is not None else count
            if packet.is_discard:  # before the beginning of a clip that was cut without encoding it anew
                continue
            tick = packet.dts if packet.pts is None or is_in_order else packet.pts
            is_guessed |= is_avi and packet.pts != packet.dts
            ticks.append(_NO_TIME if tick is None else tick)
            lengths.append(packet.duration or 0)
            alone.append(packet.is_keyframe)
    except av.error.FFmpegError as error:
        raise Refused("is truncated or broken", str(error)) from error
    if not ticks or places < _SMALLEST_SHARE * promised:
        raise Refused("is truncated or broken", f"{places} of {promised} frames are there")
    rate = float(stream.average_rate or stream.guessed_rate or _RATE_WITHOUT_TIMES)
    # They stand in the order of decoding, so a time that is missing cannot be told from its neighbours.
    if _NO_TIME in ticks or len(np.unique(ticks)) <= len(ticks) // 2:
        return None, Timeline(times_s=np.arange(len(ticks)) / rate, end_s=len(ticks) / rate, keyframes=_places(alone))
    timeline = _timeline(np.array(ticks), np.array(lengths), np.array(alone), stream.time_base, rate)
    return None if is_guessed else np.unique(ticks), timeline


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


def _timeline(ticks: np.ndarray, lengths: np.ndarray, alone: np.ndarray, tick_s: Fraction, rate: float) -> Timeline:
    """Put packets, which come in the order of decoding, in the order of showing."""
    order = np.argsort(ticks, kind="stable")
    ticks, first_of_its_time = np.unique(ticks[order], return_index=True)
    lengths, alone = lengths[order][first_of_its_time], alone[order][first_of_its_time]
    usual = float(np.median(np.diff(ticks))) if len(ticks) > 1 else float(1 / (rate * tick_s))
    last = lengths[-1] if lengths[-1] > 0 else usual
    # Multiplied before it is divided: 243 frames at 25 a second are 9.72 s, not 9.719999999999999.
    times_s = (ticks - ticks[0]) * tick_s.numerator / tick_s.denominator
    end_s = float((ticks[-1] - ticks[0] + last) * tick_s.numerator / tick_s.denominator)
    return Timeline(times_s=times_s, end_s=end_s, keyframes=_places(alone))
