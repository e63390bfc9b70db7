"""Directories that hold a PEFT adapter instead of a whole model, such as `final/` of a run with LoRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmalign.errors import ModelError, show

_ADAPTER_FILE = "adapter_config.json"
_WEIGHTS_FILE = "adapter_model.safetensors"
_SETTINGS = {"r": "rank", "lora_alpha": "alpha"}


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


def put_weights(model: Any, path: str | Path) -> None:
    """Give the adapter that is on a model the weights of an adapter on disk, bit for bit.

    Args:
        model: a `PeftModel` with one adapter.
        path: directory of an adapter with the same settings.

    Raises:
        ModelError: there is no adapter, it has another rank or alpha, or it stands on other layers.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not is_adapter(path):
        raise ModelError(
            f"model.adapter {show(str(path))} holds no adapter; name what a run with model.lora left behind"
        )
    try:
        saved = load_file(Path(path) / _WEIGHTS_FILE)
        settings = json.loads((Path(path) / _ADAPTER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"cannot read adapter {show(str(path))}: {error}") from error
    own = model.peft_config["default"]
    for name, key in _SETTINGS.items():
        if settings.get(name) != getattr(own, name):
            raise ModelError(
                f"adapter {show(str(path))} has {key} {settings.get(name)}, model.lora.{key} is {getattr(own, name)}; "
                "give the settings it was made with"
            )
    has = {name: tensor.shape for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    if has != {name: tensor.shape for name, tensor in saved.items()}:
        differing = sorted(has.items() ^ {name: tensor.shape for name, tensor in saved.items()}.items())
        raise ModelError(
            f"adapter {show(str(path))} stands on other layers than model.lora says, e.g. {differing[0][0]!r}; give "
            "model.lora.targets and parts that it was made with"
        )
    set_peft_model_state_dict(model, saved)


def merge(model: Any) -> Any:
    """Return the transformers model with its adapter added to its weights, W + alpha / rank * B A.

    The sum is made in single precision and rounded once, to the type of W. (peft's own merge rounds the product to that
    type as well, before it is added.)

    Args:
        model: a `PeftModel` on weights that are not quantised. It must not be used any more.

    Raises:
        ModelError: a merged weight is not finite.
    """
    for name, module in model.get_base_model().named_modules():
        if not hasattr(module, "lora_A"):
            continue
        weight = module.get_base_layer().weight
        merged = weight.data.float() + module.get_delta_weight("default").float()
        if not merged.isfinite().all():
            raise ModelError(f"the adapter cannot be merged: the weights of {name} would not be finite")
        weight.data = merged.to(weight.dtype)
    return model.unload()
