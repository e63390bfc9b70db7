"""What a response owes to the turns before the last: likelihood where it counts, and the logits that history adds.

p is the policy's probability of a token, p0 its probability where the prompt has no history (`without_history`), z and
z0 the logits of the two:

    CounterfactualLikelihood    sum_t w_t (-log p_t) / sum_t w_t,  w = owed_weight where p - p0 > threshold, else 1 - it
    GainedLikelihood            mean_t -log softmax(z - z0)[t]

Source: NextQuill, arXiv:2506.02368, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.engine.views import View, without_history
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.dense import GAINED_LOGPS
from mmalign.objectives.terms import Part, StepFacts
from mmalign.objectives.weights import imitated, imitated_weight


@dataclass(frozen=True, kw_only=True)
class _OfBest(Part):
    """A mean over the tokens of best responses, read with history and without."""

    needs_reference: bool = False
    views: tuple[View, ...] = (without_history(),)

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the position of the best response."""
        return imitated(levels)

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: weight times tokens of the best response."""
        return imitated_weight(facts) * lengths[:, 0]


@dataclass(frozen=True, kw_only=True)
class CounterfactualLikelihood(_OfBest):
    """Negative log-likelihood in which tokens that history made likelier count more; weights sum to 1 over the step.

    Args:
        threshold: by how much history must raise a token's probability.
        owed_weight: weight of such tokens before weights are made to sum to 1; the others have 1 minus it.
    """

    threshold: float
    owed_weight: float
    whole_step: bool = True

    def survey(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        """Return [B, 2], weights and tokens of each best response, times the weight of its row."""
        tokens = self.counts(facts, policy.lengths())
        return torch.stack([(imitated_weight(facts) * self._weights(policy).sum(-1)).double(), tokens.double()], 1)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: the weighted sum over tokens, scaled so that by the tokens of the step it is a weighted mean."""
        weights, tokens = step.survey.sum(0)
        losses = -policy.counted(policy.token_logps)[:, 0]
        scale = (tokens / weights.clamp(min=torch.finfo(weights.dtype).tiny)).to(losses)
        return imitated_weight(facts) * (self._weights(policy) * losses).sum(-1) * scale

    def _weights(self, policy: GroupLogps) -> Tensor:
        """Return [B, T], 0 where there is no token."""
        (view,) = self.views
        gain = policy.token_logps[:, 0].detach().exp() - policy.views[view.name].token_logps[:, 0].detach().exp()
        weights = torch.where(gain > self.threshold, self.owed_weight, 1 - self.owed_weight)
        return weights.to(policy.token_logps.dtype).masked_fill(~policy.mask[:, 0], 0.0)


@dataclass(frozen=True, kw_only=True)
class GainedLikelihood(_OfBest):
    """Negative log-likelihood under what history adds to the logits, per token."""

    dense: tuple[str, ...] = (GAINED_LOGPS,)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: weight times the sum over tokens."""
        return -imitated_weight(facts) * policy.counted(policy.dense[GAINED_LOGPS])[:, 0].sum(-1)
