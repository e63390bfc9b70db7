"""Presets that push each response for itself, or a batch as a whole, against a reference.

s = beta R = beta (S - S_ref); w the better response, l the worse.
"""

from __future__ import annotations

from mmalign.objectives.batchwise import MeanOfOtherSide, RunningMean, SortedPairwise
from mmalign.objectives.links import (
    ANCHORED_DOWN,
    ANCHORED_UP,
    BINARY,
    CONTRASTED,
    LOGISTIC,
    Sides,
    scaled,
    squares_around,
)
from mmalign.objectives.preset import DOUBT, PAIR, RATIO, Preset, alone, ratio
from mmalign.objectives.score import Score, sequence_sum
from mmalign.objectives.targets import smoothed
from mmalign.objectives.terms import Likelihood
from mmalign.objectives.tokens import tail

_SORTED_TOGETHER = "Sorted over everything a step sees, on all ranks; TRL sorts each device's micro-batch by itself."
_SORTED = {**PAIR, **DOUBT, "ld_alpha": 1.0}


def _sorted(o, *, paired: bool):
    score = Score(of=sequence_sum, scale=o.beta, reference=True)
    return alone(
        SortedPairwise(
            score=score,
            comparison=LOGISTIC,
            target=smoothed(o.label_smoothing),
            pairs=o.pairs,
            tokens=tail(o.ld_alpha),
            paired=paired,
        )
    )


def _sppo_hard(o):
    reward = Score(of=sequence_sum, scale=o.beta, reference=True)
    score = Score(of=sequence_sum, reference=True)
    return alone(ratio(o, squares_around(0.5 / o.beta), score=score, reward=reward))


def _kto_pair(o):
    sides = Sides(scaled(ANCHORED_UP.up, o.desirable_weight), scaled(ANCHORED_UP.down, o.undesirable_weight))
    return alone(ratio(o, sides, shift=MeanOfOtherSide()))


def _mpo(o):
    terms = (("", o.dpo_weight, ratio(o)), ("_bco", o.bco_weight, ratio(o, BINARY)))
    return tuple(term for term in (*terms, ("_nll", o.sft_weight, Likelihood())) if term[1])


SIDES_PRESETS = (
    Preset(
        name="bco_pair",
        says="two yes-or-no questions: is the better one good, is the worse one bad",
        source="Jung et al. 2024, arXiv:2404.04656, without the reward shift; as TRL's bco_pair has it",
        formula="-log sigmoid(s_w) - log sigmoid(-s_l)",
        options=RATIO,
        parts=lambda o: alone(ratio(o, BINARY)),
    ),
    Preset(
        name="bco",
        says="bco_pair with rewards measured from their running mean",
        source="Jung et al. 2024, arXiv:2404.04656",
        formula="-log sigmoid(s_w - delta) - log sigmoid(-(s_l - delta)),  delta = mean of all s seen",
        options=RATIO,
        parts=lambda o: alone(ratio(o, BINARY, shift=RunningMean())),
        departures=(
            "delta is the mean over the steps before; TRL's former BCOTrainer counted the current batch in as well.",
            "The weights by an estimate of the prompt's density (UDM) are left out.",
        ),
    ),
    Preset(
        name="nca",
        says="noise contrast: raises the better response, and keeps it from being lowered with the worse",
        source="Chen et al. 2024, arXiv:2402.05369, for two responses",
        formula="-log sigmoid(s_w) - 1/2 log sigmoid(-s_w) - 1/2 log sigmoid(-s_l)",
        options=RATIO,
        parts=lambda o: alone(ratio(o, CONTRASTED)),
    ),
    Preset(
        name="sppo_hard",
        says="self-play as regression: log-ratios of +-1 / (2 beta) to hit",
        source="Wu et al. 2024, arXiv:2405.00675, eq. 4.7 with win probabilities 1 and 0",
        formula="(R_w - 1 / (2 beta))^2 + (R_l + 1 / (2 beta))^2",
        options={**RATIO, "beta": 1e-3},
        parts=_sppo_hard,
        departures=(
            "No factor 1/2, as in TRL.",
            "One round on given pairs; the paper samples, ranks and moves the reference in three.",
        ),
    ),
    Preset(
        name="apo_zero",
        says="the better above the reference, the worse below it",
        source="D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7",
        formula="sigmoid(-s_w) + sigmoid(s_l)",
        options=RATIO,
        parts=lambda o: alone(ratio(o, ANCHORED_UP)),
    ),
    Preset(
        name="apo_down",
        says="for responses worse than the model's own: both below the reference, the worse further",
        source="D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8",
        formula="sigmoid(s_w) + sigmoid(-(s_w - s_l))",
        options=RATIO,
        parts=lambda o: alone(ratio(o, ANCHORED_DOWN)),
    ),
    Preset(
        name="kto_pair",
        says="prospect theory on pairs: each side gains or loses from the mean of the other",
        source="Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7",
        formula="lD sigmoid(-(s_w - z_l)) + lU sigmoid(s_l - z_w),  z_j = max(0, mean of s_j over the step)",
        options={**RATIO, "desirable_weight": 1.0, "undesirable_weight": 1.0},
        parts=_kto_pair,
        departures=(
            "The baseline is the other side's mean over the step, as the authors first released it for pairs; KTO's "
            "own takes answers to other prompts, and needs no pairs: that is kto.",
        ),
    ),
    Preset(
        name="aot",
        says="the whole distribution of the policy's margins must lie above the reference's",
        source="Melnyk et al. 2024, arXiv:2406.05882, paired",
        formula="mean over ranks i of -log sigmoid(beta (a_(i) - b_(i))),  a = sorted S_w - S_l, b = the reference's",
        options=_SORTED,
        parts=lambda o: _sorted(o, paired=True),
        departures=(_SORTED_TOGETHER,),
    ),
    Preset(
        name="aot_unpaired",
        says="the log-ratios of better responses as a distribution must lie above those of worse ones",
        source="Melnyk et al. 2024, arXiv:2406.05882, unpaired",
        formula="mean over ranks i of -log sigmoid(beta (a_(i) - b_(i))),  a = sorted R_w, b = sorted R_l",
        options=_SORTED,
        parts=lambda o: _sorted(o, paired=False),
        departures=(_SORTED_TOGETHER,),
    ),
    Preset(
        name="mpo",
        says="mixed preference optimisation of InternVL: DPO for order, BCO for quality, likelihood for content",
        source="Wang et al. 2024, arXiv:2411.10442",
        formula="0.8 (-log sigmoid(m)) + 0.2 (-log sigmoid(s_w) - log sigmoid(-s_l)) + NLL(best)",
        options={**RATIO, "dpo_weight": 0.8, "bco_weight": 0.2, "sft_weight": 1.0},
        parts=_mpo,
        departures=(
            "The quality term has no reward shift, and the likelihood is averaged over the step's tokens, as in TRL.",
            "Not the Mixed Preference Optimization of arXiv:2403.19443, which splits rows by difficulty.",
        ),
    ),
)
