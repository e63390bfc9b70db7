"""Fingerprints: short texts that change when a model, a processor or a setting changes, and only then.

Caches on disk carry them, so that a result is never used with weights or settings it was not made with.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmalign.engine.adapters import is_adapter, model_behind

_HEX_DIGITS = 32
_SAMPLES, _SAMPLE_BYTES = 64, 4096


def of_weights(module: nn.Module) -> str:
    """Return the fingerprint of all parameters and saved buffers of `module`: names, dtypes, shapes and bits.

    Reads every weight once (about a second per gigabyte). Adapters count as weights, under the names they have: a model
    whose adapter is switched off and the bare model have different fingerprints.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bits(tensor))
    return digest.hexdigest()[:_HEX_DIGITS]


def of_model(path: str | Path) -> str:
    """Return the fingerprint of a model directory's files, or of a hub id's name.

    Of every file its name, its size and 64 pieces of 4 KiB are read, spread evenly from begin to end, so that a large
    model takes no time. Weights that were trained differ in some piece, also when all sizes are the same.
    """
    place, digest = Path(path), hashlib.sha256()
    if not place.is_dir():
        return of_settings({"path": str(path)})
    for file in sorted(file for file in place.iterdir() if file.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            for sample in range(_SAMPLES):
                content.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(content.read(_SAMPLE_BYTES))
    if is_adapter(place):
        digest.update(of_model(model_behind(place)).encode())
    return digest.hexdigest()[:_HEX_DIGITS]


def of_settings(settings: Mapping[str, Any]) -> str:
    """Return the fingerprint of JSON-like settings; the order of keys does not matter."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS]


def of_processor(processor: Any) -> str:
    """Return the fingerprint of what `save_pretrained` writes: vocabulary, chat template, image settings."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as directory:
        processor.save_pretrained(directory)
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(directory)}\n".encode() + _without_paths(path))
    return digest.hexdigest()[:_HEX_DIGITS]


def _bits(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def _without_paths(path: Path) -> bytes:
    """Return the content of a settings file without the keys that only say where it was loaded from."""
    content = path.read_bytes()
    if path.suffix != ".json":
        return content
    settings = json.loads(content)
    if isinstance(settings, dict):
        settings = {key: value for key, value in settings.items() if key not in ("name_or_path", "_name_or_path")}
    return json.dumps(settings, sort_keys=True).encode()
