"""What a recipe says about media reaches the modalities, and nothing else of it decides whether rows are made anew."""

from pathlib import Path

import pytest

from mmalign.config.media import data_root, media_limits, what_is_seen
from mmalign.config.schema import DataConfig, VideoConfig
from mmalign.modalities.sampling import Sampling

VIDEO = VideoConfig(
    sampling="uniform",
    frames=6,
    min_pixels=2,
    max_pixels=3000,
    max_total_pixels=9000,
    decode_timeout_s=5.0,
    decode_memory_gb=1.5,
    cache_dir="c",
    cache_max_gb=0.5,
)


def test_every_setting_reaches_the_limits_of_its_kind(tmp_path):
    config = DataConfig(train="r.jsonl", root=str(tmp_path), min_pixels=7, max_pixels=800, allow_http=True, video=VIDEO)
    limits = media_limits(config, "r.jsonl")
    assert all((kind.root, kind.allow_http) == (tmp_path, True) for kind in limits.values())
    assert (limits["image"].min_pixels, limits["image"].max_pixels) == (7, 800)
    video = limits["video"]
    assert video.sampling == Sampling(policy="uniform", frames=6)
    assert (video.min_pixels, video.max_pixels, video.max_total_pixels) == (2, 3000, 9000)
    assert (video.decode_timeout_s, video.cache_dir, video.cache_max_bytes) == (5.0, "c", 500_000_000)
    assert video.decode_memory_bytes == 1_500_000_000


def test_media_are_below_the_rows_when_nothing_else_is_said(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    config = DataConfig(train=str(rows))
    assert data_root(config, str(rows)) == data_root(config, str(tmp_path)) == tmp_path
    assert data_root(config, "someone/on-the-hub") == Path(".")


@pytest.mark.parametrize(
    "change", [{"sampling": "uniform"}, {"fps": 1.0}, {"frames": 9}, {"min_pixels": 9}, {"max_pixels": 9}]
    + [{"max_total_pixels": 9}, {"decode_memory_gb": 2.0}],  # clips that need more are refused
)  # fmt: skip
def test_what_decides_on_frames_decides_on_prepared_rows(change):
    plain = DataConfig(train="r.jsonl")
    assert what_is_seen(plain) != what_is_seen(DataConfig(train="r.jsonl", video=VideoConfig(**change)))


def test_the_rate_that_is_taken_without_one_is_two_frames_a_second():
    plain, written = (DataConfig(train="r.jsonl", video=VideoConfig(**how)) for how in ({}, {"fps": 2.0}))
    assert what_is_seen(plain) == what_is_seen(written)
    assert media_limits(plain, "r.jsonl")["video"].sampling == Sampling(policy="fps", fps=2.0, frames=32)


def test_how_frames_are_fetched_leaves_prepared_rows_alone():
    video = VideoConfig(decode_timeout_s=1.0, cache_dir="c", cache_max_gb=1.0)
    assert what_is_seen(DataConfig(train="r.jsonl", num_workers=3, video=video)) == what_is_seen(
        DataConfig(train="r.jsonl")
    )
