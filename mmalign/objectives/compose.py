"""From the `objective:` list of a recipe to one loss: a weighted sum of presets, and what is logged about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.errors import ConfigError, show
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.metrics import Ratio, likelihood_metrics, preference_metrics
from mmalign.objectives.options import read_options
from mmalign.objectives.presets import PRESETS, Part, Preset
from mmalign.objectives.terms import Pairwise, Term


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective says about a batch of B groups.

    Args:
        terms: addends of the loss, unreduced.
        rewards: [B, K], detached, or None when the objective compares nothing.
        metrics: name -> total and count; the same names on every batch and rank, so that they can be added up.
    """

    terms: tuple[Term, ...]
    rewards: Tensor | None
    metrics: dict[str, Ratio]

    def loss(self, totals: Mapping[str, Tensor | float]) -> Tensor:
        """Return sum over terms of weight * sum(values) / total; a term whose total is 0 adds 0 (with a graph).

        Args:
            totals: term name -> its counts summed over everything one optimiser step sees: all micro-batches, all
                ranks. Losses of the micro-batches then add up to the loss of the step.
        """
        loss = self.terms[0].values.new_zeros(())
        for term in self.terms:
            total = float(totals[term.name])
            loss = loss + (term.weight / total if total > 0 else 0.0) * term.values.sum()
        return loss


@dataclass(frozen=True)
class NamedPart:
    """One part of the loss under its name and weight."""

    name: str
    weight: float
    part: Part


@dataclass(frozen=True)
class Objective:
    """A weighted sum of presets; build it with `build`.

    Args:
        parts: the addends, presets resolved into their parts.
        description: one line for people: each preset with its options.
    """

    parts: tuple[NamedPart, ...]
    description: str

    @property
    def needs_reference(self) -> bool:
        """Whether any part wants the log-probs of a reference model."""
        return any(named.part.needs_reference for named in self.parts)

    def responses_read(self, levels: Sequence[int]) -> tuple[int, ...]:
        """Return the positions of a row's responses that any part reads; none means that the row teaches nothing.

        The others need no forward: dropping them changes no value.
        """
        return tuple(sorted(set().union(*(named.part.responses_read(levels) for named in self.parts))))

    def counts(self, facts: GroupFacts, lengths: Tensor) -> dict[str, Tensor]:
        """Return for each term its counts [B], known before any forward.

        Args:
            facts: of the B groups.
            lengths: int [B, K], tokens of each response, 0 where there is none.
        """
        return {named.name: named.part.counts(facts, lengths) for named in self.parts}

    def __call__(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> ObjectiveOutput:
        """Return terms, rewards and metrics of a batch.

        Raises:
            ValueError: `needs_reference` and there is none.
        """
        if self.needs_reference and reference is None:
            raise ValueError(f"the objective ({self.description}) needs log-probs of a reference, and got None")
        counts = self.counts(facts, policy.lengths())
        terms = tuple(
            Term(named.name, named.part.values(policy, reference, facts), counts[named.name], named.weight)
            for named in self.parts
        )
        metrics = {f"loss/{term.name}": Ratio(term.values.detach().sum(), term.counts.sum()) for term in terms}
        with torch.no_grad():
            comparing = next((named.part for named in self.parts if isinstance(named.part, Pairwise)), None)
            if comparing is None:
                return ObjectiveOutput(terms, None, metrics | likelihood_metrics(policy))
            rewards = comparing.rewards(policy, reference)
            return ObjectiveOutput(
                terms, rewards, metrics | preference_metrics(comparing.pairs, rewards, policy, facts)
            )


def build(specs: Sequence[Mapping[str, Any] | Any]) -> Objective:
    """Build the objective that a recipe's `objective:` list names.

    Args:
        specs: each with `name`, optionally `weight` (default 1), and the options of that preset; mappings, or pydantic
            models of such.

    Raises:
        ConfigError: empty list, unknown name or option, an option that makes no sense for its preset, a bad value.

    >>> build([{"name": "dpo", "beta": 0.1}, {"name": "sft", "weight": 0.1}]).description
    'dpo(beta=0.1, pairs=all) + 0.1 * sft(normalise=token)'
    """
    if not specs:
        raise ConfigError(
            f"objective is empty; name at least one of {', '.join(PRESETS)}, e.g. - {{name: dpo, beta: 0.1}}"
        )
    parts: list[NamedPart] = []
    descriptions: list[str] = []
    for position, spec in enumerate(specs):
        given = dict(spec if isinstance(spec, Mapping) else spec.model_dump(exclude_unset=True))
        place = f"objective[{position}] " if len(specs) > 1 else ""
        preset = _preset(given, place)
        where = place + preset.name
        weight = _weight(given, where)
        options = read_options(preset.options, given, where, preset.refuses)
        label = _unused(preset.name, {named.name for named in parts})
        parts += [NamedPart(label + suffix, weight * share, part) for suffix, share, part in preset.parts(options)]
        descriptions.append(_describe(preset, options, weight))
    return Objective(tuple(parts), " + ".join(descriptions))


def _preset(given: dict[str, Any], place: str) -> Preset:
    if "name" not in given:
        raise ConfigError(f"{place}name is missing (got {show(given)}); it is one of {', '.join(PRESETS)}")
    name = given.pop("name")
    if name not in PRESETS:
        near = get_close_matches(str(name).lower(), PRESETS, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"{place}unknown objective {show(name)}{meant} There are: {', '.join(PRESETS)}")
    return PRESETS[name]


def _weight(given: dict[str, Any], where: str) -> float:
    weight = given.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight) or weight <= 0:
        raise ConfigError(
            f"{where}: option 'weight' must be a number above 0 (got {show(weight)}); to switch it off, remove it"
        )
    return float(weight)


def _unused(name: str, taken: set[str]) -> str:
    candidates = [name] + [f"{name}_{number}" for number in range(2, len(taken) + 3)]
    return next(candidate for candidate in candidates if candidate not in taken)


def _describe(preset: Preset, options: Any, weight: float) -> str:
    values = ", ".join(
        f"{option.name}={value:g}"
        if isinstance(value := getattr(options, option.name), float)
        else f"{option.name}={value}"
        for option in fields(options)
    )
    return ("" if weight == 1 else f"{weight:g} * ") + f"{preset.name}({values})"
