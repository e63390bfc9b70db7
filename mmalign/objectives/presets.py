"""Presets: for each paper, the parts it is made of.

D = R(better) - R(worse) with R = S - S_ref, m = beta D; S, A and O as in `score.py`, NLL as `terms.Likelihood` has it.
Departures from a source, or a choice between its versions:

- ipo: scores are averaged over tokens, as its authors confirmed to TRL; the paper's text sums them.
- hinge: beta multiplies the log-ratios, as in DPO and TRL; SLiC-HF has no reference and margin 1 on plain log-probs.
- cpo, orpo: the likelihood is of the better response alone. TRL's ORPOTrainer counts the prompt's tokens in too, which
  among image tokens means nothing.
- rewards as logged: beta times what the score measures before any transform: R for dpo and its kin, S for cpo, A for
  simpo and orpo. TRL logs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmalign.objectives.links import Link, hinge, logistic, square
from mmalign.objectives.options import choice, number
from mmalign.objectives.score import Score, log_odds, sequence_mean, sequence_sum
from mmalign.objectives.targets import smoothed, unbiased
from mmalign.objectives.terms import Likelihood, Pairwise
from mmalign.pairs.ranking import PAIRINGS

Part = Pairwise | Likelihood

_ERROR_RATE = "e, the share of labels believed to be flipped"
_LIKELIHOOD_WEIGHT = "weight of the likelihood of the best response"


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """Options of every objective that compares two responses."""

    beta: float = number(0.1, "inverse temperature: how many nats of log-ratio make one unit of reward", above=0)
    pairs: str = choice("all", "which pairs of a list of responses are compared", PAIRINGS)


@dataclass(frozen=True, kw_only=True)
class NoisyPairOptions(PairOptions):
    """Options of an objective that doubts its labels."""

    label_smoothing: float = number(0.1, _ERROR_RATE, at_least=0, below=0.5)


@dataclass(frozen=True, kw_only=True)
class SimpoOptions(PairOptions):
    """SimPO's; scores per token want a larger beta than sums do, and gamma / beta of about 0.5 is where to start."""

    beta: float = number(2.0, "scale of the log-prob per token", above=0)
    gamma: float = number(1.0, "by how much beta times the better score must lead", at_least=0)


@dataclass(frozen=True, kw_only=True)
class CpoOptions(PairOptions):
    """CPO's."""

    alpha: float = number(1.0, _LIKELIHOOD_WEIGHT, at_least=0)


@dataclass(frozen=True, kw_only=True)
class OrpoOptions(PairOptions):
    """ORPO's, whose beta (the paper's lambda) weighs the odds-ratio term against the likelihood."""

    beta: float = number(0.1, "weight of the odds-ratio term", above=0)


@dataclass(frozen=True, kw_only=True)
class SftOptions:
    """SFT's."""

    normalise: str = choice("token", "what the sum over the batch is divided by", ("token", "sequence"))


@dataclass(frozen=True)
class Preset:
    """One paper's objective.

    Args:
        name: the paper's short name, lower case.
        source: authors, year, arXiv number and equation.
        formula: the loss of one pair, for people.
        options: what a recipe may set.
        parts: options -> the parts of the loss, each with a suffix for its name ("" for the main one) and a weight.
        refuses: options of other objectives that make no sense here -> why, and the way out.
    """

    name: str
    source: str
    formula: str
    options: type
    parts: Callable[[Any], tuple[tuple[str, float, Part], ...]]
    refuses: Mapping[str, str] = field(default_factory=dict)


def _ratio(o: PairOptions, link: Link = logistic, target: float = 1.0) -> tuple:
    """beta times the log-ratio of sums: DPO and its kin."""
    score = Score(of=sequence_sum, scale=o.beta, reference=True)
    return (("", 1.0, Pairwise(score=score, link=link, target=target, pairs=o.pairs)),)


def _ipo(o: PairOptions) -> tuple:
    score = Score(of=sequence_mean, reference=True)
    reward = Score(of=sequence_sum, scale=o.beta, reference=True)
    return (("", 1.0, Pairwise(score=score, link=square(1 / (2 * o.beta)), pairs=o.pairs, reward=reward)),)


def _simpo(o: SimpoOptions) -> tuple:
    score = Score(of=sequence_mean, scale=o.beta, reference=False)
    return (("", 1.0, Pairwise(score=score, link=logistic, shift=o.gamma, pairs=o.pairs)),)


def _cpo(o: CpoOptions) -> tuple:
    score = Score(of=sequence_sum, scale=o.beta, reference=False)
    likelihood = (("_nll", o.alpha, Likelihood()),) if o.alpha else ()
    return (("", 1.0, Pairwise(score=score, link=logistic, pairs=o.pairs)), *likelihood)


def _orpo(o: OrpoOptions) -> tuple:
    score = Score(of=log_odds, reference=False)
    reward = Score(of=sequence_mean, scale=o.beta, reference=False)
    odds_ratio = Pairwise(score=score, link=logistic, pairs=o.pairs, reward=reward)
    return ("", o.beta, odds_ratio), ("_nll", 1.0, Likelihood())


def _sft(o: SftOptions) -> tuple:
    return (("", 1.0, Likelihood(per=o.normalise)),)


_NORMALISE = {"normalise": "it belongs to name: sft"}
_ALPHA = {"alpha": "to add the likelihood, list it as an objective of its own: {name: sft, weight: ...}"}
_GAMMA = {"gamma": "a target margin belongs to name: simpo"}
_NOISE = {"label_smoothing": "labels are taken as certain; for flipped labels take name: cdpo or name: robust"}
_PAIRS = dict.fromkeys(
    ("beta", "pairs", "gamma", "label_smoothing"), "sft compares nothing, it reads the best response"
)

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="dpo",
            source="Rafailov et al. 2023, arXiv:2305.18290, eq. 7",
            formula="-log sigmoid(m)",
            options=PairOptions,
            parts=_ratio,
            refuses=_NORMALISE | _ALPHA | _GAMMA | _NOISE,
        ),
        Preset(
            name="cdpo",
            source="Mitchell 2023, A note on DPO with noisy preferences",
            formula="-(1 - e) log sigmoid(m) - e log sigmoid(-m)",
            options=NoisyPairOptions,
            parts=lambda o: _ratio(o, target=smoothed(o.label_smoothing)),
            refuses=_NORMALISE | _ALPHA | _GAMMA,
        ),
        Preset(
            name="robust",
            source="Chowdhury et al. 2024, arXiv:2403.00409",
            formula="[-(1 - e) log sigmoid(m) + e log sigmoid(-m)] / (1 - 2 e)",
            options=NoisyPairOptions,
            parts=lambda o: _ratio(o, target=unbiased(o.label_smoothing)),
            refuses=_NORMALISE | _ALPHA | _GAMMA,
        ),
        Preset(
            name="ipo",
            source="Azar et al. 2023, arXiv:2310.12036, eq. 17",
            formula="(D per token - 1 / (2 beta))^2",
            options=PairOptions,
            parts=_ipo,
            refuses=_NORMALISE | _ALPHA | _GAMMA | _NOISE,
        ),
        Preset(
            name="hinge",
            source="Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425; Liu et al. 2023 (RSO), arXiv:2309.06657",
            formula="max(0, 1 - m)",
            options=PairOptions,
            parts=lambda o: _ratio(o, link=hinge),
            refuses=_NORMALISE | _ALPHA | _GAMMA | _NOISE,
        ),
        Preset(
            name="simpo",
            source="Meng et al. 2024, arXiv:2405.14734, eq. 6",
            formula="-log sigmoid(beta (A(better) - A(worse)) - gamma)",
            options=SimpoOptions,
            parts=_simpo,
            refuses=_NORMALISE | _ALPHA | _NOISE,
        ),
        Preset(
            name="cpo",
            source="Xu et al. 2024, arXiv:2401.08417, eq. 3",
            formula="-log sigmoid(beta (S(better) - S(worse))) + alpha NLL(best)",
            options=CpoOptions,
            parts=_cpo,
            refuses=_NORMALISE | _GAMMA | _NOISE,
        ),
        Preset(
            name="orpo",
            source="Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7",
            formula="NLL(best) - beta log sigmoid(O(better) - O(worse))",
            options=OrpoOptions,
            parts=_orpo,
            refuses=_NORMALISE | _ALPHA | _GAMMA | _NOISE,
        ),
        Preset(
            name="sft",
            source="maximum likelihood of the best response",
            formula="NLL(best)",
            options=SftOptions,
            parts=_sft,
            refuses=_PAIRS,
        ),
    )
}
