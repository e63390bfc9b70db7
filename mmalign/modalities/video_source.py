"""From a reference to a video to its frames: where they are, who decodes them, and what is kept of them on disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import clip_cache, clips, decoder
from mmalign.modalities.clips import ClipShape, Refused, Taken, Thumbnails, Want
from mmalign.modalities.fetch import is_local, local_path, read_bytes, shown
from mmalign.modalities.frame_files import FrameFiles, frame_refs
from mmalign.modalities.image import ImageLimits

if TYPE_CHECKING:
    from mmalign.modalities.video import VideoLimits


_SHARE_OF_A_FILE = 4
"""The decoder holds a file that is sent as bytes while it decodes: it may fill one part in so many of its memory."""

_MOST_SHAPES = 4096
_shapes: dict[tuple[Any, Want], ClipShape] = {}
"""What the decoder said of files: rows that are bounded in length ask before every reading, cached frames or not."""


def want_of(ref: MediaRef, limits: VideoLimits, max_pixels: int | None = None) -> Want:
    """Return what is asked of a reader; `max_pixels` overrides the limit of that name."""
    return Want(
        sampling=limits.sampling,
        span_s=ref.span_s,
        frame_indices=ref.frame_indices,
        min_pixels=limits.min_pixels,
        max_pixels=max_pixels or limits.max_pixels,
        max_total_pixels=limits.max_total_pixels,
        max_decoded_pixels=limits.max_decoded_pixels,
        max_aspect_ratio=limits.max_aspect_ratio,
        max_frames=limits.max_frames,
        decode_memory_bytes=limits.decode_memory_bytes,
    )


@contextmanager
def _refusals(ref: MediaRef, field: str) -> Iterator[None]:
    """Turn what the decoder refuses into errors that name row and field."""
    try:
        yield
    except Refused as refused:
        raise RowError(f"video {refused.rule}", field=field, value=shown(ref), hint=refused.hint) from refused
    except OSError as error:  # it was there a moment ago
        raise RowError("video cannot be read", field=field, value=shown(ref), hint=str(error)) from error


def _source(ref: MediaRef, limits: VideoLimits, field: str) -> tuple[str | None, bytes]:
    """Return the path of a file, or its bytes when it has none."""
    if is_local(ref):
        return local_path(ref, limits, field=field), b""
    most_bytes = limits.decode_memory_bytes // _SHARE_OF_A_FILE
    bounded = dataclasses.replace(limits, max_file_bytes=min(limits.max_file_bytes, most_bytes))
    return None, read_bytes(ref, bounded, field=field)


def shape(ref: MediaRef, limits: VideoLimits, want: Want, field: str) -> ClipShape:
    """Return the shape of what `take` takes.

    Raises:
        RowError: the video is refused.
    """
    with _refusals(ref, field):
        pictures = frame_refs(ref, limits, field=field)
        if pictures is None:
            return _shape_of_file(_verified(ref, limits, field), want, limits.decode_timeout_s)
        reader = _reader_of(pictures, limits, field)
        reader.require(clips.candidates(reader, want))
        return clips.shape_of(reader, want)


def take(ref: MediaRef, limits: VideoLimits, want: Want, field: str) -> tuple[Taken, str]:
    """Return what is taken of a video, decoded or from disk, and the digest of what it was decoded from.

    Raises:
        RowError: the video is refused.
    """
    with _refusals(ref, field):
        pictures = frame_refs(ref, limits, field=field)
        if pictures is not None:
            reader = _reader_of(pictures, limits, field)
            sha256 = reader.digest(clips.candidates(reader, want))
            return _kept(limits, sha256, want, lambda: clips.take(reader, want)), sha256
        source = _verified(ref, limits, field)
        sha256 = _digest_of(*source)
        return _kept(limits, sha256, want, lambda: decoder.take(*source, want, limits.decode_timeout_s)), sha256


def thumbnails(ref: MediaRef, limits: VideoLimits, width: int, height: int, field: str) -> Thumbnails:
    """Return every frame of a video, small.

    Raises:
        RowError: the video is refused.
    """
    with _refusals(ref, field):
        pictures = frame_refs(ref, limits, field=field)
        if pictures is not None:
            return clips.thumbnails(_reader_of(pictures, limits, field), width, height)
        source, timeout_s = _source(ref, limits, field), limits.decode_timeout_s
        return decoder.thumbnails(*source, want_of(ref, limits), timeout_s, width=width, height=height)


def _kept(limits: VideoLimits, sha256: str, want: Want, decode: Callable[[], Taken]) -> Taken:
    """Return what is kept on disk, or decode and keep it; without a directory decode it."""
    if limits.cache_dir is None:
        return decode()
    cache = clip_cache.opened(limits.cache_dir, limits.cache_max_bytes)
    key = clip_cache.key_of(sha256, want)
    taken = clip_cache.get(cache, key)
    if taken is None:
        taken = decode()
        clip_cache.put(cache, key, taken)
    return taken


def _reader_of(pictures: list[MediaRef], limits: VideoLimits, field: str) -> FrameFiles:
    return FrameFiles(pictures, _of_pictures(limits), timeout_s=limits.decode_timeout_s, field=field)


def _shape_of_file(source: tuple[str | None, bytes], want: Want, timeout_s: float) -> ClipShape:
    """Return the shape of a file; it is asked of the decoder once, and again when the file changed."""
    path, content = source
    key = (hashlib.sha256(content).digest() if path is None else _facts(path), want)
    known = _shapes.get(key)
    if known is None:
        known = decoder.shape(path, content, want, timeout_s)
        if len(_shapes) >= _MOST_SHAPES:
            _shapes.clear()
        _shapes[key] = known
    return known


def _verified(ref: MediaRef, limits: VideoLimits, field: str) -> tuple[str | None, bytes]:
    """Return the source of a file, which is the one that was listed where the row says its digest."""
    source = _source(ref, limits, field)
    if ref.sha256 is not None and _digest_of(*source) != ref.sha256.lower():
        raise Refused("does not match its sha256", "it changed since it was listed")
    return source


def _digest_of(path: str | None, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if path is None else _hash_of(path)


def _facts(path: str) -> tuple[str, int, int, int]:
    """Return what tells a file from itself before a change."""
    facts = os.stat(path)
    return path, facts.st_size, facts.st_mtime_ns, facts.st_ino


def _hash_of(path: str) -> str:
    return _hash_as_it_is(*_facts(path))


@functools.lru_cache(maxsize=4096)
def _hash_as_it_is(path: str, size_bytes: int, changed_ns: int, inode: int) -> str:
    """Return the hex sha256 of a file; the other arguments make a changed file another question."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _of_pictures(limits: VideoLimits) -> ImageLimits:
    """Return the same limits for the frames of a folder, each at its full size."""
    own = ImageLimits()
    return ImageLimits(
        root=limits.root,
        max_file_bytes=min(limits.max_file_bytes, own.max_file_bytes),
        allow_http=limits.allow_http,
        http_timeout_s=limits.http_timeout_s,
        max_decoded_pixels=limits.max_decoded_pixels,
        max_aspect_ratio=limits.max_aspect_ratio,
    )
