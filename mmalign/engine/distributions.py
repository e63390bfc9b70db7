"""What is read off whole next-token distributions, tile by tile and with exact gradients; never all logits at once.

With l the logits that the policy's head makes of one token's hidden state, p = softmax(l), and q another distribution:

    KL(q || p) = E_q[log q - log p]           d / d l[j] = p[j] - q[j]
    log p(v_i) for k chosen tokens v_i        d / d l[j] = [j = v_i] - p[j]
    log of the mass r of all other tokens     d / d l[j] = [j not chosen] p[j] / r - p[j]

Backward computes the logits once more, as `logps.py` does for many tokens; the accumulation is that of `tiles.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmalign.engine.tiles import (
    GradientSums,
    blocks_of,
    logits_of,
    operand_dtype_of,
    position_in_block,
    tiles_of,
    wide_dtype_of,
)


@dataclass(frozen=True)
class Distributions:
    """Next-token distributions of N tokens, not computed yet: softmax of softcap(hidden @ weight.T + bias).

    Args:
        hidden: [N, D], scaled as the head wants it.
        weight: [V, D]; None where `hidden` holds logits [N, V] already, of a model whose head is not known.
        bias: [V] or None.
        softcap: applied to the logits.
    """

    hidden: Tensor
    weight: Tensor | None
    bias: Tensor | None = None
    softcap: float | None = None

    def detach(self) -> Distributions:
        """Return the same distributions without gradient."""
        weight, bias = (None if tensor is None else tensor.detach() for tensor in (self.weight, self.bias))
        return replace(self, hidden=self.hidden.detach(), weight=weight, bias=bias)


def kl_from(other: Distributions, own: Distributions) -> Tensor:
    """Return KL(other || own) of every token, with gradient to `own` alone.

    Two equal sides are computed alike, and give exactly 0.

    Args:
        other: N tokens; over as many tokens of vocabulary as `own`.
        own: the same N tokens.

    Returns:
        fp32 [N] (fp64 for fp64 inputs), in nats.
    """
    other = other.detach()
    if own.weight is None or other.weight is None:
        theirs, ours = plain_logps(other), plain_logps(own)
        return (theirs.exp() * (theirs - ours)).sum(-1)
    sides = (own.hidden, own.weight, own.bias, other.hidden, other.weight, other.bias)
    return _KlFrom.apply(*sides, own.softcap, other.softcap, operand_dtype_of(own.hidden))


def chosen_logps(own: Distributions, ids: Tensor) -> Tensor:
    """Return log p of k chosen tokens at every place, and behind them the log of the mass of all others.

    Args:
        own: distributions of N tokens.
        ids: int64 [N, k], different within a row and fewer than the vocabulary, so that others are left.

    Returns:
        fp32 [N, k + 1] (fp64 for fp64 inputs), with gradient.
    """
    if own.weight is None:
        logps = plain_logps(own)
        others = logps.scatter(1, ids, -math.inf).logsumexp(-1, keepdim=True)
        return torch.cat([logps.gather(1, ids), others], 1)
    return _ChosenLogps.apply(own.hidden, own.weight, own.bias, ids, own.softcap, operand_dtype_of(own.hidden))


@torch.no_grad()
def most_probable(own: Distributions, count: int, vocabulary: int) -> Tensor:
    """Return the ids of the `count` most probable of the first `vocabulary` tokens at every place, int64 [N, count].

    Ids beyond `vocabulary` are rows that fill up the head of a larger model; no token has them.
    """
    hidden, weight = own.hidden, own.weight
    if weight is None:
        return hidden[:, :vocabulary].topk(count, dim=-1).indices
    dtype = operand_dtype_of(hidden)
    best = hidden.new_full((len(hidden), count), -math.inf, dtype=wide_dtype_of(dtype))
    ids = torch.zeros(len(hidden), count, dtype=torch.int64, device=hidden.device)
    bias = None if own.bias is None else own.bias[:vocabulary]
    with torch.autocast(hidden.device.type, enabled=False):
        for columns, block, block_bias in blocks_of(weight[:vocabulary], bias, len(hidden), dtype):
            for rows in tiles_of(len(hidden)):
                logits = logits_of(hidden[rows].to(dtype), block, block_bias, own.softcap)
                values, places = logits.topk(min(count, logits.shape[1]), dim=-1)
                values = torch.cat([best[rows], values], 1)
                best[rows], kept = values.topk(count, dim=-1)
                ids[rows] = torch.cat([ids[rows], places + columns.start], 1).gather(1, kept)
    return ids


class _KlFrom(torch.autograd.Function):
    """Arguments: hidden, weight, bias of `own`; those of `other`; both soft caps; dtype of the products."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, other_hidden, other_weight, other_bias, softcap, other_softcap, dtype):
        wide = wide_dtype_of(dtype)
        own_total, other_total = (hidden.new_full(hidden.shape[:1], -math.inf, dtype=wide) for _ in range(2))
        gap = hidden.new_zeros(hidden.shape[:1], dtype=wide)
        with torch.autocast(hidden.device.type, enabled=False):
            for _, ours, theirs in _blocks_of_both(weight, bias, other_weight, other_bias, len(hidden), dtype):
                for rows in tiles_of(len(hidden)):
                    own = logits_of(hidden[rows].to(dtype), *ours, softcap)
                    other = logits_of(other_hidden[rows].to(dtype), *theirs, other_softcap)
                    own_total[rows] = torch.logaddexp(own_total[rows], own.logsumexp(-1))
                    block_total = other.logsumexp(-1)
                    block_gap = ((other - block_total[:, None]).exp_() * (other - own)).sum(-1)
                    total = torch.logaddexp(other_total[rows], block_total)
                    before, here = (other_total[rows] - total).exp(), (block_total - total).exp()
                    gap[rows] = gap[rows] * before + block_gap * here
                    other_total[rows] = total
        ctx.save_for_backward(hidden, weight, bias, other_hidden, other_weight, other_bias, own_total, other_total)
        ctx.softcaps, ctx.operand_dtype = (softcap, other_softcap), dtype
        return gap - other_total + own_total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden, weight, bias, other_hidden, other_weight, other_bias, own_total, other_total = ctx.saved_tensors
        sums, dtype, (softcap, other_softcap) = GradientSums(ctx, hidden, weight, bias), ctx.operand_dtype, ctx.softcaps
        blocks = _blocks_of_both(weight, bias, other_weight, other_bias, len(hidden), dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for columns, ours, theirs in blocks:
                for rows in tiles_of(len(hidden)):
                    own = logits_of(hidden[rows].to(dtype), *ours, softcap)
                    other = logits_of(other_hidden[rows].to(dtype), *theirs, other_softcap)
                    bend = None if softcap is None else 1 - (own / softcap).square_()
                    slope = own.sub_(own_total[rows, None]).exp_()
                    slope = slope.sub_(other.sub_(other_total[rows, None]).exp_())
                    slope = slope if bend is None else slope.mul_(bend)
                    sums.add(slope, -grad_output[rows], hidden[rows], ours[0], rows, columns)
                sums.close_block(columns)
        return *sums.gradients(), None, None, None, None, None, None


def _blocks_of_both(
    weight: Tensor, bias: Tensor | None, other_weight: Tensor, other_bias: Tensor | None, count: int, dtype: torch.dtype
) -> Iterator[tuple[slice, tuple, tuple]]:
    """Yield (columns, (weight, bias) of the own block, those of the other) of two heads over one vocabulary."""
    both = zip(blocks_of(weight, bias, count, dtype), blocks_of(other_weight, other_bias, count, dtype), strict=True)
    for (columns, *ours), (_, *theirs) in both:
        yield columns, ours, theirs


class _ChosenLogps(torch.autograd.Function):
    """Arguments: hidden, weight, bias, ids, soft cap, dtype of the products."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, ids, softcap, dtype):
        wide = wide_dtype_of(dtype)
        total, others = (hidden.new_full(hidden.shape[:1], -math.inf, dtype=wide) for _ in range(2))
        chosen = hidden.new_zeros(ids.shape, dtype=wide)
        with torch.autocast(hidden.device.type, enabled=False):
            for columns, block, block_bias in blocks_of(weight, bias, len(hidden), dtype):
                for rows in tiles_of(len(hidden)):
                    logits = logits_of(hidden[rows].to(dtype), block, block_bias, softcap)
                    inside, position = position_in_block(ids[rows], columns)
                    chosen[rows] = torch.where(inside, logits.gather(1, position), chosen[rows])
                    total[rows] = torch.logaddexp(total[rows], logits.logsumexp(-1))
                    others[rows] = torch.logaddexp(others[rows], _without(logits, inside, position).logsumexp(-1))
        ctx.save_for_backward(hidden, weight, bias, ids, total, others)
        ctx.softcap, ctx.operand_dtype = softcap, dtype
        return torch.cat([chosen, others[:, None]], 1) - total[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        hidden, weight, bias, ids, total, others = ctx.saved_tensors
        sums = GradientSums(ctx, hidden, weight, bias)
        of_chosen, of_others = grad_output[:, :-1], grad_output[:, -1:]
        of_all = grad_output.sum(-1, keepdim=True)
        as_it_is = -torch.ones_like(total)
        with torch.autocast(hidden.device.type, enabled=False):
            for columns, block, block_bias in blocks_of(weight, bias, len(hidden), ctx.operand_dtype):
                for rows in tiles_of(len(hidden)):
                    logits = logits_of(hidden[rows].to(ctx.operand_dtype), block, block_bias, ctx.softcap)
                    bend = None if ctx.softcap is None else 1 - (logits / ctx.softcap).square()
                    inside, position = position_in_block(ids[rows], columns)
                    slope = (logits - total[rows, None]).exp_().mul_(-of_all[rows])
                    slope.scatter_add_(1, position, torch.where(inside, of_chosen[rows], 0.0).to(slope.dtype))
                    left = _without(logits, inside, position).sub_(others[rows, None]).exp_()
                    slope.add_(left.mul_(of_others[rows]))
                    slope = slope if bend is None else slope.mul_(bend)
                    sums.add(slope, as_it_is[rows], hidden[rows], block, rows, columns)
                sums.close_block(columns)
        return *sums.gradients(), None, None, None


def _without(logits: Tensor, inside: Tensor, position: Tensor) -> Tensor:
    """Put minus infinity in place where a chosen token stands, and return the tile."""
    # A sum, so that places outside the block, which point at its first column, change nothing there.
    return logits.scatter_add_(1, position, torch.where(inside, -math.inf, 0.0).to(logits.dtype))


def plain_logps(side: Distributions) -> Tensor:
    """Return all log-probs [N, V], of logits that are there already."""
    logits = side.hidden if side.weight is None else torch.nn.functional.linear(side.hidden, side.weight, side.bias)
    if side.softcap is not None:
        logits = side.softcap * torch.tanh(logits / side.softcap)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
