"""Models without memory, made of their configs alone, and what their weights would take."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from mmalign.engine.adapters import is_adapter, model_behind
from mmalign.engine.load import has_vision, load_config

if TYPE_CHECKING:
    from mmalign.config.schema import RecipeConfig

# bitsandbytes: 4 bits and a scale per 64 weights; 8 bits and a scale per row.
_BYTES_PER_QUANTIZED_WEIGHT = {"4bit": 0.53, "8bit": 1.0}


@dataclass(frozen=True, kw_only=True)
class FrozenModel:
    """A model that is read and does not move.

    Args:
        weights: bytes.
        widest: most numbers that one layer of its decoder makes of a token.
        width, vocabulary: of its head.
    """

    weights: int
    widest: int
    width: int
    vocabulary: int


def frozen_model(path: str, recipe: RecipeConfig, dtype: torch.dtype) -> FrozenModel:
    """Return what another model than the policy takes, quantized as the recipe says; adapters of it are left out.

    Raises:
        ModelError: its config cannot be read.
    """
    config = load_config(model_behind(path) if is_adapter(path) else path, recipe.model.trust_remote_code)
    with torch.device("meta"), quiet():
        model = shaped(config, recipe, dtype)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    linears = [module for module in linears if module is not model.get_output_embeddings()]
    text = config.get_text_config()
    return FrozenModel(
        weights=held_bytes(model, linears, recipe.model.quantize),
        widest=max(module.out_features for module in linears),
        width=text.hidden_size,
        vocabulary=text.vocab_size,
    )


def shaped(config: Any, recipe: RecipeConfig, dtype: torch.dtype) -> Any:
    """Return a model of a config; call it where tensors have no memory."""
    return (AutoModelForImageTextToText if has_vision(config) else AutoModelForCausalLM).from_config(
        config,
        dtype=dtype,
        attn_implementation=recipe.model.attn_implementation,
        trust_remote_code=recipe.model.trust_remote_code,
    )


def held_bytes(model: nn.Module, linears: Iterable[nn.Linear], quantize: str | None) -> int:
    """Return the bytes of all weights, those of `linears` quantized."""
    rate = _BYTES_PER_QUANTIZED_WEIGHT.get(quantize or "")
    if rate is None:
        return sum(bytes_of(parameter) for parameter in model.parameters())
    quantized = {id(module.weight): module.weight for module in linears}
    others = sum(bytes_of(parameter) for parameter in model.parameters() if id(parameter) not in quantized)
    return others + int(sum(weight.numel() for weight in quantized.values()) * rate)


def bytes_of(tensor: torch.Tensor) -> int:
    """Return the size of a tensor's numbers."""
    return tensor.numel() * tensor.element_size()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the engine from announcing a model that is only thought of."""
    loggers = [logging.getLogger(name) for name in ("mmalign", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
