"""A tiny CLIP with weights drawn at random, in open_clip's own layout: for tests and recipes in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from mmalign.rewards.clip import CONFIG_FILE, WEIGHTS_FILE

BUILT_IN = "miniature/clip"
"""How recipes name it."""

_SIZES = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49_408, "width": 16, "heads": 2, "layers": 1},
}


def save(directory: Path, *, seed: int = 0) -> Path:
    """Write one and return its directory; the same seed gives the same weights."""
    import open_clip

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**_SIZES)
    directory.mkdir(parents=True, exist_ok=True)
    shown = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (directory / CONFIG_FILE).write_text(json.dumps({"model_cfg": _SIZES, "preprocess_cfg": shown}), encoding="utf-8")
    save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, directory / WEIGHTS_FILE)
    return directory
