"""How much memory a step takes, from the model's config alone: no weights, no pixels.

The model is built under torch's fake-tensor mode, where a tensor has a shape and no memory. Weights, gradients and
optimiser states are then counted exactly, and so is what autograd keeps of the text decoder: it runs on fake hidden
states of the true size while a hook adds up what is saved for the backward pass. A vision tower reads values (image
grids) that fake tensors do not have; when it is trained, what it keeps is estimated: every linear layer keeps its input
and its output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmalign.engine.adapters import is_adapter, model_behind
from mmalign.engine.families import backbone_of
from mmalign.engine.footprint_head import Head
from mmalign.engine.footprint_models import bytes_of, frozen_model, held_bytes, quiet, shaped
from mmalign.engine.load import DTYPES, load_config
from mmalign.engine.parts import part_of
from mmalign.engine.policy import Policy, make_policy
from mmalign.errors import ModelError

if TYPE_CHECKING:
    from mmalign.config.schema import RecipeConfig

_ADAM_STATES = 2
LIVE_ACTIVATIONS = 3
"""Of the widest activations, how many exist at the same time inside one layer; going backward, their gradients."""


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The largest forward pass of a run.

    Args:
        rows: sequences in the batch (prompts for the tree engine, responses for the flat one).
        columns: tokens of the longest, padding included.
        response_tokens: tokens that the language-model head scores.
        media_tokens: tokens that media fill.
        video_tokens: of these, those of videos.
    """

    rows: int
    columns: int
    response_tokens: int
    media_tokens: int
    video_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Peak memory of a step on one device, in bytes by what it is for.

    Args:
        overlap: zero or negative. Without gradient accumulation there are no gradients while activations are complete:
            as the backward pass goes on, gradients take the place of activations, and only the larger of both counts.
    """

    weights: int
    gradients: int
    optimiser: int
    reference: int
    token_reward: int
    activations: int
    head: int
    gradients_in_flight: int
    overlap: int

    @property
    def total(self) -> int:
        """The sum of all."""
        return sum(getattr(self, item.name) for item in fields(self))


class Skeleton:
    """A policy as a recipe makes it, without memory for its weights.

    Args:
        recipe: which model, which parts move, how it computes.
        model_path: directory or hub id of the model.

    Raises:
        ModelError: the model's config cannot be read, or the model cannot be trained as asked.
    """

    def __init__(self, recipe: RecipeConfig, model_path: str) -> None:
        self.recipe, self.mode = recipe, FakeTensorMode()
        self.dtype = DTYPES[recipe.weights_dtype()]
        self.activation_bytes = 2 if recipe.train.bf16 else 4
        if is_adapter(model_path):
            raise ModelError(
                f"{model_path} is an adapter, whose memory is not predicted; plan with model.path: "
                f"{model_behind(model_path)} and the adapter's rank in model.lora"
            )
        self.config = load_config(model_path, recipe.model.trust_remote_code)
        with torch.device("meta"), quiet():
            self.policy = self._build()
        with self.mode:
            _make_fake(self.policy)

    def _build(self) -> Policy:
        model = self.recipe.model
        base = shaped(self.config, self.recipe, self.dtype)
        return make_policy(base.train(), engine=self.recipe.engine, lora=model.lora, freeze=model.freeze)

    def footprint(self, shape: BatchShape, *, needs_reference: bool, reads: Collection[str] = ()) -> Footprint:
        """Return the peak of a step whose largest forward pass has `shape`.

        Args:
            reads: names of what the objective reads of tokens beside log-probs (`token_terms.py`).
        """
        head = self._head()
        train = self.recipe.train
        trained = sum(bytes_of(p) for p in self.policy.parameters() if p.requires_grad)
        activations = self._decoder_bytes(shape) + self._vision_bytes(shape)
        widest = max(module.out_features for module in self._linears("language"))
        return Footprint(
            weights=self._weights_bytes(),
            gradients=trained,
            optimiser=_ADAM_STATES * trained,
            reference=self._reference_bytes(needs_reference),
            token_reward=self._token_reward_bytes(),
            activations=activations,
            head=head.logps_bytes(shape) + head.reads_bytes(shape, reads, self.recipe.model.teacher),
            gradients_in_flight=LIVE_ACTIVATIONS * shape.rows * shape.columns * widest * self.activation_bytes,
            overlap=0 if train.gradient_accumulation_steps > 1 else -min(trained, activations),
        )

    def _weights_bytes(self) -> int:
        frozen = (module for module in self._linears() if not module.weight.requires_grad)
        return held_bytes(self.policy, frozen, self.recipe.model.quantize)

    def _reference_bytes(self, needs_reference: bool) -> int:
        """A frozen copy holds what moves, an adapter that follows too; another model is taken to share nothing.

        Adapters that need no copy are switched off.
        """
        model = self.recipe.model
        if not needs_reference or model.precompute_reference:
            return 0
        if model.reference is not None and not (model.lora and model.reference == model.path):
            return frozen_model(model.reference, self.recipe, self.dtype).weights
        starts_bare = model.lora and (model.adapter is None or model.reference is not None)
        shares_all = starts_bare and model.reference_update is None
        return 0 if shares_all else sum(bytes_of(p) for p in self.policy.parameters() if p.requires_grad)

    def _token_reward_bytes(self) -> int:
        """A second frozen model, taken to share nothing with the policy."""
        path = self.recipe.model.token_reward
        return 0 if path is None else frozen_model(path, self.recipe, self.dtype).weights

    def _decoder_bytes(self, shape: BatchShape) -> int:
        """What autograd keeps of the text decoder; with checkpointing every layer's input and one layer's whole.

        Autocast's copies of trained float32 weights stay until the forward pass is over, checkpointing or not.
        """
        kept = self._run_decoder(shape)
        if not self.recipe.train.gradient_checkpointing:
            return kept
        text = self.config.get_text_config()
        layers, item = text.num_hidden_layers, torch.finfo(self.dtype).bits // 8
        copies = 0
        if self.recipe.train.bf16 and self.dtype == torch.float32:
            copies = sum(2 * m.weight.numel() for m in self._linears("language") if m.weight.requires_grad)
        layer_input = shape.rows * shape.columns * text.hidden_size * item
        return copies + layers * layer_input + (kept - copies) // layers

    def _run_decoder(self, shape: BatchShape) -> int:
        decoder, text = self.policy.inner.get_decoder(), self.config.get_text_config()
        positions = (3, shape.rows) if self.policy.family.positions == "mrope" else (shape.rows,)
        with self.mode:
            hidden = torch.empty(shape.rows, shape.columns, text.hidden_size, dtype=self.dtype)
            hidden.requires_grad_(self.recipe.model.lora is None)
            mask: Any = torch.ones(shape.rows, 1, shape.columns, shape.columns, dtype=torch.bool)
            backbone = backbone_of(self.config)
            if backbone is not None and backbone.masks == "by_layer":
                mask = dict.fromkeys(text.layer_types, mask)
            places = torch.zeros(*positions, shape.columns, dtype=torch.long)
            with _saved_bytes(decoder) as saved, torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.train.bf16):
                decoder(inputs_embeds=hidden, attention_mask=mask, position_ids=places, use_cache=False)
        return sum(saved.values())

    def _vision_bytes(self, shape: BatchShape) -> int:
        """What the vision side keeps when it is trained: inputs and outputs of its linear layers, for every patch."""
        if not self.recipe.trains_vision() or not shape.media_tokens or not self.policy.family.has_vision:
            return 0
        vision = self.config.vision_config
        pooled = (self.policy.family.frame_pooling - 1) * shape.video_tokens
        patches = (shape.media_tokens + pooled) * _patches_per_token(self.config)
        width = sum(module.in_features + module.out_features for module in self._linears("vision"))
        if self.recipe.train.gradient_checkpointing:
            layers = getattr(vision, "depth", None) or vision.num_hidden_layers
            width = width // layers + layers * vision.hidden_size
        return patches * width * self.activation_bytes

    def _head(self) -> Head:
        head = self.policy.base.get_output_embeddings()
        text = self.config.get_text_config()
        return Head(
            width=text.hidden_size,
            vocabulary=text.vocab_size,
            gradient=bytes_of(head.weight) if head.weight.requires_grad else 0,
            state_bytes=self.activation_bytes,
        )

    def _linears(self, part: str | None = None) -> Iterator[nn.Linear]:
        for name, module in self.policy.base.named_modules():
            is_part = part is None or part_of(name, self.policy.family) == part
            if isinstance(module, nn.Linear) and is_part and module is not self.policy.base.get_output_embeddings():
                yield module


def _make_fake(root: nn.Module) -> None:
    """Replace what is on the meta device by fake tensors on the CPU, which choose the kernels that real ones choose."""
    made: dict[int, torch.Tensor] = {}
    for module in root.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in [(name, old) for name, old in tensors.items() if old is not None]:
                if id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                tensors[name] = made[id(old)]


def _patches_per_token(config: Any) -> int:
    """Return how many patches the vision tower computes for one media token."""
    vision = config.vision_config
    if side := getattr(vision, "spatial_merge_size", None) or getattr(config, "spatial_merge_size", None):
        return side**2
    if side := getattr(config, "scale_factor", None):
        return side**2
    if share := getattr(config, "downsample_ratio", None):
        return round(1 / share**2)
    if tokens := getattr(config, "mm_tokens_per_image", None):
        return (vision.image_size // vision.patch_size) ** 2 // tokens
    return 1


@contextmanager
def _saved_bytes(module: nn.Module) -> Iterator[dict[int, int]]:
    """Collect the size of every storage that autograd saves inside the block, parameters and buffers left out."""
    own = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}
    saved: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield saved
