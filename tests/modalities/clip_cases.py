"""Clips for tests of how videos are read: files of every container, loaded after `check` promised their shape."""

import dataclasses

import numpy as np
from videos import number_of

from mmalign.formats.media import MediaRef
from mmalign.modalities import clips, video, video_source
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video import VideoLimits

ALL = Sampling(policy="uniform", frames=1000)

FILES = {
    "a.mp4": {"codec": "libx264"},
    "b.mp4": {"codec": "mpeg4"},
    "c.mkv": {"codec": "libx264"},
    "d.avi": {"codec": "mpeg4"},
    "e.avi": {"codec": "libx264"},
    "f.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "g.mov": {"codec": "mjpeg"},
    "h.ts": {"codec": "libx264"},
    "i.flv": {"codec": "libx264"},
    "j.h264": {"codec": "libx264"},
}


def ref(uri: str, **facts) -> MediaRef:
    return MediaRef(kind="video", uri=uri, **facts)


def limits_in(root, **values) -> VideoLimits:
    return VideoLimits(**{"root": root, "sampling": ALL, **values})


def loaded(reference: MediaRef, limits: VideoLimits) -> video.Clip:
    """Load a clip, after `check` promised its shape."""
    promised = video.check(reference, limits)
    clip = video.load(reference, limits)
    assert clip.frames.dtype == np.uint8
    assert (promised.frames, promised.height, promised.width, 3) == clip.frames.shape
    assert (len(clip.indices), len(clip.timestamps_s)) == (promised.frames, promised.frames)
    for fact in ("source_fps", "source_frames", "duration_s"):
        assert getattr(promised, fact) == getattr(clip, fact)
    return clip


def seen(clip: video.Clip) -> list[int]:
    return [number_of(frame) for frame in clip.frames]


def want(**values) -> clips.Want:
    return dataclasses.replace(video_source.want_of(ref("x"), VideoLimits(sampling=ALL)), **values)
