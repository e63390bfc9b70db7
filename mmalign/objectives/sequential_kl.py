"""The sequential KL divergence of TDPO: how far the policy's predictions moved along a response, as a shift of scores.

D(y) = sum_t KL( reference(. | x, y_<t) || policy(. | x, y_<t) )
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.dense import REFERENCE_KL
from mmalign.objectives.pairwise import PairRule, Pairs


def divergences(policy: GroupLogps) -> Tensor:
    """Return D of each response, [B, K]."""
    return policy.counted(policy.dense[REFERENCE_KL]).sum(-1)


@dataclass(frozen=True)
class SequentialKl(PairRule):
    """Adds scale * D to the score of either response: the shift that is subtracted is -scale * D.

    Token weights of the scores weigh the divergences too.

    Source: TDPO, arXiv:2404.11999, eq. 14 to 19.

    Args:
        scale: beta of the scores times the weight of the divergence.
        held: take D of the better response as given, so that only the worse one's is pushed (TDPO2).
    """

    scale: float
    held: bool
    dense = (REFERENCE_KL,)

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return the shift [P, 2]."""
        better, worse = divergences(pairs.policy).unbind(1)
        return -self.scale * torch.stack([better.detach() if self.held else better, worse], 1)
