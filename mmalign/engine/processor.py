"""Loading what turns rows into tensors: a model's processor, or the tokenizer of a text-only model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from mmalign.errors import ModelError


def load_processor(path: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Return the processor of a model directory or hub id; its tokenizer when the model reads text only.

    Raises:
        ModelError: nothing there tokenises, or the model sees images but has no image processor.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        processor = transformers.AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # missing files, broken JSON and missing packages raise a dozen kinds
        raise ModelError(
            f"no processor or tokenizer could be loaded from {str(path)!r}; a model directory needs config.json, "
            f"tokenizer files and, if the model sees images, preprocessor_config.json ({error})"
        ) from error
    if not hasattr(getattr(processor, "tokenizer", processor), "convert_tokens_to_ids"):
        raise ModelError(f"{str(path)!r} has an image processor but no tokenizer; save the model's processor there")
    if getattr(config, "vision_config", None) is not None and getattr(processor, "image_processor", None) is None:
        raise ModelError(
            f"the model in {str(path)!r} sees images but its directory has no image processor "
            "(preprocessor_config.json); copy it from the model it was made from"
        )
    return processor
