"""The reference of a preference objective: the same batch in, log-probs without gradient out.

    NoReference    objectives that need none
    AdapterOff     the policy itself with its LoRA adapter switched off: no second model in memory
    FrozenCopy     the start of the run, or another model; what is frozen and equal in the policy is held once
    Precomputed    a `ReferenceTable`: no model at all

`models` lists the transformers models that a call runs, for `VisionMemo`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from mmalign.engine.policy import Policy
from mmalign.engine.reference_table import ReferenceTable
from mmalign.engine.token_terms import ReferenceKl, States
from mmalign.engine.tree import TreeBatch
from mmalign.errors import ModelError


class Reference(Protocol):
    """Anything that scores a batch without gradient."""

    models: tuple[PreTrainedModel, ...]

    def __call__(self, batch: TreeBatch) -> Tensor | None:
        """Return token log-probs fp32 [B, K, R] on the device of the batch, or None when there is no reference."""

    def with_distributions(self, batch: TreeBatch) -> tuple[Tensor, ReferenceKl]:
        """Return token log-probs, and what the policy's forward computes its distance to the same forward with.

        Raises:
            ModelError: no model runs, so whole distributions are not known.
        """


class NoReference:
    """For objectives without a reference."""

    models: tuple[PreTrainedModel, ...] = ()

    def __call__(self, batch: TreeBatch) -> None:
        """Return None."""
        return

    def with_distributions(self, batch: TreeBatch) -> tuple[Tensor, ReferenceKl]:
        """Refuse."""
        raise ModelError("there is no reference whose distributions could be read")


class AdapterOff:
    """The policy without its adapter. It is the start of the run only if the adapter started as zero.

    Raises:
        ModelError: the policy has no adapter.
    """

    def __init__(self, policy: Policy) -> None:
        if not hasattr(policy.model, "disable_adapter"):
            raise ModelError(
                f"{type(policy.model).__name__} has no adapter to switch off; train with model.lora, or use a "
                "frozen copy as reference"
            )
        self.policy = policy
        self.models = (policy.base,)

    @torch.no_grad()
    def __call__(self, batch: TreeBatch) -> Tensor:
        """Return the log-probs under the bare model."""
        with self.policy.model.disable_adapter():
            return self.policy(batch)

    @torch.no_grad()
    def with_distributions(self, batch: TreeBatch) -> tuple[Tensor, ReferenceKl]:
        """Return log-probs and distributions of the bare model."""
        with self.policy.model.disable_adapter():
            logps, found = self.policy(batch, also=(States(),))
        return logps, ReferenceKl(found["states"], partial(self.policy.distributions, bare=True))


class FrozenCopy:
    """A second model that never moves. Make it with `of_start` or `of_model`, before training and before wrapping."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.models = (policy.base,)

    @classmethod
    def of_start(cls, policy: Policy) -> FrozenCopy:
        """Return a copy of the policy as it stands. Frozen modules and weights are shared, only trained ones copied."""
        _listen_once(policy.base)
        modules = [module for _, module in _frozen_modules(policy)]
        weights = [parameter for parameter in policy.parameters() if not parameter.requires_grad]
        twin = copy.deepcopy(policy, {id(shared): shared for shared in (*modules, *weights)})
        return cls(_at_rest(twin, modules))

    @classmethod
    def of_model(cls, model: nn.Module, policy: Policy) -> FrozenCopy:
        """Return another model as reference, run by the policy's engine.

        Modules that are frozen in the policy and have equal weights here are replaced by the policy's, so that they are
        held once and, for a vision tower, run once.

        Args:
            model: of the policy's family and vocabulary; a `PeftModel` is welcome.
            policy: already on its device.

        Raises:
            ModelError: family or vocabulary differ, so that the two cannot score the same tokens.
        """
        twin = Policy(model, engine=policy.engine)
        _require_comparable(twin, policy)
        for model in (policy.base, twin.base):
            _listen_once(model)
        twin.to(policy.device)
        theirs = dict(twin.base.named_modules())
        shared = []
        for name, module in list(_frozen_modules(policy.base)):
            name = name.replace(".base_layer", "")
            if name in theirs and _same_weights(module, theirs[name]):
                _replace(twin.base, name, module)
                shared.append(module)
        return cls(_at_rest(twin, shared))

    @torch.no_grad()
    def __call__(self, batch: TreeBatch) -> Tensor:
        """Return the log-probs under the copy."""
        return self.policy(batch)

    @torch.no_grad()
    def with_distributions(self, batch: TreeBatch) -> tuple[Tensor, ReferenceKl]:
        """Return log-probs and distributions of the copy."""
        logps, found = self.policy(batch, also=(States(),))
        return logps, ReferenceKl(found["states"], self.policy.distributions)


class Precomputed:
    """Log-probs from a table; no model runs."""

    models: tuple[PreTrainedModel, ...] = ()

    def __init__(self, table: ReferenceTable) -> None:
        self.table = table

    def __call__(self, batch: TreeBatch) -> Tensor:
        """Return the stored log-probs of the batch's rows."""
        return self.table.read(batch.ids, batch.response_lengths).to(batch.input_ids.device)

    def with_distributions(self, batch: TreeBatch) -> tuple[Tensor, ReferenceKl]:
        """Refuse: a table has one number per token."""
        raise ModelError(
            "a precomputed reference holds log-probs of tokens, not whole distributions; leave out "
            "model.precompute_reference"
        )


def precompute(table: ReferenceTable, reference: Reference, batches: Iterable[TreeBatch]) -> Iterator[int]:
    """Fill a table with what `reference` says about `batches`; yield the number of rows after each batch.

    With several processes each gives its own batches, made of its share of `table.missing()`.
    """
    for batch in batches:
        table.write(batch.ids, reference(batch), batch.response_lengths)
        yield len(batch.ids)


def _frozen_modules(root: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of the largest parts of `root` that have weights, all of them frozen, and no adapter."""
    for child_name, child in root.named_children():
        name = f"{prefix}{child_name}"
        parameters = list(child.parameters())
        movable = any(parameter.requires_grad for parameter in parameters)
        adapted = any(hasattr(module, "get_base_layer") for module in child.modules())
        if parameters and not movable and not adapted:
            yield name, child
        elif parameters:
            yield from _frozen_modules(child, f"{name}.")


def _at_rest(twin: Policy, shared: Iterable[nn.Module]) -> Policy:
    """Return `twin` with weights frozen and modules in evaluation mode; what is shared stays as it is."""
    untouched = {submodule for module in shared for submodule in module.modules()}
    for module in twin.modules():
        module.training = module.training and module in untouched
    return twin.requires_grad_(False)


def _require_comparable(twin: Policy, policy: Policy) -> None:
    theirs, ours = (p.base.config.model_type for p in (twin, policy))
    if theirs != ours:
        raise ModelError(f"the reference is a {theirs}, the policy a {ours}; they do not read the same tokens")
    theirs, ours = (p.base.get_input_embeddings().weight.shape[0] for p in (twin, policy))
    if theirs != ours:
        raise ModelError(
            f"the reference has a vocabulary of {theirs} tokens, the policy of {ours}; use models of one vocabulary"
        )


def _same_weights(ours: nn.Module, theirs: nn.Module) -> bool:
    if type(ours) is not type(theirs):
        return False
    left, right = ours.state_dict(), theirs.state_dict()
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


def _listen_once(base: PreTrainedModel) -> None:
    """Put the hooks in place by which transformers collects hidden states, before modules are shared.

    transformers does so at the first forward of each model. Done by two models that share a layer, that layer would
    report twice, and "the last layer but one" would be another.
    """
    for module in base.modules():
        if isinstance(module, PreTrainedModel):
            maybe_install_capturing_hooks(module)


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)
