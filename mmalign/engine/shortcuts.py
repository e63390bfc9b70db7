"""Work of a forward that can be left out or done faster without changing a number that is read.

    last layer        Behind its keys and values, only positions that predict a response token are read. Queries, the
                      output projection and the feed-forward part of the last layer run for those alone; the others
                      hold zeros, which nobody reads.
    patch embedding   A convolution whose kernel is the whole patch is a matrix product, and runs at the speed of one.

Both are patches of single modules that hold inside one forward. Gradient checkpointing runs layers once more in the
backward pass, when the patch is gone, so the last layer is then left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_WORTH_IT = 0.9
"""Largest share of positions read for which leaving out the others saves time."""


@contextmanager
def shortcuts(inner: nn.Module, rows: Tensor, columns: Tensor, shape: torch.Size) -> Iterator[None]:
    """Take the shortcuts in the one forward of `inner` that runs inside this block.

    Args:
        inner: the transformers model without its head.
        rows, columns: int64 [N]; the positions whose last hidden state is read.
        shape: [B, T] of the token ids.
    """
    with ExitStack() as stack:
        convolution = _patch_convolution(inner)
        if convolution is not None:
            stack.enter_context(patched(convolution, _as_matrix_product(convolution)))
        read = torch.unique(rows * shape[1] + columns)
        if len(read) < _WORTH_IT * shape.numel():
            for module in _per_position_modules(inner):
                stack.enter_context(patched(module, _only_at(read)))
        yield


def patched(module: nn.Module, forward_from: Callable[[Callable], Callable]) -> AbstractContextManager[None]:
    """Replace `module.forward` by `forward_from(module.forward)` inside the block."""
    return replaced(module, "forward", forward_from)


@contextmanager
def replaced(module: nn.Module, name: str, made_from: Callable[[Callable], Callable]) -> Iterator[None]:
    """Replace the method `name` of one module by `made_from(method)` inside the block."""
    before = module.__dict__.get(name)
    setattr(module, name, made_from(getattr(module, name)))
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)
        else:
            setattr(module, name, before)


def _per_position_modules(inner: nn.Module) -> list[nn.Module]:
    """Return the modules of the last decoder layer that work on each position by itself and feed no key or value."""
    decoder = inner.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not layers or _recomputes(decoder, layers[-1]):
        return []
    last = layers[-1]
    attention, feed_forward = getattr(last, "self_attn", None), getattr(last, "mlp", None)
    modules = [getattr(attention, name, None) for name in ("q_proj", "o_proj")]
    is_mixture = any(hasattr(feed_forward, name) for name in ("experts", "router", "gate"))
    modules += [] if is_mixture else [feed_forward]
    return [module for module in modules if module is not None]


def _recomputes(decoder: nn.Module, layer: nn.Module) -> bool:
    """Say whether the layer runs once more in the backward pass of this forward."""
    wrapped = hasattr(layer, "_checkpoint_wrapped_module")
    checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in (decoder, layer))
    return torch.is_grad_enabled() and (wrapped or (checkpointed and layer.training))


def _only_at(read: Tensor) -> Callable[[Callable], Callable]:
    """Run a module at the positions `read` (counted over the whole batch) and give zeros elsewhere."""

    def wrap(original: Callable) -> Callable:
        def forward(hidden: Tensor) -> Any:
            positions = hidden.shape[:-1]
            needed = original(hidden.reshape(-1, hidden.shape[-1])[read])
            everywhere = needed.new_zeros(positions.numel(), needed.shape[-1])
            return everywhere.index_copy(0, read, needed).view(*positions, -1)

        return forward

    return wrap


def _patch_convolution(inner: nn.Module) -> nn.Conv3d | None:
    """Return the patch embedding of a Qwen tower, which sees patches one by one."""
    module = getattr(getattr(getattr(inner, "visual", None), "patch_embed", None), "proj", None)
    plain = type(module) is nn.Conv3d and module.kernel_size == module.stride and module.padding == (0, 0, 0)
    return module if plain and module.groups == 1 else None


def _as_matrix_product(convolution: nn.Conv3d) -> Callable[[Callable], Callable]:
    def wrap(original: Callable) -> Callable:
        def forward(patches: Tensor) -> Tensor:
            if patches.shape[2:] != convolution.kernel_size:
                return original(patches)
            product = nn.functional.linear(patches.flatten(1), convolution.weight.flatten(1), convolution.bias)
            return product[..., None, None, None]

        return forward

    return wrap
