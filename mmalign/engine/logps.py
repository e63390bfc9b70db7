"""Log-probs of response tokens, from hidden states to `GroupLogps`, without ever holding all logits.

Let h be the hidden state that predicts token t, W and b the head, c the soft cap. With l = c tanh((W h + b) / c),

    log p(t) = l[t] - logsumexp(l)        d log p(t) / d l[j] = [j = t] - softmax(l)[j]

so backward needs one number per token (the log-sum-exp) and the logits once more. The work is cut into tiles
(`tiles.py`). Few tokens (their logits fit `KEPT_LOGITS_BYTES`) are one tile that is kept from forward to backward,
which saves one matrix product in four. Both ways are exact. Measured figures: docs/benchmarks.md, "Log-probs of
response tokens".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmalign.engine.tiles import (
    GradientSums,
    blocks_of,
    logits_of,
    logsumexp_,
    minus_target,
    operand_dtype_of,
    position_in_block,
    tiles_of,
    wide_dtype_of,
)

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
        dense: further numbers of each token, [B, K, T, ...], by the names of `objectives/dense.py`.
        views: the same groups in other views, by name; responses that are not read of a view have no token there.
    """

    token_logps: Tensor
    mask: Tensor
    token_weights: Tensor | None = None
    tokens: Tensor | None = None
    log_purity: Tensor | None = None
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    views: Mapping[str, GroupLogps] = field(default_factory=dict)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> GroupLogps:
        """Return the log-probs with every tensor changed, those of the views included."""
        changed = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        dense = {name: change(value) for name, value in self.dense.items()}
        views = {name: view.mapped(change) for name, view in self.views.items()}
        return replace(self, **changed, dense=dense, views=views)

    def sums(self) -> Tensor:
        """Return the log-prob of each response [B, K]: summed over its tokens, times their weights if any."""
        return self.counted(self.token_logps).sum(-1)

    def counted(self, values: Tensor) -> Tensor:
        """Return a number of every token [B, K, T] times the weights of tokens, if any; 0 where there is no token."""
        values = values.masked_fill(~self.mask, 0.0)
        return values if self.token_weights is None else values * self.token_weights

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
    operand_dtype = operand_dtype_of(hidden)
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
    operand_dtype = operand_dtype_of(hidden)
    wide = wide_dtype_of(operand_dtype)
    log_total, log_square = (hidden.new_full(hidden.shape[:1], -math.inf, dtype=wide) for _ in range(2))
    with torch.autocast(hidden.device.type, enabled=False):
        for _, block, block_bias in blocks_of(weight, bias, len(hidden), operand_dtype):
            for rows in tiles_of(len(hidden)):
                logits = logits_of(hidden[rows].to(operand_dtype), block, block_bias, softcap)
                log_square[rows] = torch.logaddexp(log_square[rows], (2 * logits).logsumexp(-1))
                log_total[rows] = torch.logaddexp(log_total[rows], logsumexp_(logits))
    return log_square - 2 * log_total


class _FewTokens(torch.autograd.Function):
    """All log-probs are kept for backward. Arguments as those of `response_logps`."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, softcap, operand_dtype):
        with torch.autocast(hidden.device.type, enabled=False):
            logits = logits_of(hidden.to(operand_dtype), weight.to(operand_dtype), bias, softcap)
            logps = logits.log_softmax(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, logps)
        ctx.operand_dtype = operand_dtype
        return logps.gather(1, targets[:, None]).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden, weight, bias, targets, logps = ctx.saved_tensors
        everything = slice(0, len(targets)), slice(0, len(weight))
        sums = GradientSums(ctx, hidden, weight, bias)
        with torch.autocast(hidden.device.type, enabled=False):
            slope = minus_target(logps.exp(), targets, everything[1])
            sums.add(slope, grad_output, hidden, weight.to(ctx.operand_dtype), *everything)
            sums.close_block(everything[1])
        return *sums.gradients(), None, None, None


class _ManyTokens(torch.autograd.Function):
    """Tile by tile, once in forward and once more in backward. Arguments as those of `response_logps`."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, softcap, operand_dtype):
        wide = wide_dtype_of(operand_dtype)
        log_total = hidden.new_full(targets.shape, -math.inf, dtype=wide)
        target_logits = hidden.new_zeros(targets.shape, dtype=wide)
        with torch.autocast(hidden.device.type, enabled=False):
            for columns, block, block_bias in blocks_of(weight, bias, len(targets), operand_dtype):
                for rows in tiles_of(len(targets)):
                    logits = logits_of(hidden[rows].to(operand_dtype), block, block_bias, softcap)
                    inside, position = position_in_block(targets[rows], columns)
                    picked = logits.gather(1, position[:, None]).squeeze(1)
                    target_logits[rows] = torch.where(inside, picked, target_logits[rows])
                    log_total[rows] = torch.logaddexp(log_total[rows], logsumexp_(logits))
        ctx.save_for_backward(hidden, weight, bias, targets, log_total)
        ctx.softcap, ctx.operand_dtype = softcap, operand_dtype
        return target_logits - log_total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden, weight, bias, targets, log_total = ctx.saved_tensors
        sums = GradientSums(ctx, hidden, weight, bias)
        with torch.autocast(hidden.device.type, enabled=False):
            for columns, block, block_bias in blocks_of(weight, bias, len(targets), ctx.operand_dtype):
                for rows in tiles_of(len(targets)):
                    logits = logits_of(hidden[rows].to(ctx.operand_dtype), block, block_bias, ctx.softcap)
                    bend = None if ctx.softcap is None else 1 - (logits / ctx.softcap).square_()
                    slope = logits.sub_(log_total[rows, None]).exp_()
                    slope = minus_target(slope, targets[rows], columns)
                    slope = slope if bend is None else slope.mul_(bend)
                    sums.add(slope, grad_output[rows], hidden[rows], block, rows, columns)
                sums.close_block(columns)
        return *sums.gradients(), None, None, None
