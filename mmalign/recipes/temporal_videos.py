"""What is found out about a video before a model tells it: its shots, which are alike, its clips, their frames.

Each stage is a method from what the stages before know of a video to what this one adds: ready for JSON.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mmalign.config.temporal_schema import TemporalConfig
from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import shots, video
from mmalign.modalities.clips import Thumbnails
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.shots import Detector, Shot
from mmalign.modalities.video import VideoLimits
from mmalign.pairs.shot_groups import fused, grouped, why_unsuitable
from mmalign.recipes.stage_records import Record, left_out
from mmalign.rewards.clip import ClipEncoder, cosine

_MOST_CLIP_PIXELS = 768 * 768
"""Of a frame before CLIP shrinks it further: more than any CLIP looks at."""

_DIGITS = 6
"""Of a cosine on disk."""


class TimedShot(NamedTuple):
    """Frames first..stop-1 of a file, and when they are shown."""

    first: int
    stop: int
    start_s: float
    end_s: float


def found_shots(name: str, limits: VideoLimits, config: TemporalConfig, detector: Detector) -> Record:
    """Return frames per second and the shots of a video, `TimedShot`s, cleaned up.

    Raises:
        RowError: the video cannot be read.
    """
    small = video.thumbnails(MediaRef(kind="video", uri=name), limits)
    rules = config.shots
    cuts = shots.between_transitions(detector(small.frames))
    kept = shots.cleaned(
        cuts,
        small.frames,
        small.fps,
        least_frames=rules.least_frames,
        least_s=rules.least_s,
        least_range=rules.least_grey_range,
    )
    if rules.split_longer_than_s is not None:
        kept = [piece for shot in kept for piece in _pieces(shot, small, rules.split_longer_than_s)]
    return {"fps": small.fps, "shots": [_timed(shot, small) for shot in kept]}


def _timed(shot: Shot, small: Thumbnails) -> TimedShot:
    times_s, stop = small.times_s, shot.stop
    end_s = times_s[stop] if stop < len(times_s) else times_s[-1] + 1 / small.fps
    return TimedShot(shot.first, stop, times_s[shot.first], end_s)


def _pieces(shot: Shot, small: Thumbnails, longest_s: float) -> list[Shot]:
    """Cut a shot into the fewest pieces of nearly equal numbers of frames that are none longer than so many seconds."""
    whole = _timed(shot, small)
    count = min(shot.stop - shot.first, math.ceil((whole.end_s - whole.start_s) / longest_s - 1e-6))
    parts = np.array_split(np.arange(shot.first, shot.stop), max(1, count))
    return [Shot(int(part[0]), int(part[-1]) + 1) for part in parts]


def enough_shots(known: Record, config: TemporalConfig) -> Record:
    """Leave out videos with too few, too many or too long shots."""
    rules, found = config.shots, [TimedShot(*shot) for shot in known["shots"]]
    if len(found) < rules.fewest:
        return left_out(f"fewer than {rules.fewest} shots")
    if len(found) > rules.most:
        return left_out(f"more than {rules.most} shots")
    if any(shot.end_s - shot.start_s > rules.longest_s for shot in found):
        return left_out(f"a shot is longer than {rules.longest_s:g} s")
    return {}


def similarity(name: str, known: Record, limits: VideoLimits, encoder: ClipEncoder) -> Record:
    """Return the cosines of the middle frames of all shots, [N, N].

    Raises:
        RowError: frames cannot be decoded, or CLIP gives no numbers.
    """
    middles = tuple((first + stop) // 2 for first, stop, *_ in known["shots"])
    clip = video.load(MediaRef(kind="video", uri=name, frame_indices=middles), limits, _MOST_CLIP_PIXELS)
    vectors = encoder.pictures(clip.frames)
    return {"similarity": [[round(value, _DIGITS) for value in row] for row in cosine(vectors, vectors).tolist()]}


def clips(known: Record, config: TemporalConfig) -> Record:
    """Return groups of shots, and clips as (group, shots); leave out videos whose order would not be seen."""
    rules = config.clips
    groups = grouped(np.array(known["similarity"]), rules.alike_above)
    made = fused(groups)
    shares = {"most_share": rules.most_share_of_a_group, "most": rules.most_of_a_group}
    if why := why_unsuitable(made, fewest=rules.fewest, **shares):
        return {**left_out(why), "groups": groups, "clips": made}
    return {"groups": groups, "clips": made}


def frames(name: str, known: Record, limits: VideoLimits, config: TemporalConfig) -> Record:
    """Return, for each clip, when it is shown and the numbers of the frames that the model sees of it.

    Raises:
        RowError: frames cannot be decoded.
    """
    spans_s, chosen = [], []
    sampling = Sampling(policy="sharpness", frames=config.clips.frames)
    for _, members in known["clips"]:
        first, last = (TimedShot(*known["shots"][shot]) for shot in (members[0], members[-1]))
        span_s = (first.start_s, last.end_s)
        seen = video.load(MediaRef(kind="video", uri=name, span_s=span_s), replace(limits, sampling=sampling))
        spans_s.append(span_s)
        chosen.append(seen.indices)
    if any(not indices for indices in chosen):
        raise RowError("clip has no frame", field="video", value=name)
    return {"spans_s": spans_s, "frames": chosen}
