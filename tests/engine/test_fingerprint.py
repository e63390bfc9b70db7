"""Fingerprints change with what they stand for and with nothing else."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mmalign.engine import fingerprint


def test_weights_are_the_same_until_one_bit_changes():
    layer = torch.nn.Linear(3, 2)
    twin = copy.deepcopy(layer)
    assert fingerprint.of_weights(layer) == fingerprint.of_weights(twin)
    with torch.no_grad():
        twin.weight[1, 2] = torch.nextafter(twin.weight[1, 2], torch.tensor(9.0))
    assert fingerprint.of_weights(layer) != fingerprint.of_weights(twin)


def test_weights_of_another_dtype_are_others():
    layer = torch.nn.Linear(3, 2)
    assert fingerprint.of_weights(layer) != fingerprint.of_weights(copy.deepcopy(layer).bfloat16())


@pytest.mark.parametrize("size", [10, 4096 * 64, 4096 * 64 + 1, 5_000_000])
@pytest.mark.parametrize("place", [0, -1])
def test_a_model_directory_is_another_when_a_byte_at_either_end_of_a_file_is(tmp_path, size, place):
    content = bytearray(size)
    (tmp_path / "model.safetensors").write_bytes(content)
    before = fingerprint.of_model(tmp_path)
    assert fingerprint.of_model(str(tmp_path)) == before
    content[place] = 1
    (tmp_path / "model.safetensors").write_bytes(content)
    assert fingerprint.of_model(tmp_path) != before


def test_a_model_directory_that_was_trained_further_is_another_with_files_of_the_same_sizes(tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(2_000_000, dtype=np.float32)
    weights.tofile(tmp_path / "model.safetensors")
    before = fingerprint.of_model(tmp_path)
    (weights + np.float32(1e-5) * rng.standard_normal(len(weights), dtype=np.float32)).tofile(
        tmp_path / "model.safetensors"
    )
    assert fingerprint.of_model(tmp_path) != before


def test_a_hub_id_stands_for_itself():
    assert fingerprint.of_model("owner/name") != fingerprint.of_model("owner/other")


def test_settings_do_not_care_for_the_order_of_keys():
    assert fingerprint.of_settings({"a": 1, "b": [2]}) == fingerprint.of_settings({"b": [2], "a": 1})
    assert fingerprint.of_settings({"a": 1}) != fingerprint.of_settings({"a": 2})


def test_a_processor_saved_and_loaded_elsewhere_is_the_same_until_a_setting_changes(tmp_path):
    from transformers import AutoProcessor

    from mmalign.miniature import models

    models.save("qwen2_5_vl", tmp_path / "first")
    first = AutoProcessor.from_pretrained(tmp_path / "first")
    first.save_pretrained(tmp_path / "second")
    second = AutoProcessor.from_pretrained(tmp_path / "second")
    assert fingerprint.of_processor(first) == fingerprint.of_processor(second)
    second.image_processor.patch_size = 7
    assert fingerprint.of_processor(first) != fingerprint.of_processor(second)
