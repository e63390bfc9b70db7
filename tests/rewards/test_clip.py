"""CLIP vectors: unit length, whatever the batch, equal to open_clip's own; what cannot be loaded is named."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from mmalign.errors import ModelError, RowError
from mmalign.miniature import clip as miniature
from mmalign.rewards.clip import ClipEncoder, cosine


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return miniature.save(tmp_path_factory.mktemp("clip") / "model", seed=1)


@pytest.fixture
def encoder(directory):
    return ClipEncoder.load(directory, batch_size=2)


def frames(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 40, 60, 3), dtype=np.uint8))


def test_pictures_are_encoded_as_open_clip_does(directory, encoder):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{directory}")
    batch = torch.stack([preprocess(Image.fromarray(frame)) for frame in frames(3)])
    with torch.no_grad():
        expected = model.eval().encode_image(batch)
    expected /= expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(encoder.pictures(frames(3)), expected, atol=1e-6, rtol=0)


def test_texts_and_pictures_share_a_space(encoder):
    texts, pictures = encoder.texts(["a red poster", "two birds", "a red poster"]), encoder.pictures(frames(2))
    found = cosine(texts, pictures)
    assert found.shape == (3, 2) and found.dtype == torch.float32
    torch.testing.assert_close(found[0], found[2])
    assert not torch.allclose(found[0], found[1])
    torch.testing.assert_close(cosine(texts, texts).diagonal(), torch.ones(3))


def test_nothing_has_no_vectors(encoder):
    assert encoder.pictures([]).shape[0] == 0


def test_vectors_that_are_no_numbers_are_refused(encoder):
    encoder.model.visual.proj.data[0] = torch.nan
    with pytest.raises(RowError, match="CLIP gives vectors that are no numbers"):
        encoder.pictures(frames(1))


def test_pickled_weights_are_not_read(directory, tmp_path):
    (tmp_path / "open_clip_config.json").write_text((directory / "open_clip_config.json").read_text())
    torch.save({}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match="has no weights in safetensors; convert them, pickles are not read"):
        ClipEncoder.load(tmp_path)


def test_directories_that_are_no_model_are_named(tmp_path):
    with pytest.raises(ModelError, match="has no open_clip_config.json"):
        ClipEncoder.load(tmp_path)


def test_weights_that_do_not_fit_are_named(directory, tmp_path):
    settings = json.loads((directory / "open_clip_config.json").read_text())
    settings["model_cfg"]["embed_dim"] = 8
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    (tmp_path / "open_clip_model.safetensors").write_bytes((directory / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="cannot be loaded"):
        ClipEncoder.load(tmp_path)
