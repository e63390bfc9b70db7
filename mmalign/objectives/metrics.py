"""What a batch shows about the policy, as totals and counts, so that batches and ranks can be added before dividing.

What is no mean, a correlation, travels as the means that it is made of, under names of its own (`_MOMENTS`), and is
made of them after all have been added (`derived`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts, PairIndex, pair_index

_MOMENTS = ("moments/reward_length", "moments/reward_reward", "moments/length_length")
_LARGEST_EXPONENT = 10.0


class Ratio(NamedTuple):
    """A mean that is not divided yet: two scalars."""

    total: Tensor
    count: Tensor


def likelihood_metrics(policy: GroupLogps) -> dict[str, Ratio]:
    """Return log-prob and tokens of the best response, averaged over groups."""
    best = policy.lengths()[:, 0]
    return {"logps/chosen": _mean(policy.sums()[:, 0]), "lengths/chosen": _mean(best.to(policy.token_logps.dtype))}


def divergence_metrics(policy: GroupLogps, reference: GroupLogps, response_mask: Tensor) -> dict[str, Ratio]:
    """Return how far the policy is from its reference on the tokens of the rows' responses, in nats per token.

    With r = log policy - log reference of a token: `kl/k1` is the mean of r, `kl/k3` that of exp(-r) - 1 + r, which is
    never below 0. Both estimate KL(policy || reference) where tokens are the policy's own; here they are those of the
    rows, so they say how far apart the two are on this text. -r is cut at 10 in the exponential.

    Args:
        response_mask: bool [B, K], which responses are the rows' own; an answer to another prompt is not.

    Source: Schulman 2020, Approximating KL divergence.
    """
    own = policy.mask & response_mask[..., None]
    log_ratio = (policy.token_logps - reference.token_logps).detach().masked_fill(~own, 0.0)
    tokens = own.sum().to(log_ratio.dtype)
    k3 = torch.expm1(-log_ratio.clamp(min=-_LARGEST_EXPONENT)) + log_ratio.clamp(min=-_LARGEST_EXPONENT)
    return {"kl/k1": Ratio(log_ratio.sum(), tokens), "kl/k3": Ratio(k3.sum(), tokens)}


def derived(means: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a step from its means.

    `rewards/length_correlation` stands in the place of its moments: how reward goes with length inside pairs, from -1
    to 1. It is the correlation of the two over all responses, each measured from the middle of its pair, so it does not
    depend on which response is called the better one. Left out where rewards or lengths do not differ.
    """
    plain = {name: value for name, value in means.items() if name not in _MOMENTS}
    both, reward, length = (means.get(name, 0.0) for name in _MOMENTS)
    if reward > 0 and length > 0:
        plain["rewards/length_correlation"] = both / math.sqrt(reward * length)
    return plain


def preference_metrics(pairing: str, rewards: Tensor, policy: GroupLogps, facts: GroupFacts) -> dict[str, Ratio]:
    """Return what is logged about the compared pairs; every group counts once, as the mean over its pairs.

    Args:
        pairing: which pairs.
        rewards: [P, 2], of the better and the worse response of each pair.

    Returns:
        `rewards/chosen`, `rewards/rejected`, `rewards/margins`, `rewards/accuracies` (share of pairs whose better
        response has the strictly higher reward), `logps/chosen`, `logps/rejected` (sums over tokens), `lengths/chosen`,
        `lengths/rejected` (tokens), `lengths/chosen_longer` (share of pairs; one half for equal lengths), and the
        moments of which `derived` makes `rewards/length_correlation`.
    """
    pairs = pair_index(facts, pairing)
    lengths = pairs.sides(policy.lengths().to(rewards.dtype))
    margin = rewards[:, 0] - rewards[:, 1]
    extra = lengths[:, 0] - lengths[:, 1]
    longer = (extra.sign() + 1) / 2
    moments = zip(_MOMENTS, (margin * extra, margin * margin, extra * extra), strict=True)
    return {
        **_sides("rewards", rewards, pairs),
        "rewards/margins": group_mean(margin, pairs),
        "rewards/accuracies": group_mean((margin > 0).to(rewards.dtype), pairs),
        **_sides("logps", pairs.sides(policy.sums().detach()), pairs),
        **_sides("lengths", lengths, pairs),
        "lengths/chosen_longer": group_mean(longer, pairs),
        **{name: group_mean(moment, pairs) for name, moment in moments},
    }


def judged_metrics(
    rewards: Tensor, baseline: Tensor, policy: GroupLogps, good: Tensor, bad: Tensor
) -> dict[str, Ratio]:
    """Return what is logged about answers that are judged one by one; every judged answer counts once.

    Args:
        rewards: [B, K].
        baseline: [], what they are measured from.
        good, bad: bool [B, K].

    Returns:
        `rewards/chosen` and `rewards/rejected` of good and of bad answers, `rewards/baseline`, `rewards/accuracies`
        (share of judged answers whose reward is on their side of the baseline), `logps/...` (sums over tokens),
        `lengths/...` (tokens).
    """
    right = (good & (rewards > baseline)) | (bad & (rewards < baseline))
    values = {"rewards": rewards, "logps": policy.sums().detach(), "lengths": policy.lengths()}
    sides = {
        f"{name}/{side}": _selected_mean(value.to(rewards.dtype), where)
        for name, value in values.items()
        for side, where in (("chosen", good), ("rejected", bad))
    }
    return {
        **sides,
        "rewards/baseline": _selected_mean(baseline.expand(rewards.shape), good | bad),
        "rewards/accuracies": _selected_mean(right.to(rewards.dtype), good | bad),
    }


def _selected_mean(values: Tensor, where: Tensor) -> Ratio:
    return Ratio((values * where).sum(), where.sum().to(values.dtype))


def _sides(name: str, value: Tensor, pairs: PairIndex) -> dict[str, Ratio]:
    return {
        f"{name}/chosen": group_mean(value[:, 0], pairs),
        f"{name}/rejected": group_mean(value[:, 1], pairs),
    }


def group_mean(values: Tensor, pairs: PairIndex) -> Ratio:
    """Return the mean of `values` [P] over groups that have a pair, each the mean over its pairs."""
    compared = pairs.per_group > 0
    means = pairs.group_sums(values) / pairs.per_group.clamp(min=1)
    return Ratio(means.sum(), compared.sum().to(values.dtype))


def _mean(values: Tensor) -> Ratio:
    return Ratio(values.detach().sum(), values.new_tensor(float(values.numel())))
