"""Presets on differences of log-ratios to a reference: DPO and what differs from it in one part.

R = S - S_ref, D = R(better) - R(worse), m = beta D; S and A as in `score.py`, F the shape of `divergences.py`.
"""

from __future__ import annotations

from dataclasses import replace

from mmalign.objectives.links import Margin, hinge, log_ratio_modulated, reverse_kl_to, square
from mmalign.objectives.preset import DOUBT, PAIR, SHAPE, SHAPED_RATIO, TOKENS, Preset, alone, ratio, with_likelihood
from mmalign.objectives.rules import OnPolicyWeight
from mmalign.objectives.targets import unbiased
from mmalign.objectives.tokens import edited, equal_numbers


def _ipo(o):
    # The score keeps beta out: it stands in the target 1 / (2 beta).
    part = ratio(o, Margin(square(1 / (2 * o.beta))), per_token=True)
    return alone(replace(part, score=replace(part.score, scale=1.0)))


RATIO_PRESETS = (
    Preset(
        name="dpo",
        says="the log-ratio of the better response must lead",
        source="Rafailov et al. 2023, arXiv:2305.18290, eq. 7",
        formula="-log sigmoid(m)",
        options=SHAPED_RATIO,
        parts=lambda o: alone(ratio(o)),
    ),
    Preset(
        name="cdpo",
        says="DPO that expects a share of flipped labels",
        source="Mitchell 2023, A note on DPO with noisy preferences",
        formula="-(1 - e) log sigmoid(m) - e log sigmoid(-m)",
        options={**SHAPED_RATIO, "label_smoothing": 0.1},
        parts=lambda o: alone(ratio(o)),
    ),
    Preset(
        name="robust",
        says="DPO whose expectation over flipped labels is the loss on clean ones",
        source="Chowdhury et al. 2024, arXiv:2403.00409",
        formula="[-(1 - e) log sigmoid(m) + e log sigmoid(-m)] / (1 - 2 e)",
        options={**SHAPED_RATIO, "label_smoothing": 0.1},
        parts=lambda o: alone(ratio(o, target=unbiased(o.label_smoothing))),
    ),
    Preset(
        name="ipo",
        says="a margin per token to hit, not to exceed",
        source="Azar et al. 2023, arXiv:2310.12036, eq. 17",
        formula="(D per token - 1 / (2 beta))^2",
        options=SHAPED_RATIO,
        parts=_ipo,
        departures=(
            "Log-ratios are averaged over tokens, as the authors confirmed to TRL; the paper's text sums them.",
            "beta stands in the target alone and does not multiply the margin, as in TRL.",
        ),
    ),
    Preset(
        name="hinge",
        says="DPO without a push once the margin is 1",
        source="Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425; Liu et al. 2023 (RSO), arXiv:2309.06657",
        formula="max(0, 1 - m)",
        options=SHAPED_RATIO,
        parts=lambda o: alone(ratio(o, Margin(hinge))),
        departures=(
            "beta multiplies the log-ratios, as in RSO and TRL; SLiC-HF has no reference and margin 1 on log-probs.",
        ),
    ),
    Preset(
        name="dpo_norm",
        says="DPO on log-ratios per token, so that length does not count",
        source="Rafailov et al. 2023, arXiv:2305.18290, eq. 7, per token as TRL's sigmoid_norm has it",
        formula="-log sigmoid(beta D per token)",
        options={**SHAPED_RATIO, "beta": 2.5},
        parts=lambda o: alone(ratio(o, per_token=True)),
        departures=("Scores per token want a larger beta than sums; 2.5 is InfiFPO's, arXiv:2505.13878.",),
    ),
    Preset(
        name="exo",
        says="reverse KL between the policy's preference and the label: seeks one mode where DPO covers both",
        source="Ji et al. 2024, arXiv:2402.00856, eq. 16 for two responses",
        formula="p log(p / (1 - e)) + (1 - p) log((1 - p) / e),  p = sigmoid(m)",
        options={**PAIR, "epsilon": 1e-3, **TOKENS, **SHAPE},
        parts=lambda o: alone(ratio(o, Margin(reverse_kl_to(o.epsilon)))),
        also={"label_smoothing": "epsilon"},
    ),
    Preset(
        name="discopop",
        says="a loss found by a language model: logistic below, exponential above",
        source="Lu et al. 2024, arXiv:2406.08414, eq. 5",
        formula="(1 - g) (-log sigmoid(m)) + g exp(-m),  g = sigmoid(m / tau)",
        options={**SHAPED_RATIO, "discopop_tau": 0.05},
        parts=lambda o: alone(ratio(o, Margin(log_ratio_modulated(o.discopop_tau)))),
    ),
    Preset(
        name="f_dpo",
        says="DPO with another divergence to the reference in place of reverse KL",
        source="Wang et al. 2024, arXiv:2309.16240",
        formula="-log sigmoid(beta (F(R_w) - F(R_l)))",
        options={**SHAPED_RATIO, "f_divergence_type": "js_divergence"},
        parts=lambda o: alone(ratio(o)),
        departures=("exp is cut at e^80 in the forward KL too, where TRL lets it overflow.",),
    ),
    Preset(
        name="ld_dpo",
        says="DPO that counts tokens beyond the shorter response's length less",
        source="Liu et al. 2024, arXiv:2409.06411",
        formula="-log sigmoid(m),  S = sum up to the shorter length + ld_alpha * sum beyond",
        options={**SHAPED_RATIO, "ld_alpha": 0.5},
        parts=lambda o: alone(ratio(o)),
    ),
    Preset(
        name="sampo",
        says="DPO on equally many tokens of both responses, drawn at random",
        source="Lu et al. 2024, arXiv:2406.10957",
        formula="-log sigmoid(m),  S over as many tokens as the shorter response has",
        options={**PAIR, **DOUBT, **SHAPE, "use_weighting": False},
        parts=lambda o: alone(ratio(o, tokens=equal_numbers)),
        departures=(
            "Policy and reference are measured on the same tokens; the authors' code draws for each by itself.",
            "The tokens are drawn once for a row, from its id: every rank, epoch and resumed run sees the same.",
        ),
    ),
    Preset(
        name="mask_dpo",
        says="DPO on the tokens that the spans of a row let count: true sentences of one side, false of the other",
        source="Gu et al. 2025, arXiv:2503.02846",
        formula="-log sigmoid(m),  S = sum_t u_t lp_t, u from the spans of the response",
        options={**SHAPED_RATIO},
        parts=lambda o: alone(ratio(o)),
        departures=(
            "Spans weigh tokens under every objective; this is dpo under the paper's name.",
            "Spans are found in the tokens by character offsets; the authors tokenise sentence by sentence.",
            "The number of the paper is unverified.",
        ),
    ),
    Preset(
        name="ddpo",
        says="DPO in which the tokens that differ between the two responses count more",
        source="Yu et al. 2024 (RLHF-V), arXiv:2312.00849",
        formula="-log sigmoid(m),  S = sum_t u_t lp_t, u = edit_weight where the responses differ, else 1",
        options={**PAIR, "edit_weight": 1.1, **DOUBT, **SHAPE, "use_weighting": False},
        parts=lambda o: alone(ratio(o, tokens=edited(o.edit_weight))),
        departures=(
            "Not divided by the sum of weights, and 1.1 as in the authors' run; the paper has 5 and a mean.",
            "Runs of fewer than three common tokens count as edited, as in the authors' code.",
        ),
    ),
    Preset(
        name="wpo",
        says="DPO that weighs a pair by how probable its responses are under the policy",
        source="Zhou et al. 2024, arXiv:2406.11827, eq. 2, sampled alignment",
        formula="-W(w) W(l) log sigmoid(m),  W = exp(mean_t [log p_t - log sum_v p_t(v)^2])",
        options={**PAIR, "beta": 0.01, **DOUBT, "ld_alpha": 1.0, **SHAPE},
        parts=lambda o: alone(ratio(o, weight=OnPolicyWeight(at_most=1.0))),
        departures=("The product of weights is at most 1, as in the authors' code; `use_weighting` of dpo is TRL's.",),
    ),
    Preset(
        name="rpo",
        says="DPO and the likelihood of the better response, so that it does not fall",
        source="Pang et al. 2024 (iterative RPO), arXiv:2404.19733",
        formula="-log sigmoid(m) + sft_weight NLL(best)",
        options={**SHAPED_RATIO, "sft_weight": 1.0, "normalise": "sequence"},
        parts=lambda o: with_likelihood(ratio(o), o.sft_weight, per=o.normalise),
        departures=("The likelihood is averaged over the answer's tokens; the paper divides by the prompt's too.",),
        also={"rpo_alpha": "sft_weight"},
    ),
    Preset(
        name="curry_dpo",
        says="DPO of the best response against every other of its list",
        source="Pattnaik et al. 2024, arXiv:2403.07230",
        formula="mean over j of -log sigmoid(beta (R_1 - R_j))",
        options={**SHAPED_RATIO, "pairs": "best_rest"},
        parts=lambda o: alone(ratio(o)),
        departures=("The pairs alone: the paper trains on them in stages, easiest first, with a new reference each.",),
    ),
)
