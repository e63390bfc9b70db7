"""The policy: a model wrapped so that one forward turns a batch of prompt trees into log-probs of its responses.

Everything happens inside `Policy.forward`, because that is what DDP, FSDP and autocast wrap.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmalign.engine.adapters import is_adapter, put_weights
from mmalign.engine.blank_media import blank_features, calls_left_out
from mmalign.engine.distributions import Distributions
from mmalign.engine.families import Family, family_of
from mmalign.engine.flat import flat_call
from mmalign.engine.forward import ModelCall, hidden_states, tree_call
from mmalign.engine.head import distributions_of, head_logps
from mmalign.engine.load import load_model
from mmalign.engine.parts import add_lora, checkpoint_activations, freeze_parts, freeze_unread
from mmalign.engine.ragged_videos import ragged_videos
from mmalign.engine.token_terms import TokenTerm, cells, with_likeliest
from mmalign.engine.tree import TreeBatch
from mmalign.errors import ModelError

if TYPE_CHECKING:
    from mmalign.config.schema import LoraConfig

Engine = Literal["tree", "flat"]

_MASKS_CAN_BE_GIVEN = ("sdpa", "eager")

logger = logging.getLogger(__name__)


class Policy(nn.Module):
    """A transformers model, bare or with PEFT adapters, that scores responses.

    Args:
        model: with its language-model head; a `PeftModel` is welcome.
        engine: "tree" computes every prompt once, "flat" once per response, "auto" takes the tree where it can.

    Raises:
        ModelError: "tree" is asked of a model that cannot be one.
    """

    def __init__(self, model: nn.Module, *, engine: Engine | Literal["auto"] = "auto") -> None:
        super().__init__()
        self.model = model
        self.family = family_of(self.base.config)
        self.engine, self.engine_reason = resolve_engine(engine, self.family, self.base)
        logger.info("engine: %s (%s)", self.engine, self.engine_reason)

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model itself, without the PEFT wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def inner(self) -> nn.Module:
        """The transformers model without its language-model head."""
        return self.base.base_model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of layers that are sharded as one piece; accelerate asks for them under transformers' name."""
        present = {type(module).__name__ for module in self.model.modules()}
        return sorted(present & set(self.base._no_split_modules or ()))

    def forward(self, batch: TreeBatch, *, also: Sequence[TokenTerm] = ()) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the log-prob of every response token in nats, fp32 [B, K, R]; 0 outside `batch.response_mask`.

        Args:
            also: what else is read off the distributions of the same tokens; returned beside, by name.
        """
        own = self.distributions(self._hidden_states(batch) if self.family.known else self._logits(batch))
        logps = cells(batch, head_logps(*with_likeliest(own, batch)))
        return (logps, {term.name: term(own, batch) for term in also}) if also else logps

    def distributions(self, states: Tensor, *, bare: bool = False) -> Distributions:
        """Return next-token distributions, not computed yet.

        Args:
            states: [N, D], hidden states of the inner model; logits [N, V] of a model whose head is not known.
            bare: as without adapters.
        """
        return distributions_of(self.base, self.family, states, bare=bare)

    def _hidden_states(self, batch: TreeBatch) -> Tensor:
        """Return the hidden state that predicts each response token, [N, D]."""
        missing = calls_left_out(batch.media, self.family, self.base) if _runs_in_several_processes() else 0
        if not missing:
            return hidden_states(self.inner, self._call(batch))
        # Sharded weights are gathered in one order on all ranks, that of ranks with images: vision after embeddings.
        blank: list[Tensor] = []

        def look_at_nothing(*_: object) -> None:
            blank.extend(blank_features(self.inner, self.family, number) for number in range(missing))

        with self.inner.get_input_embeddings().register_forward_hook(look_at_nothing):
            hidden = hidden_states(self.inner, self._call(batch))
        return hidden + 0.0 * sum(blank).to(hidden.dtype)

    def _call(self, batch: TreeBatch) -> ModelCall:
        has_branches = batch.response_mask.shape[1] > 1
        if self.engine == "tree" and has_branches:  # a tree without is a separate row, for which kernels need no mask
            return tree_call(batch, self.family, self.inner)
        return flat_call(batch, self.family, self.base.config)

    def _logits(self, batch: TreeBatch) -> Tensor:
        """Return the logits [N, V] of a model whose head is not known, from its own forward."""
        call = flat_call(batch, self.family, self.base.config)
        with ragged_videos(self.inner):
            output = self.base(**call.inputs, **call.media, use_cache=False)
        return output.logits[call.rows, call.columns]


def load_policy(
    path: str | Path,
    *,
    engine: Engine | Literal["auto"] = "auto",
    dtype: str = "float32",
    attn_implementation: str | None = None,
    quantize: str | None = None,
    trust_remote_code: bool = False,
    lora: LoraConfig | None = None,
    adapter: str | None = None,
    freeze: Sequence[str] = (),
    gradient_checkpointing: bool = False,
) -> Policy:
    """Load a model and make it the policy of a run: adapters on, parts frozen, dropout off, checkpointing set.

    Args:
        path, dtype, attn_implementation, quantize, trust_remote_code: see `load_model`.
        engine: see `Policy`.
        lora: adapters to add; everything else is then frozen.
        adapter: directory whose adapter the run goes on with, made with these settings.
        freeze: parts whose weights do not move.
        gradient_checkpointing: recompute activations in the backward pass.

    Raises:
        ModelError: the model cannot be loaded, or cannot be trained as asked.
    """
    if lora is not None and is_adapter(path):
        raise ModelError(f"{path} is an adapter and is trained on as it is; leave model.lora out")
    model = load_model(
        path,
        dtype=dtype,
        attn_implementation=attn_implementation,
        quantize=quantize,
        trust_remote_code=trust_remote_code,
    )
    policy = make_policy(model, engine=engine, lora=lora, freeze=freeze)
    if adapter is not None:
        put_weights(policy.model, adapter)
    if gradient_checkpointing:
        checkpoint_activations(policy.base)
    return policy


def make_policy(
    model: nn.Module, *, engine: Engine | Literal["auto"], lora: LoraConfig | None, freeze: Sequence[str]
) -> Policy:
    """Make a model the policy of a run: adapters on, parts frozen. Its weights may be without memory (meta device)."""
    if lora is not None:
        model = add_lora(model, family_of(model.config), **lora.model_dump())
    policy = Policy(model, engine=engine)
    freeze_parts(policy.base, policy.family, freeze)
    freeze_unread(policy.base)
    return policy


def resolve_engine(wanted: str, family: Family, base: PreTrainedModel) -> tuple[Engine, str]:
    """Return the engine to use and the reason in words.

    Raises:
        ModelError: "tree" is wanted and impossible.
    """
    kernel = base.config.get_text_config()._attn_implementation
    obstacle = family.no_tree
    if obstacle is None and kernel not in _MASKS_CAN_BE_GIVEN:
        obstacle = f"attention {kernel!r} takes no mask of ours; {' and '.join(_MASKS_CAN_BE_GIVEN)} do"
    if wanted == "flat":
        return "flat", "as configured"
    if obstacle is None:
        return "tree", f"{family.name} computes every prompt once"
    if wanted == "tree":
        raise ModelError(f"{family.name} cannot run as a tree: {obstacle}; use engine: flat, or engine: auto")
    return "flat", obstacle


def _runs_in_several_processes() -> bool:
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
