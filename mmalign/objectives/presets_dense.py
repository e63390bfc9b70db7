"""Presets that read whole next-token distributions, of the reference or of a teacher.

R = S - S_ref, m = beta (R_w - R_l); D the sequential KL divergence of `sequential_kl.py`.
"""

from __future__ import annotations

from mmalign.objectives.preset import DOUBT, PAIR, Preset, alone, ratio
from mmalign.objectives.sequential_kl import SequentialKl

_TDPO = {**PAIR, **DOUBT, "ld_alpha": 1.0}
_TDPO_RECALLED = (
    "The formulas are from memory of the paper and of its authors' code; neither was at hand.",
    "Logged rewards are beta R, as those of dpo; the authors log beta (R + D).",
)


def _tdpo(o, *, weight: float, held: bool):
    return alone(ratio(o, shift=SequentialKl(weight * o.beta, held)))


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
)
