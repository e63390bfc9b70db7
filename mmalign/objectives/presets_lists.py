"""Presets on ranked lists of K responses: the whole order counts, in one forward of one tree.

s = beta R against a reference, or A per token without; responses best first, r_i: score of response i in the row.
"""

from __future__ import annotations

from mmalign.objectives.listwise import (
    LikelihoodOfList,
    Listwise,
    graded_contrast,
    likelihood_contrast,
    plackett_luce,
    wrong_orders,
)
from mmalign.objectives.preset import DOUBT, PAIR, Preset, alone, ratio, weighed, with_likelihood
from mmalign.objectives.rules import FactorOfBest
from mmalign.objectives.score import Score, sequence_mean, sequence_sum
from mmalign.objectives.terms import Likelihood

_PER_TOKEN = Score(of=sequence_mean, reference=False)


def _plackett_luce(o):
    score = Score(of=sequence_sum, scale=o.beta, reference=True)
    return alone(Listwise(score=score, rule=plackett_luce))


def _pro(o):
    order = Listwise(score=_PER_TOKEN, rule=graded_contrast, needs_scores=True)
    return weighed(("", 1.0, order), ("_nll", o.sft_weight, LikelihoodOfList()))


def _knowpat(o):
    order = Listwise(score=_PER_TOKEN, rule=likelihood_contrast)
    return ("", o.list_weight, order), ("_nll", 1.0, Likelihood(per="sequence", where="all"))


def _rrhf(o):
    order = Listwise(score=_PER_TOKEN, rule=wrong_orders)
    return with_likelihood(order, o.sft_weight, where="all")


LIST_PRESETS = (
    Preset(
        name="plackett_luce",
        says="DPO on a whole ranking: the best of all, then the best of the rest, and so on",
        source="Rafailov et al. 2023, arXiv:2305.18290, appendix A.3",
        formula="sum_i -log( exp(s_i) / (exp(s_i) + sum over j worse of exp(s_j)) )",
        options={"beta": 0.1},
        parts=_plackett_luce,
    ),
    Preset(
        name="pro",
        says="a ranking whose steps are as steep as the gaps between scores, and the likelihood of the best",
        source="Song et al. 2023, arXiv:2306.17492",
        formula="sum_i -log( exp(T_i A_i) / (exp(T_i A_i) + sum_j exp(T_ij A_j)) ) + sft_weight (n - 1)^2 (-S_1),  "
        "T_ij = r_i - r_j, T_i = max_j T_ij",
        options={"sft_weight": 0.05},
        parts=_pro,
        departures=("log-sum-exp in place of the authors' log(x + 1e-10).",),
    ),
    Preset(
        name="knowpat",
        says="every response up, those below it down, weighed by the policy's own order",
        source="Zhang et al. 2023, arXiv:2311.06503",
        formula="NLL(best) + list_weight mean_i mu_i [softplus(-A_i) + mean over j worse of softplus(A_j)]",
        options={"list_weight": 0.1},
        parts=_knowpat,
        departures=(
            "A and NLL are per token of the answer; the authors' code divides by the padded length.",
            "The mean is over the n - 1 responses that have a worse one; the authors' code divides by 3, for n = 4.",
        ),
    ),
    Preset(
        name="rrhf",
        says="a push on every pair that the policy has in the wrong order, and the likelihood of the best",
        source="Yuan et al. 2023, arXiv:2304.05302, eq. 3 to 5; CycleAlign, arXiv:2310.16271, trains on the same",
        formula="sum over i better than j of max(0, A_j - A_i) + sft_weight NLL(best)",
        options={"sft_weight": 1.0},
        parts=_rrhf,
        departures=("The loss alone: CycleAlign's rankings by two models are rows here; its loss is from memory.",),
    ),
    Preset(
        name="trpa",
        says="all pairs of different level, those with a best response steeper",
        source="Su et al. 2025, arXiv:2504.04524",
        formula="mean over i better than j of -log sigmoid(c beta (R_i - R_j) per token),  c = best_factor for i best",
        options={**PAIR, **DOUBT, "best_factor": 2.5},
        parts=lambda o: alone(ratio(o, per_token=True, factor=FactorOfBest(o.best_factor))),
        departures=(
            "Offline, on ranked rows: the paper samples anew every step, with a KL term to the policy before it.",
            "The mean is over the pairs of a row, then over rows; the authors' code takes it over all pairs at once.",
        ),
    ),
)
