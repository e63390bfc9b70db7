"""Reading a transformers model from a directory or hub id, with errors a person can act on."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, BitsAndBytesConfig

from mmalign.engine.adapters import is_adapter, model_behind
from mmalign.engine.parts import turn_dropout_off
from mmalign.errors import ModelError, show

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_HUB_ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")


def load_model(
    path: str | Path,
    *,
    dtype: str = "float32",
    attn_implementation: str | None = None,
    quantize: str | None = None,
    trust_remote_code: bool = False,
) -> nn.Module:
    """Load a model with its language-model head, in training mode, without dropout.

    Args:
        path: a directory written by `save_pretrained`, a hub id, or a directory with a PEFT adapter; an adapter is
            loaded trainable on top of the model it names.
        dtype: "float32", "bfloat16" or "float16"; the type its weights are held in.
        attn_implementation: attention kernel; None takes what transformers takes for the family.
        quantize: "4bit" or "8bit" (bitsandbytes), or None.

    Raises:
        ModelError: the model cannot be loaded; the message says which part is missing.
    """
    options = {
        "dtype": _dtype(dtype),
        "attn_implementation": attn_implementation,
        "quantization_config": _quantization(quantize, _dtype(dtype)),
        "trust_remote_code": trust_remote_code,
    }
    if is_adapter(path):
        model = _load_adapter(Path(path), options)
    else:
        model = _load_weights(str(path), options)
    turn_dropout_off(model)
    return model.train()


def _load_weights(path: str, options: dict[str, Any]) -> nn.Module:
    config = load_config(path, options["trust_remote_code"])
    loader = AutoModelForImageTextToText if has_vision(config) else AutoModelForCausalLM
    try:
        model, report = loader.from_pretrained(
            path, **{name: value for name, value in options.items() if value is not None}, output_loading_info=True
        )
    except Exception as error:  # what a broken file makes its reader raise is not documented
        raise ModelError(f"cannot load the weights of model {show(path)}: {_first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"model {show(path)} has no weights for {len(missing)} of its tensors, e.g. {missing[0]!r}; "
            "save it whole with save_pretrained (mmalign never trains on randomly filled gaps)"
        )
    return model


def load_config(path: str, trust_remote_code: bool = False) -> Any:
    """Read the config of a model; of the model behind it when `path` holds an adapter.

    Raises:
        ModelError: there is none, or transformers does not know it.
    """
    path = model_behind(path)
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise ModelError(f"model directory {show(path)} has no config.json; give one that save_pretrained wrote")
    if not Path(path).is_dir() and not _HUB_ID.fullmatch(path):
        raise ModelError(
            f"model directory {show(path)} does not exist (looked in {show(str(Path.cwd()))}), and it is no hub id of "
            "the form owner/name"
        )
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # as above
        way_out = "" if trust_remote_code else " (model.trust_remote_code: true permits code that comes with a model)"
        raise ModelError(f"cannot read the config of model {show(path)}: {_first_line(error)}{way_out}") from error


def _load_adapter(path: Path, options: dict[str, Any]) -> nn.Module:
    """Load the model that an adapter names and put the adapter on it, trainable."""
    from peft import PeftModel

    base = model_behind(path)
    model = _load_weights(base, options)
    try:
        return PeftModel.from_pretrained(model, str(path), is_trainable=True)
    except Exception as error:  # as above
        raise ModelError(f"cannot put adapter {show(str(path))} on model {show(base)}: {_first_line(error)}") from error


def has_vision(config: Any) -> bool:
    """Say whether a config describes a vision-language model."""
    return getattr(config, "vision_config", None) is not None


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ModelError(f"dtype {name!r} is unknown; use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _quantization(kind: str | None, compute_dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if kind is None:
        return None
    if kind not in ("4bit", "8bit"):
        raise ModelError(f"quantize {kind!r} is unknown; use 4bit or 8bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"quantize: {kind} needs bitsandbytes, which is missing; run pip install 'mmalign[qlora]'")
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
