"""What a batch shows about the policy, as totals and counts, so that batches and ranks can be added before dividing."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts, PairIndex, pair_index


class Ratio(NamedTuple):
    """A mean that is not divided yet: two scalars."""

    total: Tensor
    count: Tensor


def likelihood_metrics(policy: GroupLogps) -> dict[str, Ratio]:
    """Return log-prob and tokens of the best response, averaged over groups."""
    best = policy.lengths()[:, 0]
    return {"logps/chosen": _mean(policy.sums()[:, 0]), "lengths/chosen": _mean(best.to(policy.token_logps.dtype))}


def preference_metrics(pairing: str, rewards: Tensor, policy: GroupLogps, facts: GroupFacts) -> dict[str, Ratio]:
    """Return what is logged about the compared pairs; every group counts once, as the mean over its pairs.

    Args:
        pairing: which pairs.
        rewards: [P, 2], of the better and the worse response of each pair.

    Returns:
        `rewards/chosen`, `rewards/rejected`, `rewards/margins`, `rewards/accuracies` (share of pairs whose better
        response has the strictly higher reward), `logps/chosen`, `logps/rejected` (sums over tokens), `lengths/chosen`,
        `lengths/rejected` (tokens), `lengths/chosen_longer` (share of pairs; one half for equal lengths).
    """
    pairs = pair_index(facts, pairing)
    lengths = pairs.sides(policy.lengths().to(rewards.dtype))
    margin = rewards[:, 0] - rewards[:, 1]
    longer = ((lengths[:, 0] - lengths[:, 1]).sign() + 1) / 2
    return {
        **_sides("rewards", rewards, pairs),
        "rewards/margins": _group_mean(margin, pairs),
        "rewards/accuracies": _group_mean((margin > 0).to(rewards.dtype), pairs),
        **_sides("logps", pairs.sides(policy.sums().detach()), pairs),
        **_sides("lengths", lengths, pairs),
        "lengths/chosen_longer": _group_mean(longer, pairs),
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
        f"{name}/chosen": _group_mean(value[:, 0], pairs),
        f"{name}/rejected": _group_mean(value[:, 1], pairs),
    }


def _group_mean(values: Tensor, pairs: PairIndex) -> Ratio:
    compared = pairs.per_group > 0
    means = pairs.group_sums(values) / pairs.per_group.clamp(min=1)
    return Ratio(means.sum(), compared.sum().to(values.dtype))


def _mean(values: Tensor) -> Ratio:
    return Ratio(values.detach().sum(), values.new_tensor(float(values.numel())))
