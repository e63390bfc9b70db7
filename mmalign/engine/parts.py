"""How a model is trained: parts frozen, low-rank adapters, dropout off, activations recomputed; and a report of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from mmalign.engine.families import Family
from mmalign.errors import ModelError

_DROPOUT_FIELDS = ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "dropout_prob", "layerdrop")


@dataclass(frozen=True)
class PartReport:
    """Number of parameters of one part, and of those that are trained."""

    trainable: int
    total: int


def part_of(name: str, family: Family) -> str | None:
    """Return the part that a parameter or module of the transformers model belongs to; the longest prefix wins."""
    fits = [
        (len(prefix), part)
        for part, prefixes in family.parts.items()
        for prefix in prefixes
        if name == prefix or name.startswith(prefix + ".")
    ]
    return max(fits)[1] if fits else None


def freeze_parts(base: nn.Module, family: Family, parts: Sequence[str]) -> None:
    """Stop the weights of the named parts from moving.

    Raises:
        ModelError: the family has no such part, or the part has no weights.
    """
    _require_parts(family, parts)
    for part in parts:
        parameters = [p for name, p in base.named_parameters() if part_of(name, family) == part]
        if not parameters:
            raise ModelError(f"part {part!r} of {family.name} has no weights; remove it from model.freeze")
        for parameter in parameters:
            parameter.requires_grad_(False)


def freeze_unread(base: nn.Module) -> None:
    """Stop the weights behind the last vision layer that the model reads (LLaVA reads the last but one).

    They never get a gradient, and DDP would wait for it.
    """
    read = getattr(base.config, "vision_feature_layer", None)
    tower = getattr(base.base_model, "vision_tower", None)
    layers = getattr(getattr(tower, "encoder", None), "layers", None)
    if read is None or layers is None:
        return
    counts = [
        index if index >= 0 else len(layers) + 1 + index for index in (read if isinstance(read, list) else [read])
    ]
    for module in (*layers[max(counts) :], tower.post_layernorm):
        module.requires_grad_(False)


def add_lora(
    base: nn.Module,
    family: Family,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: str | Sequence[str] = "all-linear",
    parts: Sequence[str] = ("language",),
    modules_to_save: Sequence[str] | None = None,
) -> PeftModel:
    """Put low-rank adapters on a model; everything else is frozen.

    Args:
        targets: "all-linear" for every linear layer of `parts` but the language-model head; another string is a regular
            expression on full module names; a list holds endings of module names.
        parts: the parts that `targets` may match in.
        modules_to_save: names of modules that are trained whole and saved with the adapter.

    Raises:
        ModelError: nothing matches, or the expression is broken.
    """
    _require_parts(family, parts)
    candidates = list(_linear_names(base, family, parts))
    try:
        matched = [name for name in candidates if _matches(name, targets)]
    except re.error as error:
        raise ModelError(f"lora.targets {targets!r} is no regular expression: {error}") from error
    if not matched:
        endings = sorted({name.rsplit(".", 1)[-1] for name in candidates})
        raise ModelError(
            f"lora.targets {targets!r} matches no linear layer of part(s) {', '.join(parts)} of {family.name}; "
            f"its layers end in {', '.join(endings)}"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=_as_pattern(base, matched),
        modules_to_save=list(modules_to_save) if modules_to_save else None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def turn_dropout_off(model: nn.Module) -> None:
    """Set every dropout of the model to zero, so that policy, reference and tree see the same numbers."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in _DROPOUT_FIELDS:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def checkpoint_activations(base: PreTrainedModel) -> None:
    """Recompute the activations of each layer in the backward pass.

    transformers then makes the outputs of all embeddings ask for gradients, which only its reentrant way needs; here it
    would send a gradient through a frozen vision tower, so it is undone.
    """
    options = {"use_reentrant": False}
    if hasattr(base, "activation_checkpointing_enable"):
        base.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:  # transformers 5.17
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    base.disable_input_require_grads()


def trainable_report(base: nn.Module, family: Family) -> dict[str, PartReport]:
    """Return for each part (and "other", when something belongs to none) how many parameters there are and move."""
    counts: dict[str, list[int]] = {part: [0, 0] for part in family.parts}
    for name, parameter in base.named_parameters():
        count = counts.setdefault(part_of(name, family) or "other", [0, 0])
        size = _number_of_weights(parameter)
        count[0] += size if parameter.requires_grad else 0
        count[1] += size
    return {part: PartReport(*count) for part, count in counts.items()}


def _require_parts(family: Family, parts: Sequence[str]) -> None:
    for part in parts:
        if part not in family.parts:
            raise ModelError(f"{family.name} has no part {part!r}; its parts are {', '.join(family.parts)}")


def _linear_names(base: nn.Module, family: Family, parts: Sequence[str]) -> Iterator[str]:
    """Yield full names of the linear layers of these parts, without the language-model head."""
    head = base.get_output_embeddings()
    for name, module in base.named_modules():
        if isinstance(module, nn.Linear) and module is not head and part_of(name, family) in parts:
            yield name


def _matches(name: str, targets: str | Sequence[str]) -> bool:
    if targets == "all-linear":
        return True
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith("." + target) for target in targets)


def _as_pattern(base: nn.Module, names: Sequence[str]) -> str:
    """Return one regular expression that matches these modules of the model and no others.

    Layer numbers are folded into digits where that stays exact, so that the adapter's config is short to read.
    """
    others = [name for name, _ in base.named_modules() if name not in set(names)]
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(name)), []).append(name)
    patterns = []
    for pattern, members in folded.items():
        exact = not any(re.fullmatch(pattern, other) for other in others)
        patterns += [pattern] if exact else [re.escape(name) for name in members]
    return "|".join(f"({pattern})" for pattern in patterns)


def _number_of_weights(parameter: nn.Parameter) -> int:
    """Return the number of weights; a 4-bit tensor of bitsandbytes holds two in a byte."""
    return parameter.quant_state.shape.numel() if getattr(parameter, "quant_state", None) else parameter.numel()
