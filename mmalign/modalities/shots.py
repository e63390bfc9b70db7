"""Where a video cuts from one shot to the next: without weights, or with any model that says it frame by frame.

A detector is a function `frames -> probabilities`: small RGB frames, uint8 [N, 27, 48, 3], to N numbers from 0 to 1,
high where frame k is the last of a shot or part of a transition. `hard_cuts` is one and needs no weights. TransNetV2 is
another: its "many hot" head after a sigmoid, over windows, with the threshold 0.5, is what TEMPLE uses (arXiv
2503.16929 and its released code; weights are not part of this project):

    shots = detect(ref, limits, detector=lambda frames: over_windows(frames, transnet))
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mmalign.formats.media import MediaRef
from mmalign.modalities import video
from mmalign.modalities.video import VideoLimits

Detector = Callable[[np.ndarray], np.ndarray]

# Numbers of `hard_cuts`, whose docstring says what they mean.
_BINS = 8
_LEAST_HISTOGRAM = 0.25
_LEAST_DIFFERENCE = 0.06
_LARGE_DIFFERENCE = 0.2
_LEAST_CONTRAST = 3.0
_NEIGHBOURS = 5

_BLOCK_FRAMES = 128
"""Frames that are looked at together: all frames of a long video in wider numbers would need many times their size."""


class Shot(NamedTuple):
    """Frames first..stop-1 of a file."""

    first: int
    stop: int


def detect(
    ref: MediaRef,
    limits: VideoLimits,
    *,
    detector: Detector | None = None,
    threshold: float = 0.5,
    field: str = "video",
) -> list[Shot]:
    """Return the shots of a whole video, cleaned up as TEMPLE does.

    Args:
        detector: what finds cuts; `hard_cuts` without one.
        threshold: probabilities above it are transitions.

    Raises:
        RowError: as `video.thumbnails`.
    """
    small = video.thumbnails(ref, limits, field=field)
    shots = between_transitions((detector or hard_cuts)(small.frames), threshold)
    return cleaned(shots, small.frames, small.fps)


def hard_cuts(frames: np.ndarray) -> np.ndarray:
    """Return 1.0 for the last frame of each shot and 0.0 for all others: hard cuts, neither fades nor dissolves.

    Frame k and the next differ by

        difference  the mean absolute difference of their values, over 255
        histogram   half the L1 distance of their histograms of 8 x 8 x 8 colours

    and a cut has a difference of at least 0.06 with a histogram of at least 0.25, or a difference of at least 0.2 (the
    same colours elsewhere); and in both cases 3 times the median difference of the 5 frames before and the 5 after, by
    which fast motion and flicker differ from cuts.

    Args:
        frames: uint8 [N, h, w, 3].

    Returns:
        float32 [N]; the last frame of the video is 0.
    """
    cuts = np.zeros(len(frames), dtype=np.float32)
    if len(frames) < 2:
        return cuts
    # A block ends with the frame that the next begins with.
    blocks = [_changes(frames[k : k + _BLOCK_FRAMES + 1]) for k in range(0, len(frames) - 1, _BLOCK_FRAMES)]
    differences, distances = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    for k, (difference, distance) in enumerate(zip(differences, distances, strict=True)):
        around = np.delete(differences[max(0, k - _NEIGHBOURS) : k + _NEIGHBOURS + 1], min(k, _NEIGHBOURS))
        usual = float(np.median(around)) if len(around) else 0.0
        other = difference >= _LARGE_DIFFERENCE or (difference >= _LEAST_DIFFERENCE and distance >= _LEAST_HISTOGRAM)
        cuts[k] = other and difference >= _LEAST_CONTRAST * usual
    return cuts


def _changes(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return difference and histogram distance of each frame and the next."""
    differences = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3)) / 255
    histograms = np.stack([_histogram(frame) for frame in frames])
    return differences, np.abs(np.diff(histograms, axis=0)).sum(axis=1) / 2


def _histogram(frame: np.ndarray) -> np.ndarray:
    """Return the share of pixels in each of 8 x 8 x 8 colours."""
    bins = (frame // (256 // _BINS)).astype(np.int64)
    codes = (bins[..., 0] * _BINS + bins[..., 1]) * _BINS + bins[..., 2]
    return np.bincount(codes.ravel(), minlength=_BINS**3) / codes.size


def over_windows(frames: np.ndarray, detector: Detector, *, length: int = 2000, overlap: int = 400) -> np.ndarray:
    """Return a detector's probabilities for a video longer than it can take at once.

    Windows of `length` frames start every length - overlap frames; half the overlap is trimmed from each edge inside
    the video. A tail shorter than the overlap joins the last window.

    Args:
        frames: uint8 [N, h, w, 3].

    Returns:
        float [N].
    """
    count, margin = len(frames), overlap // 2
    parts, start = [], 0
    while True:
        stop = start + length
        is_last = count - stop < overlap
        stop = count if is_last else stop
        found = np.asarray(detector(frames[start:stop]))
        parts.append(found[0 if start == 0 else margin : len(found) if is_last else len(found) - margin])
        if is_last:
            return np.concatenate(parts)
        start = stop - overlap


def between_transitions(probabilities: np.ndarray, threshold: float = 0.5) -> list[Shot]:
    """Return the shots between transitions: each ends with the first frame of one, the next begins after its last."""
    transition = (np.asarray(probabilities) > threshold).tolist()
    shots, first = [], 0
    for k, (before, now) in enumerate(itertools.pairwise([False, *transition])):
        if before and not now:
            first = k
        elif now and not before:
            shots.append(Shot(first, k + 1))
    if transition and not transition[-1]:
        shots.append(Shot(first, len(transition)))
    return shots


def cleaned(
    shots: Sequence[Shot],
    frames: np.ndarray,
    fps: float,
    *,
    least_frames: int = 8,
    least_s: float = 0.2,
    least_range: int = 10,
) -> list[Shot]:
    """Return the shots that show something long enough: TEMPLE's rules.

    Args:
        frames: uint8 [N, h, w, 3], of the whole video. Departure: TEMPLE looks at full-size grey frames.
        fps: frames per second.
        least_frames, least_s: shorter shots are dropped.
        least_range: shots whose brightest and darkest grey values over all frames differ by less are dropped.
    """
    kept = []
    for shot in shots:
        count = shot.stop - shot.first
        if count < least_frames or count < least_s * fps:
            continue
        if _grey_range(frames[shot.first : shot.stop]) >= least_range:
            kept.append(shot)
    return kept


def _grey_range(frames: np.ndarray) -> float:
    """Return how far the brightest and the darkest grey value of all frames are apart."""
    weights = np.array([0.299, 0.587, 0.114])
    darkest, brightest = np.inf, -np.inf
    for k in range(0, len(frames), _BLOCK_FRAMES):
        grey = frames[k : k + _BLOCK_FRAMES] @ weights
        darkest, brightest = min(darkest, grey.min()), max(brightest, grey.max())
    return float(brightest - darkest)
