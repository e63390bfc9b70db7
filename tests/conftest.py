"""Fixtures that tests of several rooms share."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch is imported: tests run side by side, one thread each, and nothing is fetched from a network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("COLUMNS", "120")

REPOSITORY = Path(__file__).resolve().parents[1]
_SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, and say so."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_model("qwen2_5_vl")` is a directory with that family's miniature; the same arguments give the same one."""

    @functools.cache
    def build(name: str, **choices) -> Path:
        from mmalign.miniature import models

        return models.save(name, tmp_path_factory.mktemp(name), **choices)

    return build


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Files of real data that lie beside the repository, where there are any."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return _SHARED_DATA
