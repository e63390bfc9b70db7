"""Loading what turns rows into tensors: a model's processor, or the tokenizer of a text-only model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from mmalign.engine.adapters import model_behind
from mmalign.errors import ModelError

_NEEDED = "a model directory needs config.json, tokenizer.json and, if the model sees images, preprocessor_config.json"


def load_processor(path: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Return the processor of a model directory or hub id; its tokenizer when the model reads text only.

    Raises:
        ModelError: nothing there tokenises, or the model sees images but has no image processor.
    """
    name = repr(str(path))
    try:
        config = transformers.AutoConfig.from_pretrained(model_behind(path), trust_remote_code=trust_remote_code)
        processor = transformers.AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # missing files, broken JSON and missing packages raise a dozen kinds
        reason = " ".join(str(error).split())
        raise ModelError(f"no processor or tokenizer could be loaded from {name}; {_NEEDED} ({reason})") from error
    tokenizer = getattr(processor, "tokenizer", processor)
    if not hasattr(tokenizer, "get_vocab"):
        raise ModelError(f"{name} has an image processor but no tokenizer; {_NEEDED}")
    if _knows_no_text(tokenizer):
        raise ModelError(f"the tokenizer in {name} knows special tokens only, its files are missing; {_NEEDED}")
    if getattr(config, "vision_config", None) is not None and getattr(processor, "image_processor", None) is None:
        raise ModelError(f"the model in {name} sees images but its directory has no image processor; {_NEEDED}")
    return processor


def _knows_no_text(tokenizer: Any) -> bool:
    """True for the empty tokenizer that transformers makes of a directory without tokenizer files."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    return not set(tokenizer.get_vocab()) - added
