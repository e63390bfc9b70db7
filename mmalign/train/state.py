"""Weights, optimiser, memory and random states <-> safetensors, exactly and without pickle."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmalign.errors import CheckpointError

# Embeddings are frozen under LoRA; peft would otherwise ask the hub whether they were resized.
_PEFT_OPTIONS = {"save_embedding_layers": False}


def save_model(model: nn.Module, directory: Path) -> None:
    """Write the weights that `load_model` reads back bit for bit; the directory also loads with `from_pretrained`.

    Args:
        model: a transformers model (written whole, under the names its modules have), or a peft model (adapter alone).
    """
    if hasattr(model, "peft_config"):
        model.save_pretrained(directory, **_PEFT_OPTIONS)
    else:
        model.save_pretrained(directory, save_original_format=False)


def save_for_use(model: nn.Module, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write a model or adapter as its family publishes it, for `from_pretrained`, servers and everybody else.

    Args:
        weights: state of the policy gathered from all ranks, where no rank holds the whole model.
    """
    options: dict[str, Any] = dict(_PEFT_OPTIONS) if hasattr(model, "peft_config") else {}
    if weights is not None:
        options["state_dict"] = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    model.save_pretrained(directory, **options)


def load_model(model: nn.Module, directory: Path) -> None:
    """Copy the weights written by `save_model` into `model`.

    Raises:
        CheckpointError: a weight is missing, unknown or has another shape.
    """
    saved = {
        name: tensor for path in sorted(directory.glob("*.safetensors")) for name, tensor in load_file(path).items()
    }
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        targets = get_peft_model_state_dict(model, **_PEFT_OPTIONS)
        required = set(targets)
    else:
        targets = model.state_dict(keep_vars=True)
        required = {name for name, _ in model.named_parameters()}
    _copy_all(saved, targets, required, directory)


@torch.no_grad()
def _copy_all(saved: dict[str, Tensor], targets: dict[str, Tensor], required: set[str], directory: Path) -> None:
    unknown = sorted(saved.keys() - targets.keys())
    # A tied weight is saved under one of its names; any of them will do.
    written = {targets[name].data_ptr() for name in saved.keys() & targets.keys()}
    missing = sorted(name for name in required if targets[name].data_ptr() not in written)
    if unknown or missing:
        raise CheckpointError(
            f"the weights in {directory} are those of another model: missing {missing[:3]}, unknown {unknown[:3]}; "
            "resume with the model and the LoRA settings of the run, or start a new run"
        )
    for name, tensor in saved.items():
        if targets[name].shape != tensor.shape:
            raise CheckpointError(
                f"{name} in {directory} has shape {tuple(tensor.shape)}, the model's has {tuple(targets[name].shape)}; "
                "resume with the model and the LoRA settings of the run"
            )
        targets[name].copy_(tensor)


def save_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, path: Path) -> None:
    """Write the optimiser's tensors as `<parameter>|<entry>`; numbers and group settings go into the metadata."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, entries in optimizer.state.items():
        for entry, value in entries.items():
            key = f"{names[id(parameter)]}|{entry}"
            if isinstance(value, Tensor):
                tensors[key] = value.detach().contiguous()
            else:
                numbers[key] = value
    groups = [
        {**group, "params": [names[id(parameter)] for parameter in group["params"]]} for group in optimizer.param_groups
    ]
    save_file(tensors, path, metadata={"numbers": json.dumps(numbers), "groups": json.dumps(groups)})


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, path: Path) -> None:
    """Read back what `save_optimizer` wrote.

    Raises:
        CheckpointError: the groups hold other parameters than those of `optimizer`.
    """
    metadata, values = _read(path)
    values |= json.loads(metadata["numbers"])
    groups = json.loads(metadata["groups"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    if [group["params"] for group in groups] != order:
        raise CheckpointError(
            f"{path} optimises other weights than this run; resume with the same model.freeze and model.lora"
        )
    index = {name: number for number, name in enumerate(name for group in order for name in group)}
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        name, entry = key.rsplit("|", 1)
        state.setdefault(index[name], {})[entry] = value
    groups = [{**group, "params": [index[name] for name in group["params"]]} for group in groups]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_memory(memory: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Write what the objective remembers from step to step, as `<part>/<name>`."""
    save_file({f"{part}/{name}": value for part, held in memory.items() for name, value in held.items()}, path)


def load_memory(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read back what `save_memory` wrote."""
    memory: dict[str, dict[str, Tensor]] = {}
    for key, value in load_file(path).items():
        part, name = key.rsplit("/", 1)
        memory.setdefault(part, {})[name] = value
    return memory


def save_reference(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write the weights of a reference that follows the policy, under the policy's names for them."""
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path)


def load_reference(weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy what `save_reference` wrote into `weights`.

    Raises:
        CheckpointError: it holds other weights.
    """
    _copy_all(load_file(path), dict(weights), set(weights), path)


def save_random_states(path: Path) -> None:
    """Write the states of Python's, NumPy's and torch's generators of this process."""
    kind, key, position, has_gauss, cached = np.random.get_state()
    assert kind == "MT19937", "NumPy's global generator is always of this kind"
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(key.astype(np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    metadata = {"python": json.dumps(random.getstate()), "numpy": json.dumps([position, has_gauss, cached])}
    save_file(tensors, path, metadata=metadata)


def load_random_states(path: Path) -> None:
    """Restore what `save_random_states` wrote."""
    metadata, tensors = _read(path)
    version, numbers, gauss = json.loads(metadata["python"])
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(("MT19937", tensors["numpy"].numpy().astype(np.uint32), *json.loads(metadata["numpy"])))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def _read(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return metadata and tensors of a file."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return file.metadata(), {name: file.get_tensor(name) for name in names}
