"""Directories that hold a PEFT adapter instead of a whole model, such as `final/` of a run with LoRA."""

from __future__ import annotations

import json
from pathlib import Path

from mmalign.errors import ModelError, show

_ADAPTER_FILE = "adapter_config.json"


def is_adapter(path: str | Path) -> bool:
    """Say whether a directory holds an adapter."""
    return (Path(path) / _ADAPTER_FILE).is_file()


def model_behind(path: str | Path) -> str:
    """Return the model whose config counts: what an adapter is to be put on, for anything else `path` itself.

    Raises:
        ModelError: an adapter names no model.
    """
    if not is_adapter(path):
        return str(path)
    file = Path(path) / _ADAPTER_FILE
    try:
        return str(Path(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{show(str(file))} names no model; set base_model_name_or_path in it") from error
