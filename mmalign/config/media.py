"""What a recipe says about media, as the limits that modalities obey: the same wherever a row is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign.config.schema import RowsConfig, VideoConfig
from mmalign.formats.media import MediaKind
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.table import limits_below

DEFAULT_CACHE_GB = 20.0


def media_limits(config: RowsConfig, source: str) -> dict[MediaKind, MediaLimits]:
    """Return where media of `source` may come from, how large they may be, and which frames of videos are taken."""
    images = {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels}
    own = {"image": images, "video": _of_videos(config.video)}
    return limits_below(data_root(config, source), own=own, allow_http=config.allow_http)


def data_root(config: RowsConfig, source: str) -> Path:
    """Return the directory that media paths are below: data.root, or where the rows are."""
    if config.root is not None:
        return Path(config.root)
    place = Path(source)
    return place if place.is_dir() else place.parent if place.exists() else Path(".")


def what_is_seen(config: RowsConfig) -> dict[str, Any]:
    """Return the settings that decide what a model sees of a row, without those that only say how it is fetched."""
    fields = {"root", "format", "relabel", "min_pixels", "max_pixels", "max_length", "allow_http"}
    video = config.video.model_dump(exclude={"decode_timeout_s", "cache_dir", "cache_max_gb"})
    return {**config.model_dump(include=fields), "video": {**video, "fps": _sampling(config.video).fps}}


def _sampling(config: VideoConfig) -> Sampling:
    return Sampling.of(config.sampling, frames=config.frames, fps=config.fps)


def _of_videos(config: VideoConfig) -> dict[str, Any]:
    return {
        "sampling": _sampling(config),
        "min_pixels": config.min_pixels,
        "max_pixels": config.max_pixels,
        "max_total_pixels": config.max_total_pixels,
        "decode_timeout_s": config.decode_timeout_s,
        "decode_memory_bytes": int(config.decode_memory_gb * 10**9),
        "cache_dir": config.cache_dir,
        "cache_max_bytes": int((config.cache_max_gb or DEFAULT_CACHE_GB) * 10**9),
    }
