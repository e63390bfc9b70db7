"""The on-disk feature cache: what goes in comes out, whoever else writes, and never more than the cap."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from processes import finish_together

from mmalign.engine import feature_cache
from mmalign.engine.feature_cache import FeatureCache

FLOATS = 256
FILE_BYTES = 2120  # 1,024 of floats and a padded header


def features(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"pooled": torch.full((FLOATS,), value)}


def cache_in(directory, *, version="tower", max_bytes=10**6) -> FeatureCache:
    return FeatureCache(directory, version=version, max_bytes=max_bytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_come_back_bit_for_bit(tmp_path, dtype):
    stored = {"last": torch.randn(3, 5).to(dtype), "deep.0": torch.randn(2).to(dtype)}
    cache_in(tmp_path).put("ab12", stored)
    found = cache_in(tmp_path).get("ab12")
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], stored[name]) and found[name].dtype == dtype for name in stored)


def test_a_key_never_stored_is_a_miss(tmp_path):
    cache = cache_in(tmp_path)
    assert cache.get("ab12") is None
    assert (cache.hits, cache.misses) == (0, 1)


def test_another_version_of_the_tower_sees_nothing(tmp_path):
    cache_in(tmp_path, version="before").put("ab12", features())
    assert cache_in(tmp_path, version="after").get("ab12") is None


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_a_broken_file_is_removed_and_made_again(tmp_path, content, caplog):
    cache = cache_in(tmp_path)
    cache.put("ab12", features())
    path = next(tmp_path.rglob("*.safetensors"))
    path.write_bytes(content)
    assert cache.get("ab12") is None
    assert "is unreadable" in caplog.text and not path.exists()
    cache.put("ab12", features(2.0))
    assert cache.get("ab12")["pooled"][0] == 2.0


def test_a_truncated_file_is_a_miss(tmp_path):
    cache = cache_in(tmp_path)
    cache.put("ab12", features())
    path = next(tmp_path.rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    assert cache.get("ab12") is None


def test_the_entry_unused_for_longest_goes_first(tmp_path):
    cache = cache_in(tmp_path, max_bytes=4 * FILE_BYTES)
    for number, key in enumerate(["aa", "bb", "cc"]):
        cache.put(key, features(number))
        os.utime(next(tmp_path.rglob(f"{key}.safetensors")), (number, number))
    assert cache.get("aa") is not None  # used again: now the youngest
    cache.put("dd", features())
    cache.put("ee", features())
    assert cache.get("bb") is None
    assert cache.get("aa") is not None and cache.get("ee") is not None


def test_the_directory_never_stays_over_its_cap(tmp_path):
    cap = 10 * FILE_BYTES
    writers = [cache_in(tmp_path, max_bytes=cap, version=version) for version in ("old", "new")]
    for number in range(40):
        writers[number % 2].put(f"{number:04d}", features())
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= cap


def test_an_entry_larger_than_the_cap_is_not_stored(tmp_path):
    cache_in(tmp_path, max_bytes=100).put("ab12", features())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_full_disk_switches_writing_off_and_leaves_no_half_file(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_cache, "save_file", full)
    cache = cache_in(tmp_path)
    cache.put("ab12", features())
    cache.put("cd34", features())
    assert caplog.text.count("going on without storing more") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def _write_and_read(directory: str, value: float) -> None:
    cache = cache_in(directory, max_bytes=20 * FILE_BYTES)
    for number in range(60):
        cache.put(f"{number % 7:04d}", features(value))
        found = cache.get(f"{number % 7:04d}")
        assert found is None or len(set(found["pooled"].tolist())) == 1, "an entry of two writers mixed"


def test_several_processes_may_write_the_same_entries(tmp_path):
    finish_together(_write_and_read, [(str(tmp_path / "cache"), float(number)) for number in range(2)], tmp_path)
    assert not list(tmp_path.rglob(".*"))
