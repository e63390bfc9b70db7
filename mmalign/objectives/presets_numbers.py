"""Presets that read more of a row than its order: what other models and judges made of the responses.

R = S - S_ref, m = beta (R_w - R_l); d: by how much the better response scores higher in the row. A_i: log-prob per
token under source i, S_i its sum. Which numbers there are, and how rows come by them, stands in `numbers.py`.
"""

from __future__ import annotations

from functools import partial

from mmalign.errors import ConfigError
from mmalign.objectives.exploration import Exploration
from mmalign.objectives.judged import (
    AgreementGate,
    Consistency,
    JudgedProbability,
    LogOddsOfStrengths,
    ScoreGapTargets,
    SelectedByPeer,
    WinRateTargets,
)
from mmalign.objectives.links import BINARY, LOGISTIC, Both, Margin, Sides, scaled, square
from mmalign.objectives.preset import DOUBT, PAIR, RATIO, SHAPE, SHAPED_RATIO, TOKENS, Preset, alone, free, ratio
from mmalign.objectives.quantile import LowMargin
from mmalign.objectives.score import Score, sequence_mean, sequence_sum
from mmalign.objectives.sources import FusedSources, Surpass

_SOURCES = ["other"]
_FUSED = {**PAIR, "sources": _SOURCES, "fusion": "max_margin", "clip": True, "count_reference": True}
_HALF_SQUARES = Sides(scaled(square(0.0), 0.5), scaled(square(0.0), 0.5))


def _infifpo(o, *, per_token: bool):
    baseline = FusedSources(
        sources=tuple(o.sources),
        scale=o.beta,
        per_token=per_token,
        fusion=o.fusion,
        clip=o.clip,
        count_reference=o.count_reference,
    )
    return alone(free(o, sequence_mean if per_token else sequence_sum, baseline=baseline))


def _of_log_ratio(o, comparison, shift):
    """Compare R itself, and log beta R."""
    reward = Score(of=sequence_sum, scale=o.beta, reference=True)
    return alone(ratio(o, comparison, score=Score(of=sequence_sum, reference=True), reward=reward, shift=shift))


def _exploring(o, score: Score):
    explored = (("_exploration", o.exploration, Exploration(score=score)),) if o.exploration else ()
    return ("", 1.0, ratio(o)), *explored


def _scir(o):
    if o.confidence > 0.5 and not o.consistency_weight:
        raise ConfigError(
            f"scir: option 'confidence' above 0.5 (got {o.confidence}) shuts every pair out once the policy has moved "
            "a little, and with consistency_weight: 0 nothing moves it on; set consistency_weight above 0, or "
            "confidence: 0.5"
        )
    gated = ratio(o, weight=AgreementGate(o.judge, o.confidence))
    agreed = ratio(o, target=JudgedProbability(o.judge))
    return ("", 1.0, gated), *((("_consistency", o.consistency_weight, agreed),) if o.consistency_weight else ())


def _spa(o):
    target = LowMargin(doubt=o.doubt, quantile=o.quantile, window=o.window, warmup_steps=o.warmup_steps)
    return alone(ratio(o, target=target))


_FUSED_DEPARTURES = (
    "The furthest source is found by log-probs, clipped and against the policy of the step; the paper speaks of a "
    "difference of probabilities.",
    "The authors' script passes an offset (5 per token, 300 on sums) that neither paper nor code explains; it is left "
    "out, as are their variants for two chosen responses and with IPO's squared link.",
)
_ONE_ROUND = "One round on given rows; the paper samples anew and moves the reference between rounds."

NUMBER_PRESETS = (
    Preset(
        name="infifpo",
        says="DPO per token against several models at once, fused into one reference",
        source="Gu et al. 2025, arXiv:2505.13878, eq. 7 to 13",
        formula="-log sigmoid(beta (A_w - C_w - A_l + C_l)),  C = fusion over i of max(A_i, A_ref) for w, min for l",
        options={**_FUSED, "beta": 2.5},
        parts=partial(_infifpo, per_token=True),
        departures=_FUSED_DEPARTURES,
    ),
    Preset(
        name="infifpo_sum",
        says="infifpo on sums of log-probs, without length normalisation",
        source="Gu et al. 2025, arXiv:2505.13878, eq. 7 to 13",
        formula="-log sigmoid(beta (S_w - C_w - S_l + C_l)),  C = fusion over i of max(S_i, S_ref) for w, min for l",
        options=_FUSED,
        parts=partial(_infifpo, per_token=False),
        departures=(
            *_FUSED_DEPARTURES,
            "Sums of models with other tokenizers have other lengths; infifpo is the form to begin with.",
        ),
    ),
    Preset(
        name="poft",
        says="SFT that stops where the policy likes the response as well as aligned models do",
        source="PoFT (preference-oriented fine-tuning) 2024, arXiv:2412.12865",
        formula="-log sigmoid(beta (A - C) + offset) of the best response,  C = mean over i of A_i",
        options={"beta": 1.0, "sources": _SOURCES, "offset": 0.0},
        parts=lambda o: alone(Surpass(sources=tuple(o.sources), scale=o.beta, offset=o.offset)),
        departures=("As in the authors' code; the number of the paper is from memory.",),
    ),
    Preset(
        name="sppo",
        says="self-play as regression: every log-ratio to hit what its rate of wins says",
        source="Wu et al. 2024, arXiv:2405.00675, eq. 4.7",
        formula="1/2 (R_w - (P_w - 1/2) / beta)^2 + 1/2 (R_l - (P_l - 1/2) / beta)^2,  P: number win_rate",
        options={**PAIR, "beta": 1e-3, **TOKENS},
        parts=lambda o: _of_log_ratio(o, _HALF_SQUARES, WinRateTargets(o.beta)),
        departures=(_ONE_ROUND,),
    ),
    Preset(
        name="sppo_single",
        says="sppo whose rates of wins are those of the pair alone, from the gap of its scores",
        source="Wu et al. 2024, arXiv:2405.00675; sppo_single of the authors' code",
        formula="1/2 (R_w - (P - 1/2) / beta)^2 + 1/2 (R_l + (P - 1/2) / beta)^2,  P = sigmoid(d)",
        options={**PAIR, "beta": 1e-3, **TOKENS},
        parts=lambda o: _of_log_ratio(o, _HALF_SQUARES, ScoreGapTargets(o.beta)),
        departures=(_ONE_ROUND,),
    ),
    Preset(
        name="irepo",
        says="regression on pairs: the margin to hit the log-odds of the votes",
        source="Le et al. 2024, arXiv:2405.15230",
        formula="(m - log(P / (1 - P)))^2,  P = p_w / (p_w + p_l), p: number strength",
        options={**PAIR, "least_probability": 0.01, **TOKENS},
        parts=lambda o: alone(ratio(o, Margin(square(0.0)), shift=LogOddsOfStrengths(o.least_probability))),
        departures=(
            "Provisional: the loss is from memory and reviews, the paper was not at hand.",
            _ONE_ROUND,
            "The strengths come with the rows: votes where two responses were judged, those of Zermelo's method else.",
        ),
    ),
    Preset(
        name="selm",
        says="DPO that moves away from what the reference itself answers",
        source="Zhang et al. 2024, arXiv:2405.19332",
        formula="-log sigmoid(m) + exploration beta R(y),  y: the response with the number from_reference",
        options={**SHAPED_RATIO, "beta": 0.01, "pairs": "best_worst", "exploration": 0.001},
        parts=lambda o: _exploring(o, Score(of=sequence_sum, scale=o.beta, reference=True)),
        departures=(_ONE_ROUND,),
    ),
    Preset(
        name="xpo",
        says="selm on log-probs: the responses of the reference become less likely",
        source="Xie et al. 2024, arXiv:2405.21046",
        formula="-log sigmoid(m) + exploration S(y),  y: the response with the number from_reference",
        options={**SHAPED_RATIO, "pairs": "best_worst", "exploration": 1e-5},
        parts=lambda o: _exploring(o, Score(of=sequence_sum, reference=False)),
        departures=(
            "The offline term: the paper draws one response of the policy and one of the reference a step.",
            "The logistic link alone; TRL's trainer also has IPO's.",
            "The number of the paper is from memory; the term is that of TRL's XPOTrainer.",
        ),
    ),
    Preset(
        name="cream",
        says="DPO that believes a row as far as a second judge has its responses in the same order",
        source="Wang et al. 2024, arXiv:2410.12735",
        formula="-C log sigmoid(m) - (1 - C) log sigmoid(-m),  C = (tau + 1) / 2, tau: Kendall's of the two orders",
        options={**PAIR, "pairs": "best_worst", **TOKENS, **SHAPE, "judge": "judge"},
        parts=lambda o: alone(ratio(o, target=Consistency(o.judge))),
        departures=(
            "The second judge is a number of the rows; the paper takes the model of the round before.",
            "tau over the pairs that the row ranks; the authors' other measures (Spearman, TopOrder) are left out.",
            "Their average over the data set is cdpo with label_smoothing = 1 - C.",
        ),
    ),
    Preset(
        name="spa",
        says="DPO that doubts the pairs with the smallest margins",
        source="Kim et al. 2024 (Selfee, SPA), arXiv:2406.04412, as in the authors' code",
        formula="-q log sigmoid(m) - (1 - q) log sigmoid(-m),  q = 1 - doubt where m <= quantile of the last margins",
        options={**PAIR, "doubt": 0.1, "quantile": 0.1, "window": 50, "warmup_steps": 100, "ld_alpha": 1.0},
        parts=_spa,
        departures=(
            "The authors begin after a fifth of the run; warmup_steps says the number.",
            "The quantile is of the steps before and renewed every step; theirs with every line of their log.",
            "Margins are the policy's own: mixing its logits with the reference's is off in their code as well.",
            _ONE_ROUND,
        ),
    ),
    Preset(
        name="scir",
        says="DPO on the pairs that row, judge and policy see alike, and a pull of the policy towards the judge",
        source="Self-consistency of internal rewards 2025, arXiv:2502.08922",
        formula="-g log sigmoid(m) + consistency_weight (-P log sigmoid(m) - (1 - P) log sigmoid(-m)),  "
        "P = sigmoid(gap of judge), g = 1 where row, judge and m agree with confidence, else 0",
        options={**PAIR, "judge": "judge", "confidence": 0.5, "consistency_weight": 1.0, "ld_alpha": 1.0},
        parts=_scir,
        departures=(
            "Provisional: the paper's consistency loss was not at hand; this is the cross-entropy of the two opinions.",
            "The judge's opinion comes with the rows; the paper asks the policy itself, and trains that opinion too.",
            _ONE_ROUND,
        ),
    ),
    Preset(
        name="crm",
        says="DPO on the pairs of a step that a peer finds easiest",
        source="Collaborative reward modelling 2025, arXiv:2505.10597",
        formula="-log sigmoid(m) over the selected_share of pairs whose gap between the peer's scores is largest",
        options={**PAIR, **DOUBT, "ld_alpha": 1.0, "judge": "judge", "selected_share": 0.8},
        parts=lambda o: alone(ratio(o, weight=SelectedByPeer(o.judge, o.selected_share))),
        departures=(
            "Provisional: how the paper ties the share to the noise, and its form for DPO, were not at hand.",
            "The peer's scores come with the rows and stay; the paper trains two models that select for each other.",
        ),
    ),
    Preset(
        name="eurus",
        says="the reward model loss of Eurus on implicit rewards: the order, and the sign of both sides",
        source="Yuan et al. 2024, arXiv:2404.02078",
        formula="-log sigmoid(s_w - s_l) - log sigmoid(s_w) - log sigmoid(-s_l)",
        options=RATIO,
        parts=lambda o: alone(ratio(o, Both(LOGISTIC, BINARY))),
        departures=(
            "On beta R; the paper trains a reward head. Its rows of other sources have the first term alone: dpo.",
        ),
    ),
)
