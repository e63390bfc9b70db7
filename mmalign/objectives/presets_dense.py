"""Presets that read more of a token than log-probs: whole distributions, of a reference or a teacher, or a reward.

R = S - S_ref, m = beta (R_w - R_l); D the sequential KL divergence of `sequential_kl.py`; t, c and s the log-probs of
the teacher's likeliest tokens under teacher, contrast model and policy (`imitation.py`); g the token's reward.
"""

from __future__ import annotations

from mmalign.objectives.dense import OF_CONTRASTED_TEACHER, OF_TEACHER
from mmalign.objectives.history import CounterfactualLikelihood, GainedLikelihood
from mmalign.objectives.imitation import Imitation, forward_kl, kl_to_extrapolated, minus_advantage
from mmalign.objectives.preset import DOUBT, PAIR, Preset, alone, ratio, weighed
from mmalign.objectives.sequential_kl import SequentialKl
from mmalign.objectives.terms import Likelihood
from mmalign.objectives.tokens import RewardedTokens

_TDPO = {**PAIR, **DOUBT, "ld_alpha": 1.0}
_TDPO_RECALLED = (
    "The formulas are from memory of the paper and of its authors' code; neither was at hand.",
    "Logged rewards are beta R, as those of dpo; the authors log beta (R + D).",
)


def _tdpo(o, *, weight: float, held: bool):
    return alone(ratio(o, shift=SequentialKl(weight * o.beta, held)))


def _dckd(o):
    def on(responses):
        return Imitation(cost=forward_kl, dense=OF_TEACHER, responses=responses)

    return weighed(
        ("_chosen", o.chosen_weight, on("best")),
        ("_rejected", o.rejected_weight, on("rest")),
        ("_nll", o.sft_weight, Likelihood()),
    )


def _adpa(o):
    part = Imitation(cost=minus_advantage, dense=OF_CONTRASTED_TEACHER, responses=o.responses)
    return weighed(("", o.advantage_weight, part), ("_nll", o.sft_weight, Likelihood()))


def _aligndistil(o):
    cost = kl_to_extrapolated(beta=o.beta, reach=o.lead, temperature=o.temperature)
    return alone(Imitation(cost=cost, dense=OF_CONTRASTED_TEACHER, responses=o.responses, per="sequence"))


DENSE_PRESETS = (
    Preset(
        name="tdpo1",
        says="DPO token by token: a response also pays for how far whole predictions moved along it",
        source="Zeng et al. 2024, arXiv:2404.11999, TDPO1",
        formula="-log sigmoid(m - beta (D_l - D_w)),  D = sum_t KL(reference || policy)",
        options=_TDPO,
        parts=lambda o: _tdpo(o, weight=1.0, held=False),
        departures=_TDPO_RECALLED,
    ),
    Preset(
        name="tdpo2",
        says="tdpo1 with a weighed divergence, of which the better response's part passes no gradient",
        source="Zeng et al. 2024, arXiv:2404.11999, TDPO2",
        formula="-log sigmoid(m - kl_weight beta (D_l - sg(D_w))),  D = sum_t KL(reference || policy)",
        options={**_TDPO, "kl_weight": 0.5},
        parts=lambda o: _tdpo(o, weight=o.kl_weight, held=True),
        departures=_TDPO_RECALLED,
        also={"alpha": "kl_weight"},
    ),
    Preset(
        name="sail",
        says="DPO in which tokens count by what a token-level reward model makes of them",
        source="Diagnose, Localize, Align (SAIL) 2025, github.com/LeixinSun/DLA-ICLR",
        formula="-log sigmoid(beta sum_t (1 + b g_t) d_t(w) - beta sum_t (1 - b g_t) d_t(l)),  "
        "d = lp - lr, g = lp_RM - lr, b = token_rate beta",
        options={**PAIR, **DOUBT, "token_rate": 0.5, "positive_weights": False},
        parts=lambda o: alone(ratio(o, tokens=RewardedTokens(o.token_rate * o.beta, o.positive_weights))),
        departures=(
            "The weights are those of the released code, where the paper's text weighs by attention of focal layers.",
            "Weights may fall below 0, as in the code; positive_weights stops them there.",
            "Which layers are trained is model.lora.targets; the paper's choice by attention drift is not made here.",
        ),
    ),
    Preset(
        name="dckd",
        says="imitates an aligned teacher's distributions on the better and on the worse response, and likelihood",
        source="Gao et al. 2025 (ADPA), arXiv:2502.17927, DCKD",
        formula="chosen_weight KL_w(t || s) + rejected_weight KL_l(t || s) + sft_weight NLL(best)",
        options={"chosen_weight": 1.0, "rejected_weight": 1.0, "sft_weight": 1.0},
        parts=_dckd,
        departures=(
            "The authors' weights stand in recipes that were not at hand; all are 1 here.",
            "Each divergence is divided by the tokens of its own side.",
            "Of a list all responses but the best are the rejected side.",
        ),
    ),
    Preset(
        name="adpa",
        says="raises tokens by how much more an aligned teacher likes them than the model it was aligned from",
        source="Gao et al. 2025, arXiv:2502.17927, ADPA",
        formula="advantage_weight mean_t [-sum_i e^s_i (t_i - c_i)] + sft_weight NLL(best)",
        options={"advantage_weight": 1.0, "sft_weight": 1.0, "responses": "rest"},
        parts=_adpa,
        departures=(
            "The worse responses of the rows stand for the student's own, which the authors store in their place.",
            "c is taken of the teacher's tokens themselves; the authors fill what their second table misses.",
            "The optional penalty and importance weight against the student's start are left out.",
            "ADPA+ is this, started from a model trained with dckd (model.path).",
        ),
    ),
    Preset(
        name="aligndistil",
        says="token by token towards a teacher that is led on from a contrary one, further where the two disagree",
        source="Zhang et al. 2025, arXiv:2503.02832, as in the authors' code",
        formula="mean over tokens of beta / a KL(s || q),  q = softmax((t + a (t - c)) / temperature), "
        "a = lead sum_i |e^t_i - e^c_i| + 0.001",
        options={"beta": 0.1, "lead": 10.0, "temperature": 1.0, "responses": "best"},
        parts=_aligndistil,
        departures=(
            "Distributions are merged to the teacher's likeliest tokens and one outcome for all others.",
            "The adaptive, off-policy form; the total variation is not halved, as in the code.",
        ),
    ),
    Preset(
        name="nextquill",
        says="likelihood in which tokens count more that the earlier turns made likelier, and of what they add",
        source="NextQuill 2025, arXiv:2506.02368, as in the authors' code",
        formula="sum_t w_t (-log p_t) / sum_t w_t + history_weight mean_t (-log softmax(z - z0)[t]),  "
        "w = owed_weight where p - p0 > threshold, else 1 - owed_weight; p0, z0 without history",
        options={"threshold": 0.05, "owed_weight": 0.9, "history_weight": 0.1},
        parts=lambda o: weighed(
            ("", 1.0, CounterfactualLikelihood(threshold=o.threshold, owed_weight=o.owed_weight)),
            ("_gained", o.history_weight, GainedLikelihood()),
        ),
        departures=(
            "The number of the paper is unverified.",
            "History is what stands before the last turn of a prompt; weights sum to 1 over the step.",
            "The weights by Jensen-Shannon divergence are left out.",
        ),
    ),
)
