"""Presets that treat pairs unequally: by the gap between scores, by what the policy makes of them, by who judged.

R = S - S_ref, m = beta (R_w - R_l); d: by how much the better response scores higher in the row.
"""

from __future__ import annotations

from mmalign.objectives.batch_beta import BatchBeta, SelectedWeight
from mmalign.objectives.noise import Posterior
from mmalign.objectives.preset import DOUBT, PAIR, SHAPED_RATIO, Preset, alone, ratio, with_likelihood
from mmalign.objectives.rules import GapFactor, SaturatingFactor


def _beta_dpo(o):
    factor = BatchBeta(o.beta_scaling, o.selected_share, unit=1.0, remembers=True)
    return alone(ratio(o, factor=factor, weight=SelectedWeight(factor)))


def _beta_dpo_implicit(o):
    return alone(ratio(o, factor=BatchBeta(o.beta_scaling, o.selected_share, unit=o.beta, remembers=False)))


_SELECTION = {"beta_scaling": 0.6, "selected_share": 0.8}

WEIGHED_PRESETS = (
    Preset(
        name="mm_dpo",
        says="DPO whose beta grows with the gap between the scores of a reward model, and likelihood",
        source="Zhang et al. 2025 (MM-RLHF), arXiv:2502.10391, dynamic reward scaling",
        formula="-log sigmoid(b (R_w - R_l)) + sft_weight NLL(best),  b = beta (1 + reach (1 - exp(-rate d)))",
        options={**SHAPED_RATIO, "reach": 0.5, "rate": 0.5, "sft_weight": 0.25},
        parts=lambda o: with_likelihood(ratio(o, factor=SaturatingFactor(o.reach, o.rate)), o.sft_weight),
        departures=(
            "d below 0 counts as 0, as the paper's bound on b implies.",
            "This is the paper's formula; what its released code does by default is beta_dpo_implicit.",
        ),
    ),
    Preset(
        name="da_dpo",
        says="DPO whose beta grows in proportion to the gap between scores, so that easy pairs saturate",
        source="DA-DPO 2026, arXiv:2601.00623",
        formula="-log sigmoid(gap_factor (1 + |d|) m)",
        options={**SHAPED_RATIO, "gap_factor": 1.0},
        parts=lambda o: alone(ratio(o, factor=GapFactor(o.gap_factor))),
        departures=("d comes from the scores of the rows; how the paper mixes its two estimators is not published.",),
    ),
    Preset(
        name="beta_dpo",
        says="DPO whose beta follows the step's mean margin, without the pairs that stand out",
        source="Wu et al. 2024, arXiv:2407.08639",
        formula="-log sigmoid(b (R_w - R_l)) over selected pairs,  b = beta (1 + beta_scaling (M - M_0))",
        options={**PAIR, **DOUBT, **_SELECTION},
        parts=_beta_dpo,
        departures=(
            "From memory of the paper: M is the mean reward margin of the selected pairs, M_0 an average over earlier "
            "steps (0.9 of the old, 0.1 of the new), selection by exp(-(margin - M_0)^2 / 2 variance).",
            "Which pairs are selected is drawn from the ids of their rows: the same on any cut, rank or resumed run.",
        ),
    ),
    Preset(
        name="beta_dpo_implicit",
        says="what MM-RLHF's trainer does by default: beta follows the step's margins, no pair is left out",
        source="released trainer of MM-RLHF, github.com/Kwai-YuanQi/MM-RLHF; an ablation in arXiv:2502.10391",
        formula="-log sigmoid(b (R_w - R_l)),  b = beta (1 + beta_scaling (mean of selected margins - mean of all))",
        options={**PAIR, **DOUBT, **_SELECTION, "beta_scaling": 0.1},
        parts=_beta_dpo_implicit,
        departures=(
            "Which pairs are selected is drawn from the ids of their rows: the same on any cut, rank or resumed run.",
        ),
    ),
    Preset(
        name="lcpo",
        says="DPO that learns which labels are flipped, and how reliable each annotator is",
        source="Cao et al. 2025 (LCPO, RE-PO), arXiv:2509.24159, eq. 4 to 7",
        formula="-q log sigmoid(m) - (1 - q) log sigmoid(-m),  q = p eta / (p eta + (1 - p)(1 - eta)), p = sigmoid(m)",
        options={**PAIR, "reliability": 0.9, "reliability_rate": 0.1, "ld_alpha": 1.0},
        parts=lambda o: alone(ratio(o, target=Posterior(o.reliability, o.reliability_rate))),
        departures=(
            "The logistic link; the paper wraps any pairwise loss. The tag `annotator` of a row names who judged it.",
            "eta moves once a step by the mean over all of an annotator's pairs in it, and stays in [0.001, 0.999].",
        ),
    ),
)
