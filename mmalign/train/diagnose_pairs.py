"""Findings about what an objective makes of single pairs: weights and label targets that leave nothing to learn."""

from __future__ import annotations

from mmalign.objectives.histograms import HALF, TARGETS, WEIGHTS
from mmalign.train.curves import Curves
from mmalign.train.finding import Finding

_MOST_AT_ZERO = 0.75
_MOST_AT_HALF = 0.75


def weights_at_zero(curves: Curves) -> Finding | None:
    """Say that most pairs do not count, in the last quarter of the run."""
    at_zero, mean = curves.get(WEIGHTS.bins[0]), curves.get(WEIGHTS.mean)
    if at_zero is None or mean is None or at_zero.end < _MOST_AT_ZERO:
        return None
    sentence = (
        f"Most pairs had no weight: in the last quarter {at_zero.end:.0%} of them counted for nothing "
        f"({at_zero.start:.0%} in the first; mean weight {mean.end:.2g}), so the run learns from the few that are left."
    )
    advice = (
        "If that is not meant, look at what the weights are made of (scores, a judge's numbers) with `mmalign data "
        "show`, and widen the gate: a lower confidence, a larger selected_share."
    )
    return Finding("weights_at_zero", sentence, advice, {"share": at_zero.end, "mean": mean.end})


def targets_at_half(curves: Curves) -> Finding | None:
    """Say that most labels are neither believed nor doubted, in the last quarter of the run."""
    at_half, mean = curves.get(HALF), curves.get(TARGETS.mean)
    if at_half is None or mean is None or at_half.end < _MOST_AT_HALF:
        return None
    sentence = (
        f"The label targets have come to one half: in the last quarter {at_half.end:.0%} of the pairs had a target of "
        f"0.45 to 0.55 ({at_half.start:.0%} in the first; mean {mean.end:.2f}). There a label says nothing, and the "
        "loss only holds rewards together."
    )
    advice = (
        "Are the labels, or the second judge's numbers, better than chance? If they are, believe them more: a higher "
        "reliability, a smaller doubt, or plain dpo."
    )
    return Finding("targets_at_half", sentence, advice, {"share": at_half.end, "mean": mean.end})
