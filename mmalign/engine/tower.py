"""The vision tower of a model as something that answers: what it reads, what is read from it, whether it may be reused.

A tower is a row of stages called one after the other. For most families it is one stage, the whole tower: its output
goes through a projector that may train. In the Qwen families the projector (the merger) lives inside the tower, at its
end; when it trains, the stages are the transformer blocks in front of it, and only the outputs that mergers read are
kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmalign.engine.families import Family

Answer = dict[str, Tensor]
"""What a tower said in one call, as flat tensors: "<stage>/<field>" or "<stage>/<field>/<layer>"."""

READ_FIELDS: dict[str, tuple[str, ...]] = {
    "gemma3": ("last_hidden_state",),
    "idefics3": ("last_hidden_state",),
    "internvl": ("hidden_states",),
    "llava": ("hidden_states",),
    "llava_next": ("hidden_states",),
    "llava_onevision": ("hidden_states",),
    "mistral3": ("hidden_states",),
    "paligemma": ("last_hidden_state",),
    "qwen2_5_vl": ("pooler_output",),
    "qwen2_vl": ("pooler_output",),
    "qwen3_vl": ("pooler_output", "deepstack_features"),
    "smolvlm": ("last_hidden_state",),
}
"""Which fields of the tower's output each family reads; the others are not kept."""

_DROPOUT_NAMES = ("dropout", "attention_dropout", "hidden_dropout", "activation_dropout", "drop_path", "drop_prob")


@dataclass(frozen=True)
class Tower:
    """The vision tower of one model.

    Args:
        name: of the module inside the model.
        stages: modules in the order they are called.
        kept: indices of the stages whose output is read from outside the stages.
        fields: fields of an output that are read, empty when outputs are plain tensors.
        layers: entries of `hidden_states` that are read, as the config counts them.
        images_on: dimension of its outputs along which images follow each other.
        covered: modules that must be frozen.
    """

    name: str
    stages: tuple[nn.Module, ...]
    kept: tuple[int, ...]
    fields: tuple[str, ...]
    layers: tuple[int, ...]
    images_on: int
    covered: tuple[nn.Module, ...]

    def answer_of(self, stage: int, output: Any) -> Answer:
        """Return what is read of one stage's output, detached from what the family does with it later."""
        if isinstance(output, Tensor):
            return {f"{stage}/tensor": output}
        answer = {}
        for field in self.fields:
            value = getattr(output, field, None)
            if isinstance(value, Tensor):
                answer[f"{stage}/{field}"] = value
            elif value is not None:
                wanted = self.layers if field == "hidden_states" else range(len(value))
                answer |= {f"{stage}/{field}/{layer}": value[layer] for layer in wanted}
        return answer

    def output_of(self, stage: int, answer: Answer) -> Any:
        """Return a new output of one stage, as its family reads it."""
        if f"{stage}/tensor" in answer:
            return answer[f"{stage}/tensor"]
        output = BaseModelOutputWithPooling()
        for name, tensor in answer.items():
            _, field, *layer = name.split("/")
            if not layer:
                setattr(output, field, tensor)
            elif field == "hidden_states":
                output.hidden_states = {**(output.hidden_states or {}), int(layer[0]): tensor}
            else:
                setattr(output, field, [*(getattr(output, field, None) or ()), tensor])
        return output

    def merge(self, answers: Sequence[Answer]) -> Answer:
        """Return the answer to the media of several rows, from the answers to each row's."""
        return {name: torch.cat([answer[name] for answer in answers], dim=self.images_on) for name in answers[0]}


def towers_of(base: PreTrainedModel, family: Family) -> tuple[Tower, ...] | str:
    """Return the cuts of a model behind which its vision side may be reused, the latest first, or why there is none.

    Reuse is exact only when everything in front of the cut is frozen, carries no adapter and drops nothing at random.

    Args:
        base: the transformers model, without the PEFT wrapper.
    """
    if not family.has_vision:
        return "the model has no vision tower"
    if not family.known or family.name not in READ_FIELDS:
        return f"what {family.name} reads from its vision tower is not in the table of engine/tower.py"
    cuts = [_whole(base, family)]
    if any(name.startswith(cuts[0].name) for name in family.projector):
        cuts.append(_blocks(base, cuts[0]))
    obstacles = [_obstacle(tower) for tower in cuts]
    free = tuple(tower for tower, obstacle in zip(cuts, obstacles, strict=True) if obstacle is None)
    return free or obstacles[-1]


def entries(args: tuple, kwargs: dict) -> int:
    """Return how many entries (images, tiles or patches) a call reads: the length of its first tensor."""
    return len(next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))


def _whole(base: PreTrainedModel, family: Family) -> Tower:
    name = family.vision[0]
    module = base.get_submodule(name)
    layers = getattr(base.config, "vision_feature_layer", -1)
    last = family.reads_normalised and layers == -1
    return Tower(
        name=name,
        stages=(module,),
        kept=(0,),
        fields=("last_hidden_state",) if last else READ_FIELDS[family.name],
        layers=tuple(layers) if isinstance(layers, (list, tuple)) else (layers,),
        images_on=1 if module.config.model_type == "pixtral" else 0,
        covered=(module,),
    )


def _blocks(base: PreTrainedModel, whole: Tower) -> Tower:
    """Return the blocks of a Qwen tower; the patch embedding in front of them costs little and runs anew."""
    module = whole.stages[0]
    read_by_mergers = {*getattr(module, "deepstack_visual_indexes", ()), len(module.blocks) - 1}
    in_front = [child for name, child in module.named_children() if "merger" not in name]
    return Tower(
        name=f"{whole.name}.blocks",
        stages=tuple(module.blocks),
        kept=tuple(sorted(read_by_mergers)),
        fields=(),
        layers=(),
        images_on=0,
        covered=tuple(in_front),
    )


def _obstacle(tower: Tower) -> str | None:
    for covered in tower.covered:
        for name, module in covered.named_modules():
            if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
                return f"{tower.name} is trained"
            if hasattr(module, "active_adapters") and hasattr(module, "get_base_layer"):
                return f"{tower.name} carries an adapter ({name})"
            if module.training and (chance := _dropout(module)) > 0:
                return f"{tower.name} drops {chance:.0%} at random ({name or type(module).__name__})"
    return None


def _dropout(module: nn.Module) -> float:
    """Return the largest chance with which a module drops something."""
    values = [getattr(module, name, 0.0) for name in _DROPOUT_NAMES]
    values += [module.p] if isinstance(module, nn.modules.dropout._DropoutNd) else []
    return max((float(value) for value in values if isinstance(value, (int, float))), default=0.0)
