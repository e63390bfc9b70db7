"""Presets that treat pairs unequally: by the gap between scores, by what the policy makes of them, by who judged.

R = S - S_ref, m = beta (R_w - R_l); d: by how much the better response scores higher in the row.
"""

from __future__ import annotations

from mmalign.objectives.batch_beta import BatchBeta, DataAndModelBeta, SelectedWeight
from mmalign.objectives.noise import Posterior
from mmalign.objectives.preset import DOUBT, PAIR, SHAPED_RATIO, Preset, alone, ratio, weighed, with_likelihood
from mmalign.objectives.rules import GapFactor, QualityAndPerformance, SaturatingFactor
from mmalign.objectives.terms import Rescue


def _beta_dpo(o):
    factor = BatchBeta(o.beta_scaling, o.selected_share, unit=1.0, remembers=True)
    return alone(ratio(o, factor=factor, weight=SelectedWeight(factor)))


def _beta_dpo_implicit(o):
    return alone(ratio(o, factor=BatchBeta(o.beta_scaling, o.selected_share, unit=o.beta, remembers=False)))


def _dama(o):
    factor = DataAndModelBeta(1.0, o.selected_share, unit=o.beta, remembers=True, deviation=1.0, mean_gap=o.mean_gap)
    return alone(ratio(o, factor=factor, weight=SelectedWeight(factor)))


def _uni_dpo(o):
    weight = QualityAndPerformance(o.beta, o.quality_rate, o.settled_at, o.focus)
    rescue = Rescue(good_score=o.good_score)
    return weighed(("", 1.0, ratio(o, per_token=True, weight=weight)), ("_nll", o.sft_weight, rescue))


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
        name="dama",
        says="DPO whose beta is larger for easy data, and for a policy that tells the step's pairs apart",
        source="Lu et al. 2025, arXiv:2502.01943, eq. 6 to 16, as in the authors' code",
        formula="-log sigmoid(b (R_w - R_l)) over selected pairs,  "
        "b = beta sigmoid(d) / sigmoid(mean_gap) * mean of selected sigmoid(R_w - R_l) / sigmoid(M_0)",
        options={**PAIR, **DOUBT, "mean_gap": 0.0, "selected_share": 0.8},
        parts=_dama,
        departures=(
            "d comes from the scores of the rows and mean_gap from you; the paper takes both from CLIP probabilities.",
            "Which pairs are selected is drawn from the ids of their rows; the authors' code draws on every rank.",
            "b is at least a hundredth of beta, which is the authors' bound at beta 0.1.",
        ),
    ),
    Preset(
        name="uni_dpo",
        says="DPO per token that counts pairs by the quality of their data and by what the policy has yet to learn",
        source="Peng et al. 2025 (Omni-DPO, Uni-DPO), arXiv:2506.10054",
        formula="-sigmoid(quality_rate d) (1 - sigmoid(beta (A_w - A_l) - settled_at))^focus log sigmoid(beta D per "
        "token) + sft_weight NLL(best) where S_w < S_ref,w and r_w >= good_score",
        options={
            **PAIR,
            "beta": 2.0,
            **DOUBT,
            "quality_rate": 0.7,
            "settled_at": 2.0,
            "focus": 3.0,
            "sft_weight": 1e-3,
            "good_score": 2.5,
        },
        parts=_uni_dpo,
        departures=("Defaults are the authors' for Qwen2-VL-2B; good_score depends on the scale of your scores.",),
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
