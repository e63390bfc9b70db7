"""Log-probs of response tokens, from hidden states to `GroupLogps`, without ever holding all logits.

Let h be the hidden state that predicts token t, W and b the head, c the soft cap. With l = c tanh((W h + b) / c),

    log p(t) = l[t] - logsumexp(l)        d log p(t) / d l[j] = [j = t] - softmax(l)[j]

so backward needs one number per token (the log-sum-exp) and the logits once more. The work is cut into blocks of the
vocabulary, and each block into tiles of tokens: the gradient of a block of W is then summed in fp32 over all tokens
and written once, and the largest temporary is one tile. Few tokens (their logits fit `KEPT_LOGITS_BYTES`) are one tile
that is kept from forward to backward, which saves one matrix product in four. Both ways are exact. Measured figures:
docs/benchmarks.md, "Log-probs of response tokens".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE_BYTES = 32 * 2**20
"""Size of one fp32 tile of logits, the unit of work and the largest temporary."""

TOKENS_PER_TILE = 1024
"""Most rows of a tile; fewer columns then fit, which costs no speed as long as a tile is a large matrix product."""

KEPT_LOGITS_BYTES = 64 * 2**20
"""Logits up to this size are kept for backward instead of being computed again."""


@dataclass(frozen=True)
class GroupLogps:
    """Log-probs of every response token: B groups (prompts), K responses, T tokens of the longest response.

    Args:
        token_logps: fp32 [B, K, T], in nats; what stands where `mask` is False is never read.
        mask: bool [B, K, T], True where the response has a token.
        token_weights: fp32 [B, K, T] or None; the weight of each token in `sums` and `means`.
        tokens: int64 [B, K, T] or None; ids of the tokens.
        log_purity: fp32 [B, K, T] or None; log sum_v p(v)^2 of the distribution that gives each token, no gradient.
        views: the same groups in other views, by name; responses that are not read of a view have no token there.
    """

    token_logps: Tensor
    mask: Tensor
    token_weights: Tensor | None = None
    tokens: Tensor | None = None
    log_purity: Tensor | None = None
    views: Mapping[str, GroupLogps] = field(default_factory=dict)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> GroupLogps:
        """Return the log-probs with every tensor changed, those of the views included."""
        changed = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **changed, views={name: view.mapped(change) for name, view in self.views.items()})

    def sums(self) -> Tensor:
        """Return the log-prob of each response [B, K]: summed over its tokens, times their weights if any."""
        token_logps = self.token_logps.masked_fill(~self.mask, 0.0)
        return (token_logps if self.token_weights is None else token_logps * self.token_weights).sum(-1)

    def means(self) -> Tensor:
        """Return `sums` per token [B, K]; 0 for a response without tokens."""
        return self.sums() / self.lengths().clamp(min=1)

    def lengths(self) -> Tensor:
        """Return the number of tokens of each response, int64 [B, K]."""
        return self.mask.sum(-1)


def response_logps(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    softcap: float | None = None,
) -> Tensor:
    """Return log p(target) of each token under the head `hidden @ weight.T + bias`, in fp32 (fp64 for fp64 inputs).

    Logits, log-sum-exp and gradients are accumulated in fp32 whatever the dtype of the inputs. Under autocast the
    products run in the autocast dtype, as `nn.Linear` would, and still accumulate in fp32.

    Args:
        hidden: [N, D], the hidden state that predicts each target.
        weight: [V, D] of the language model head; gets no gradient work when it is frozen.
        bias: [V] or None.
        targets: int64 [N], each in [0, V).
        softcap: `final_logit_softcapping` of the model, applied to the logits.

    Returns:
        fp32 [N].
    """
    operand_dtype = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:
        operand_dtype = torch.get_autocast_dtype(hidden.device.type)
    # Whether a gradient is wanted must not choose the way: policy and reference would differ in the last digits, and
    # a run would not start at a margin of exactly zero.
    fits = hidden.shape[0] * weight.shape[0] * 4 <= KEPT_LOGITS_BYTES
    as_it_is = hidden.is_cuda or weight.dtype == operand_dtype in (torch.float32, torch.float64)
    way = _FewTokens if fits and as_it_is and softcap is None else _ManyTokens
    return way.apply(hidden, weight, bias, targets, softcap, operand_dtype)


@torch.no_grad()
def response_log_purity(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None = None) -> Tensor:
    """Return log sum_v p(v)^2 of each token's distribution: the log-prob that a draw of it has on average.

    Arguments and accumulation as those of `response_logps`; the logits are computed once more, tile by tile.

    Returns:
        fp32 [N] (fp64 for fp64 inputs), without gradient; 0 for a distribution that is certain.
    """
    operand_dtype = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:
        operand_dtype = torch.get_autocast_dtype(hidden.device.type)
    wide = torch.float64 if operand_dtype == torch.float64 else torch.float32
    log_total, log_square = (hidden.new_full(hidden.shape[:1], -math.inf, dtype=wide) for _ in range(2))
    with torch.autocast(hidden.device.type, enabled=False):
        for _, block, block_bias in _blocks(weight, bias, len(hidden), operand_dtype):
            for rows in _tiles(len(hidden)):
                logits = _logits(hidden[rows].to(operand_dtype), block, block_bias, softcap)
                log_square[rows] = torch.logaddexp(log_square[rows], (2 * logits).logsumexp(-1))
                log_total[rows] = torch.logaddexp(log_total[rows], _logsumexp_(logits))
    return log_square - 2 * log_total


class _FewTokens(torch.autograd.Function):
    """All log-probs are kept for backward. Arguments as those of `response_logps`."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, softcap, operand_dtype):
        with torch.autocast(hidden.device.type, enabled=False):
            logits = _logits(hidden.to(operand_dtype), weight.to(operand_dtype), bias, softcap)
            logps = logits.log_softmax(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, logps)
        ctx.operand_dtype = operand_dtype
        return logps.gather(1, targets[:, None]).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden, weight, bias, targets, logps = ctx.saved_tensors
        everything = slice(0, len(targets)), slice(0, len(weight))
        sums = _GradientSums(ctx, hidden, weight, bias)
        with torch.autocast(hidden.device.type, enabled=False):
            slope = _minus_target(logps.exp(), targets, everything[1])
            sums.add(slope, grad_output, hidden, weight.to(ctx.operand_dtype), *everything)
            sums.close_block(everything[1])
        return *sums.gradients(), None, None, None


class _ManyTokens(torch.autograd.Function):
    """Tile by tile, once in forward and once more in backward. Arguments as those of `response_logps`."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, softcap, operand_dtype):
        wide = torch.float64 if operand_dtype == torch.float64 else torch.float32
        log_total = hidden.new_full(targets.shape, -math.inf, dtype=wide)
        target_logits = hidden.new_zeros(targets.shape, dtype=wide)
        with torch.autocast(hidden.device.type, enabled=False):
            for columns, block, block_bias in _blocks(weight, bias, len(targets), operand_dtype):
                for rows in _tiles(len(targets)):
                    logits = _logits(hidden[rows].to(operand_dtype), block, block_bias, softcap)
                    inside, position = _position_in_block(targets[rows], columns)
                    picked = logits.gather(1, position[:, None]).squeeze(1)
                    target_logits[rows] = torch.where(inside, picked, target_logits[rows])
                    log_total[rows] = torch.logaddexp(log_total[rows], _logsumexp_(logits))
        ctx.save_for_backward(hidden, weight, bias, targets, log_total)
        ctx.softcap, ctx.operand_dtype = softcap, operand_dtype
        return target_logits - log_total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden, weight, bias, targets, log_total = ctx.saved_tensors
        sums = _GradientSums(ctx, hidden, weight, bias)
        with torch.autocast(hidden.device.type, enabled=False):
            for columns, block, block_bias in _blocks(weight, bias, len(targets), ctx.operand_dtype):
                for rows in _tiles(len(targets)):
                    logits = _logits(hidden[rows].to(ctx.operand_dtype), block, block_bias, ctx.softcap)
                    bend = None if ctx.softcap is None else 1 - (logits / ctx.softcap).square_()
                    slope = logits.sub_(log_total[rows, None]).exp_()
                    slope = _minus_target(slope, targets[rows], columns)
                    slope = slope if bend is None else slope.mul_(bend)
                    sums.add(slope, grad_output[rows], hidden[rows], block, rows, columns)
                sums.close_block(columns)
        return *sums.gradients(), None, None, None


class _GradientSums:
    """The gradients that somebody asked for, summed in fp32 tile by tile; nothing is computed for the others."""

    def __init__(self, ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        wide = torch.float64 if ctx.operand_dtype == torch.float64 else torch.float32
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
            self.hidden[rows] += _matmul(slope, block).mul_(toward)
        if self.weight is None:
            return
        scaled = (hidden * toward).to(block.dtype)
        if not self.in_place:
            product = _matmul(slope.t(), scaled)
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


def _blocks(weight: Tensor, bias: Tensor | None, count: int, dtype: torch.dtype) -> Iterator[tuple]:
    """Yield (columns, block of `weight` ready for `_matmul`, block of `bias`), so that a tile fits `TILE_BYTES`."""
    rows = max(1, min(count, TOKENS_PER_TILE))
    width = max(1, TILE_BYTES // (4 * rows))
    for start in range(0, len(weight), width):
        columns = slice(start, min(start + width, len(weight)))
        yield columns, weight[columns].to(dtype), None if bias is None else bias[columns].to(dtype)


def _tiles(count: int) -> Iterator[slice]:
    """Yield the rows of each tile."""
    for start in range(0, count, TOKENS_PER_TILE):
        yield slice(start, min(start + TOKENS_PER_TILE, count))


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return `left @ right` in fp32 (fp64 for fp64): half precision is multiplied, but never summed."""
    if left.dtype == right.dtype and left.dtype in (torch.float32, torch.float64):
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def _logits(hidden: Tensor, block: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    logits = _matmul(hidden, block.t())
    if bias is not None:
        logits += bias
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


def _position_in_block(targets: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Return which targets lie in the block and where (0 for the others), without waiting for the device."""
    inside = (targets >= columns.start) & (targets < columns.stop)
    return inside, torch.where(inside, targets - columns.start, 0)


def _minus_target(probabilities: Tensor, targets: Tensor, columns: slice) -> Tensor:
    """Subtract 1 in place where the target of a row lies in the block: what is left is d (-log p) / d logits."""
    inside, position = _position_in_block(targets, columns)
    return probabilities.scatter_add_(1, position[:, None], -inside.to(probabilities.dtype)[:, None])


def _logsumexp_(logits: Tensor) -> Tensor:
    """Return log sum exp of each row and leave rubbish in `logits`."""
    largest = logits.amax(-1)
    return logits.sub_(largest[:, None]).exp_().sum(-1).log_() + largest
