"""Tiles of logits: the unit of work of everything that reads whole next-token distributions.

The work is cut into blocks of the vocabulary, and each block into tiles of tokens: the gradient of a block of the head
is then summed in fp32 over all tokens and written once, and the largest temporary is one tile.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

TILE_BYTES = 32 * 2**20
"""Size of one fp32 tile of logits, the unit of work and the largest temporary."""

TOKENS_PER_TILE = 1024
"""Most rows of a tile; fewer columns then fit, which costs no speed as long as a tile is a large matrix product."""


def operand_dtype_of(hidden: Tensor) -> torch.dtype:
    """Return the dtype that products with `hidden` run in: its own, or that of autocast, as `nn.Linear` has it."""
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(hidden.device.type)
    return hidden.dtype


def wide_dtype_of(operand_dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums are kept in."""
    return torch.float64 if operand_dtype == torch.float64 else torch.float32


class GradientSums:
    """The gradients that somebody asked for, summed in fp32 tile by tile; nothing is computed for the others."""

    def __init__(self, ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        wide = wide_dtype_of(ctx.operand_dtype)
        empty = torch.empty_like if len(hidden) else torch.zeros_like
        self.hidden_dtype = hidden.dtype
        self.hidden = torch.zeros_like(hidden, dtype=wide) if needs_hidden else None
        self.weight = empty(weight) if needs_weight else None
        self.bias = torch.zeros_like(bias, dtype=wide) if needs_bias else None
        self.bias_dtype = None if bias is None else bias.dtype
        self.in_place = needs_weight and weight.dtype == wide == ctx.operand_dtype
        self.block_sum: Tensor | None = None

    def add(self, slope: Tensor, grad: Tensor, hidden: Tensor, block: Tensor, rows: slice, columns: slice) -> None:
        """Add one tile.

        Args:
            slope: [n, v], d (-log p) / d logits.
            grad: [n], d loss / d log p; it scales the small factors of the products, not the tile.
            hidden, block: [n, D] and [v, D], the factors of the logits.
        """
        toward = -grad[:, None].to(slope.dtype)
        if self.bias is not None:
            self.bias[columns] += (slope.t() @ toward).squeeze(1)
        slope = slope.to(block.dtype) if hidden.is_cuda else slope
        if self.hidden is not None:
            self.hidden[rows] += matmul(slope, block).mul_(toward)
        if self.weight is None:
            return
        scaled = (hidden * toward).to(block.dtype)
        if not self.in_place:
            product = matmul(slope.t(), scaled)
            self.block_sum = product if self.block_sum is None else self.block_sum.add_(product)
        elif rows.start == 0:
            torch.mm(slope.t(), scaled, out=self.weight[columns])
        else:
            self.weight[columns].addmm_(slope.t(), scaled)

    def close_block(self, columns: slice) -> None:
        """Write the sum of one block of the vocabulary where it could not be built in place."""
        if self.block_sum is not None:
            self.weight[columns] = self.block_sum.to(self.weight.dtype)
            self.block_sum = None

    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of hidden, weight and bias."""
        hidden = None if self.hidden is None else self.hidden.to(self.hidden_dtype)
        bias = None if self.bias is None else self.bias.to(self.bias_dtype)
        return hidden, self.weight, bias


def blocks_of(weight: Tensor, bias: Tensor | None, count: int, dtype: torch.dtype) -> Iterator[tuple]:
    """Yield (columns, block of `weight` ready for `matmul`, block of `bias`), so that a tile fits `TILE_BYTES`."""
    rows = max(1, min(count, TOKENS_PER_TILE))
    width = max(1, TILE_BYTES // (4 * rows))
    for start in range(0, len(weight), width):
        columns = slice(start, min(start + width, len(weight)))
        yield columns, weight[columns].to(dtype), None if bias is None else bias[columns].to(dtype)


def tiles_of(count: int) -> Iterator[slice]:
    """Yield the rows of each tile."""
    for start in range(0, count, TOKENS_PER_TILE):
        yield slice(start, min(start + TOKENS_PER_TILE, count))


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return `left @ right` in fp32 (fp64 for fp64): half precision is multiplied, but never summed."""
    if left.dtype == right.dtype and left.dtype in (torch.float32, torch.float64):
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def logits_of(hidden: Tensor, block: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """Return one tile of logits, fp32 (fp64 for fp64), soft cap applied."""
    logits = matmul(hidden, block.t())
    if bias is not None:
        logits += bias
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


def position_in_block(targets: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Return which targets lie in the block and where (0 for the others), without waiting for the device."""
    inside = (targets >= columns.start) & (targets < columns.stop)
    return inside, torch.where(inside, targets - columns.start, 0)


def minus_target(probabilities: Tensor, targets: Tensor, columns: slice) -> Tensor:
    """Subtract 1 in place where the target of a row lies in the block: what is left is d (-log p) / d logits."""
    inside, position = position_in_block(targets, columns)
    return probabilities.scatter_add_(1, position[:, None], -inside.to(probabilities.dtype)[:, None])


def logsumexp_(logits: Tensor) -> Tensor:
    """Return log sum exp of each row and leave rubbish in `logits`."""
    largest = logits.amax(-1)
    return logits.sub_(largest[:, None]).exp_().sum(-1).log_() + largest
