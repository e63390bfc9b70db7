"""What a preset is, and the few shapes that most of them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from mmalign.objectives.divergences import shape_of
from mmalign.objectives.links import LOGISTIC, Comparison
from mmalign.objectives.pairwise import Pairwise
from mmalign.objectives.rules import OnPolicyWeight
from mmalign.objectives.score import Score, sequence_mean, sequence_sum
from mmalign.objectives.targets import smoothed
from mmalign.objectives.terms import Likelihood, Part
from mmalign.objectives.tokens import tail

Parts = tuple[tuple[str, float, Part], ...]
"""Parts of a loss, each with a suffix for its name ("" for the main one) and its weight."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One paper's objective.

    Args:
        name: the paper's short name, lower case.
        says: what it does, in one line.
        source: authors, year, arXiv number and equation.
        formula: the loss of one pair, for people; symbols as in `docs/papers.md`.
        options: what a recipe may set, with defaults; meanings and rules are in `options.OPTIONS`.
        parts: options -> the parts of the loss.
        departures: where it differs from the source, and choices between versions of it; one sentence each.
        also: names of options elsewhere -> ours.
    """

    name: str
    says: str
    source: str
    formula: str
    options: Mapping[str, Any]
    parts: Callable[[Any], Parts]
    departures: tuple[str, ...] = ()
    also: Mapping[str, str] = field(default_factory=dict)


PAIR = {"beta": 0.1, "pairs": "all"}
DOUBT = {"label_smoothing": 0.0}
TOKENS = {"ld_alpha": 1.0, "use_weighting": False}
SHAPE = {"f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5}

RATIO = {**PAIR, **DOUBT, **TOKENS}
"""Options of every objective on log-ratios of sums."""

SHAPED_RATIO = {**RATIO, **SHAPE}
"""Options of those that read differences of log-ratios only, so that other divergences can take KL's place."""


def alone(part: Part) -> Parts:
    """Return a loss of one part."""
    return (("", 1.0, part),)


def weighed(*parts: tuple[str, float, Part]) -> Parts:
    """Return the parts of a loss whose weight is not 0."""
    return tuple(part for part in parts if part[1])


def with_likelihood(part: Part, weight: float, *, per: str = "token", where: str | None = None) -> Parts:
    """Return a loss of a comparison and the likelihood of the best response; without the latter for weight 0."""
    return weighed(("", 1.0, part), ("_nll", weight, Likelihood(per=per, where=where)))


def ratio(o: Any, comparison: Comparison = LOGISTIC, *, per_token: bool = False, **changes: Any) -> Pairwise:
    """Return a comparison of log-ratios R = S - S_ref: DPO and its kin.

    Args:
        o: values of `RATIO` or `SHAPED_RATIO`, or some of them.
        comparison: of beta F(R), F the shape of the divergence.
        per_token: divide the shaped log-ratio by the response's number of tokens.
        changes: of the fields of `Pairwise`.
    """
    values = vars(o)
    shape = shape_of(values.get("f_divergence_type", "reverse_kl"), values.get("f_alpha_divergence_coef", 1.0))
    fields = {
        "score": Score(of=sequence_sum, scale=o.beta, reference=True, shape=shape, per_token=per_token),
        "comparison": comparison,
        "target": smoothed(values.get("label_smoothing", 0.0)),
        "pairs": o.pairs,
        "tokens": tail(values.get("ld_alpha", 1.0)),
        "weight": OnPolicyWeight(at_most=inf) if values.get("use_weighting", False) else None,
        "reward": Score(of=sequence_sum, scale=o.beta, reference=True),
    }
    return Pairwise(**{**fields, **changes})


def free(o: Any, of: Callable = sequence_mean, comparison: Comparison = LOGISTIC, **changes: Any) -> Pairwise:
    """Return a comparison of scores that need no reference: SimPO, CPO and their kin.

    Args:
        o: values of at least `PAIR`.
        of: what a response scores, times beta.
        comparison: of the scores.
        changes: of the fields of `Pairwise`.
    """
    score = Score(of=of, scale=o.beta, reference=False)
    fields = {"score": score, "comparison": comparison, "target": smoothed(vars(o).get("label_smoothing", 0.0))}
    return Pairwise(**{**fields, "pairs": o.pairs, **changes})
