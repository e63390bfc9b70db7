"""Cells: which response under which media, and comparisons of them. They ask whether a model looks before it speaks.

A cell is a response of a compared pair, scored under the media of the row or in a view (`engine/views.py`). Objectives
over changed media are sums of few cells behind a link:

    link( beta * sum over cells of weight * (S(policy) - S(reference)) - shift )

DPO is the cells better - worse under the row's own media; mDPO adds better - better in a view without most of the
picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.engine.views import View
from mmalign.objectives.comparison import GroupFacts, PairIndex
from mmalign.objectives.dense import REFERENCE_KL
from mmalign.objectives.links import Link, logistic
from mmalign.objectives.sequential_kl import divergences
from mmalign.objectives.terms import Comparing, StepFacts
from mmalign.objectives.tokens import TokenRule, weighted
from mmalign.objectives.weights import compared_weight, shared_weight
from mmalign.pairs.ranking import rank_pairs

BETTER, WORSE, LAST = 0, 1, 2
"""Responses of a pair, and the last response of its group."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """weight * (S(policy) - S(reference)) of one response.

    Args:
        response: `BETTER`, `WORSE` or `LAST`.
        view: under which media; None for those of the row.
        weight: factor, negative for what is to be less likely.
        reference: whether the reference's log-prob in the same cell is subtracted.
        fixed: the policy's log-prob passes no gradient.
    """

    response: int
    view: View | None = None
    weight: float = 1.0
    reference: bool = True
    fixed: bool = False


@dataclass(frozen=True, kw_only=True)
class Contrast(Comparing):
    """Mean over groups of the mean over their pairs of  link(beta * sum of cells - shift).

    Args:
        cells: what is compared.
        beta: of the sum of cells.
        link: from the margin to a loss.
        shift: by how much the margin must lead.
        pairs: one of `mmalign.pairs.ranking.PAIRINGS`.
        last_apart: the last response of a group is no side of a pair, and a group without it has none.
        tokens: which tokens of a pair count, under all media alike; all where None. Not beside `LAST`.
        kl_weight: of D(worse) - sg(D(better)), subtracted from the cells; D is the divergence from the reference summed
            along a response under the media of the row (TDPO2).
    """

    cells: tuple[Cell, ...]
    beta: float
    link: Link = logistic
    shift: float = 0.0
    pairs: str = "all"
    last_apart: bool = False
    tokens: TokenRule | None = None
    kl_weight: float = 0.0

    @property
    def dense(self) -> tuple[str, ...]:
        """Which numbers per token are read beside log-probs."""
        return (REFERENCE_KL,) if self.kl_weight else ()

    @property
    def needs_reference(self) -> bool:
        """Whether a cell is taken against a reference, as the logged rewards then are."""
        return any(cell.reference for cell in self.cells)

    @property
    def views(self) -> tuple[View, ...]:
        """The views of the cells."""
        return tuple(dict.fromkeys(cell.view for cell in self.cells if cell.view is not None))

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the positions of all pairs, and the last where it is read."""
        return self._positions(levels, {BETTER, WORSE, *(cell.response for cell in self.cells)})

    def read_in(self, view: View, levels: Sequence[int]) -> set[int]:
        """Return the positions of the cells in this view."""
        return self._positions(levels, {cell.response for cell in self.cells if cell.view == view})

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: the weight of each group that has a pair."""
        return compared_weight(self.compared(facts), facts)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: the weighted mean of the pair losses of each group."""
        index = self.compared(facts)
        losses = self.link(self.beta * self.margin(policy, reference, facts, index) - self.shift)
        return index.group_sums(shared_weight(index, facts) * losses)

    def margin(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, index: PairIndex) -> Tensor:
        """Return the sum of cells [P] in nats, before beta and shift."""
        token_weights = None
        if self.tokens is not None:
            token_weights = self.tokens(index.of(policy), facts.seed[index.group])
        total = policy.token_logps.new_zeros(len(index))
        for cell in self.cells:
            own = _sums(policy, cell.view, index, facts, token_weights)[:, cell.response]
            value = own.detach() if cell.fixed else own
            if cell.reference:
                value = value - _sums(reference, cell.view, index, facts, token_weights)[:, cell.response].detach()
            total = total + cell.weight * value
        if not self.kl_weight:
            return total
        pairs = index.of(policy)
        moved = divergences(pairs if token_weights is None else weighted(pairs, token_weights))
        return total - self.kl_weight * (moved[:, WORSE] - moved[:, BETTER].detach())

    def rewards(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        """Return [P, 2]: beta (S - S_ref) of the compared pairs under the media of the row, detached."""
        index = self.compared(facts)
        sums = index.sides(policy.sums())
        return self.beta * (sums - index.sides(reference.sums()) if self.needs_reference else sums).detach()

    def compared(self, facts: GroupFacts) -> PairIndex:
        """Return the pairs of `pairs`, without those that have the last response on a side where it stands apart."""
        index = super().compared(facts)
        if not self.last_apart:
            return index
        kept = index.worse != _last(facts)[index.group]
        group = index.group[kept]
        per_group = torch.bincount(group, minlength=len(index.per_group))
        return PairIndex(group, index.better[kept], index.worse[kept], per_group)

    def _positions(self, levels: Sequence[int], responses: set[int]) -> set[int]:
        last = len(levels) - 1
        pairs = [pair for pair in rank_pairs(levels, self.pairs) if not self.last_apart or pair[1] != last]
        return {(*pair, last)[response] for pair in pairs for response in responses}


def _last(facts: GroupFacts) -> Tensor:
    """Return the position of the last response of each group [B]."""
    return facts.response_mask.sum(1) - 1


def _sums(
    logps: GroupLogps, view: View | None, index: PairIndex, facts: GroupFacts, token_weights: Tensor | None
) -> Tensor:
    """Return S [P, 3] of better, worse and last responses under some media."""
    seen = logps if view is None else logps.views[view.name]
    pairs = index.of(seen)
    sides = pairs if token_weights is None else weighted(pairs, token_weights)
    last = seen.sums().gather(1, _last(facts)[:, None]).squeeze(1)
    return torch.cat([sides.sums(), last[index.group][:, None]], 1)
