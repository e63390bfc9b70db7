"""Presets that need no reference model: scores are the policy's own log-probs.

S: sum, A: mean of the log-probs of a response's tokens; w the better response, l the worse.
"""

from __future__ import annotations

from mmalign.objectives.links import Margin, logistic
from mmalign.objectives.preset import DOUBT, PAIR, Preset, alone, free, with_likelihood
from mmalign.objectives.score import Score, inverse_power, log_odds, sequence_mean, sequence_sum
from mmalign.objectives.terms import Likelihood

_PER_TOKEN = {**PAIR, "beta": 2.0, "gamma": 1.0, **DOUBT}
_ANSWER_ALONE = "The likelihood is of the better response alone"


def _lead(o) -> Margin:
    return Margin(logistic, o.gamma)


def _orpo(o):
    odds, reward = (Score(of=log_odds, reference=False), Score(of=sequence_mean, scale=o.beta, reference=False))
    odds_ratio = free(o, score=odds, reward=reward)
    return ("", o.beta, odds_ratio), ("_nll", 1.0, Likelihood())


FREE_PRESETS = (
    Preset(
        name="simpo",
        says="the log-prob per token of the better response must lead by a margin",
        source="Meng et al. 2024, arXiv:2405.14734, eq. 6",
        formula="-log sigmoid(beta (A_w - A_l) - gamma)",
        options=_PER_TOKEN,
        parts=lambda o: alone(free(o, sequence_mean, _lead(o))),
        departures=("gamma is not divided by beta, as in the paper and TRL; gamma / beta of about 0.5 is a start.",),
        also={"simpo_gamma": "gamma"},
    ),
    Preset(
        name="alphapo",
        says="SimPO whose reward is a power of the token probability in place of its logarithm",
        source="Gupta et al. 2025, arXiv:2501.03884",
        formula="-log sigmoid(beta (r_w - r_l) - gamma),  r = (1 - exp(-alpha A)) / alpha",
        options={**_PER_TOKEN, "alpha": 0.25},
        parts=lambda o: alone(free(o, inverse_power(o.alpha), _lead(o))),
        departures=("exp is cut at e^80.", "The default of alpha is a start for tuning, not taken from the paper."),
        also={"simpo_gamma": "gamma"},
    ),
    Preset(
        name="cpo",
        says="DPO against a uniform reference, and the likelihood of the better response",
        source="Xu et al. 2024, arXiv:2401.08417, eq. 3",
        formula="-log sigmoid(beta (S_w - S_l)) + sft_weight NLL(best)",
        options={**PAIR, **DOUBT, "sft_weight": 1.0},
        parts=lambda o: with_likelihood(free(o, sequence_sum), o.sft_weight),
        departures=(_ANSWER_ALONE + ", averaged over tokens of the step.",),
        also={"cpo_alpha": "sft_weight"},
    ),
    Preset(
        name="cpo_simpo",
        says="SimPO and the likelihood of the better response",
        source="Xu et al. 2024, arXiv:2401.08417, and Meng et al. 2024, arXiv:2405.14734; github.com/fe1ixxu/CPO_SIMPO",
        formula="-log sigmoid(beta (A_w - A_l) - gamma) + sft_weight NLL(best)",
        options={**_PER_TOKEN, "sft_weight": 0.05},
        parts=lambda o: with_likelihood(free(o, sequence_mean, _lead(o)), o.sft_weight),
        departures=("The default of sft_weight is quoted from memory.",),
        also={"simpo_gamma": "gamma", "cpo_alpha": "sft_weight"},
    ),
    Preset(
        name="orpo",
        says="likelihood, and the odds of the better response must lead",
        source="Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7",
        formula="NLL(best) - beta log sigmoid(O_w - O_l),  O = log odds of exp(A)",
        options=PAIR,
        parts=_orpo,
        departures=(
            _ANSWER_ALONE + "; TRL's ORPOTrainer counts the prompt's tokens in, which among image tokens says nothing.",
            "beta is the paper's lambda, the weight of the odds-ratio term.",
        ),
    ),
    Preset(
        name="tpo",
        says="triples: imitate the best response, and compare two below it",
        source="Saeidi et al. 2024, arXiv:2405.16681",
        formula="-log sigmoid(beta (S_w - S_l)) + sft_weight NLL(best),  w and l below the best",
        options={**PAIR, "beta": 0.01, "pairs": "below_best", **DOUBT, "sft_weight": 1.0},
        parts=lambda o: with_likelihood(free(o, sequence_sum), o.sft_weight, where=o.pairs),
        departures=("Defaults are TRL's; the authors' script has beta 0.1 and weight 0.5.",),
        also={"tpo_alpha": "sft_weight"},
    ),
    Preset(
        name="tpo_l",
        says="tpo per token, with a margin",
        source="Saeidi et al. 2024, arXiv:2405.16681, later version; TRL's tpo-l",
        formula="-log sigmoid(beta (A_w - A_l) - gamma) + sft_weight NLL(best),  w and l below the best",
        options={**_PER_TOKEN, "gamma": 0.5, "pairs": "below_best", "sft_weight": 1.0},
        parts=lambda o: with_likelihood(free(o, sequence_mean, _lead(o)), o.sft_weight, where=o.pairs),
        departures=("beta is 2.0, SimPO's, by default; TRL leaves 0.01, which suits sums.",),
        also={"tpo_alpha": "sft_weight", "tpo_l_gamma": "gamma"},
    ),
    Preset(
        name="sft",
        says="imitate the best response",
        source="maximum likelihood",
        formula="NLL(best)",
        options={"normalise": "token"},
        parts=lambda o: alone(Likelihood(per=o.normalise)),
    ),
)
