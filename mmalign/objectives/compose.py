"""From the `objective:` list of a recipe to one loss: a weighted sum of presets, and what is logged about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.config.needs import REFERENCE
from mmalign.engine.logps import GroupLogps
from mmalign.engine.views import View
from mmalign.errors import ConfigError, RowError, show
from mmalign.formats.preference import Preference
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.dense import TEACHER_LOGPS
from mmalign.objectives.metrics import Ratio, divergence_metrics, likelihood_metrics, preference_metrics
from mmalign.objectives.numbers import require_numbers
from mmalign.objectives.options import described, read_options
from mmalign.objectives.preset import Preset
from mmalign.objectives.presets import ALIASES, PRESETS, preset_named, readers_of
from mmalign.objectives.terms import Memory, Part, StepFacts, Term


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective says about a batch of B groups.

    Args:
        terms: addends of the loss, unreduced.
        rewards: [P, 2], of the better and the worse response of each pair that the first comparing part compares,
            detached; None when the objective compares nothing.
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

    def __post_init__(self) -> None:
        names = [named.name for named in self.parts]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"parts of an objective need names of their own; more than one is {sorted(twice)[0]!r}")

    @property
    def needs_reference(self) -> bool:
        """Whether any part wants the log-probs of a reference model."""
        return any(named.part.needs_reference for named in self.parts)

    def responses_read(self, levels: Sequence[int]) -> tuple[int, ...]:
        """Return the positions of a row's responses that any part reads; none means that the row teaches nothing.

        The others need no forward: dropping them changes no value.
        """
        return tuple(sorted(set().union(*(named.part.responses_read(levels) for named in self.parts))))

    @property
    def views(self) -> tuple[View, ...]:
        """The views in which rows are read beside their own; parts that read the same share it."""
        return tuple(dict.fromkeys(view for named in self.parts for view in named.part.views))

    def read_in(self, view: View, levels: Sequence[int]) -> tuple[int, ...]:
        """Return the positions of a row's responses that any part reads in a view.

        A row of which nothing is read there still has its first response: all rows of a batch stand in all views.
        """
        readers = [named.part for named in self.parts if view in named.part.views]
        positions = set().union(*(part.read_in(view, levels) for part in readers))
        return tuple(sorted(positions)) or self.responses_read(levels)[:1]

    @property
    def whole_step(self) -> bool:
        """Whether any part wants a survey of the whole step before its loss."""
        return any(named.part.whole_step for named in self.parts)

    @property
    def needs_mismatch(self) -> bool:
        """Whether any part reads, behind each row's responses, one answer to another prompt."""
        return any(named.part.needs_mismatch for named in self.parts)

    @property
    def needs_purity(self) -> bool:
        """Whether any part reads how sharp the policy's predictions are (`GroupLogps.log_purity`)."""
        return any(named.part.needs_purity for named in self.parts)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers that any part reads of responses (`numbers.py`)."""
        return tuple(dict.fromkeys(name for named in self.parts for name in named.part.numbers))

    @property
    def dense(self) -> tuple[str, ...]:
        """Names of the numbers per token that any part reads beside log-probs (`dense.py`)."""
        return tuple(dict.fromkeys(name for named in self.parts for name in named.part.dense))

    @property
    def needs(self) -> frozenset[str]:
        """What it reads beside the policy, by the names of `mmalign.config.needs`."""
        return frozenset((*self.dense, *((REFERENCE,) if self.needs_reference else ())))

    def require_row(self, preference: Preference) -> None:
        """Check that a row has the scores and numbers, and an only answer the judgement, that some part reads.

        Raises:
            RowError: it has not.
        """
        for named in self.parts:
            if named.part.needs_labels and len(preference.responses) == 1 and preference.label is None:
                raise RowError(
                    "answer stands alone and is not judged, and the objective reads judgements",
                    field="label",
                    hint=f"{named.name} has to know whether it is good; add label: true or false, or take sft",
                )
            if wanting := named.part.unscored(preference):
                raise RowError(
                    "response has no score, and the objective reads scores",
                    field=f"responses[{min(wanting)}].score",
                    hint=f"{named.name} reads the score of every response that it reads; score the rows, or take dpo",
                )
            require_numbers(preference, named.part.numbers, named.part.responses_read(preference.levels()))

    def counts(self, facts: GroupFacts, lengths: Tensor) -> dict[str, Tensor]:
        """Return for each term its counts [B], known before any forward.

        Args:
            facts: of the B groups.
            lengths: int [B, K], tokens of each response, 0 where there is none.
        """
        return {named.name: named.part.counts(facts, lengths) for named in self.parts}

    def survey(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> dict[str, Tensor]:
        """Return what each part that shares something with its step wants known of one micro-batch, [n, C] each."""
        surveys = {named.name: named.part.survey(policy, reference, facts) for named in self.parts}
        return {name: survey for name, survey in surveys.items() if survey is not None}

    def first_memory(self) -> dict[str, Memory]:
        """Return for each part what it remembers before the first step; parts that remember nothing are left out."""
        memories = {named.name: named.part.first_memory() for named in self.parts}
        return {name: memory for name, memory in memories.items() if memory}

    def remember(self, memory: Mapping[str, Memory], surveys: Mapping[str, Tensor]) -> dict[str, Memory]:
        """Return what is remembered after a step, from the surveys of all its micro-batches on all ranks."""
        parts = {named.name: named.part for named in self.parts}
        return {name: parts[name].remember(held, surveys[name]) for name, held in memory.items()}

    def __call__(
        self,
        policy: GroupLogps,
        reference: GroupLogps | None,
        facts: GroupFacts,
        step: Mapping[str, StepFacts] | None = None,
    ) -> ObjectiveOutput:
        """Return terms, rewards and metrics of a batch.

        Args:
            step: part name -> what it is told about the step; by default the batch is the whole step, and the first.

        Raises:
            ValueError: `needs_reference` and there is none.
        """
        if self.needs_reference and reference is None:
            raise ValueError(f"the objective ({self.description}) needs log-probs of a reference, and got None")
        step = self._lonely_step(policy, reference, facts) if step is None else step
        counts = self.counts(facts, policy.lengths())
        terms = tuple(
            Term(
                named.name,
                named.part.values(policy, reference, facts, step.get(named.name, StepFacts())),
                counts[named.name],
                named.weight,
            )
            for named in self.parts
        )
        metrics = {f"loss/{term.name}": Ratio(term.values.detach().sum(), term.counts.sum()) for term in terms}
        with torch.no_grad():
            metrics |= divergence_metrics(policy, reference, facts.response_mask) if self.needs_reference else {}
            metrics |= self._histograms(policy, reference, facts, step)
            comparing = next((named.part for named in self.parts if named.part.pairs is not None), None)
            if comparing is None:
                shown = self._shown(policy, reference, facts, step)
                return ObjectiveOutput(terms, None, metrics | (shown or likelihood_metrics(policy)))
            rewards = comparing.rewards(policy, reference, facts)
            return ObjectiveOutput(
                terms, rewards, metrics | preference_metrics(comparing.compared(facts), rewards, policy)
            )

    def _shown(
        self,
        policy: GroupLogps,
        reference: GroupLogps | None,
        facts: GroupFacts,
        step: Mapping[str, StepFacts],
    ) -> dict[str, Ratio]:
        """Return the metrics of the first part that has some."""
        told = ((named.part, step.get(named.name, StepFacts())) for named in self.parts)
        found = (part.metrics(policy, reference, facts, known) for part, known in told)
        return next((metrics for metrics in found if metrics), {})

    def _histograms(
        self,
        policy: GroupLogps,
        reference: GroupLogps | None,
        facts: GroupFacts,
        step: Mapping[str, StepFacts],
    ) -> dict[str, Ratio]:
        """Return of each histogram that of the first part that has it."""
        found: dict[str, Ratio] = {}
        for named in reversed(self.parts):
            found |= named.part.histograms(policy, reference, facts, step.get(named.name, StepFacts()))
        return found

    def _lonely_step(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> dict[str, StepFacts]:
        surveys, memory = self.survey(policy, reference, facts), self.first_memory()
        return {name: StepFacts(survey=surveys.get(name), memory=memory.get(name, {})) for name in surveys | memory}


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
    owners: dict[str, str] = {}
    for position, spec in enumerate(specs):
        given = dict(spec if isinstance(spec, Mapping) else spec.model_dump(exclude_unset=True))
        place = f"objective[{position}] " if len(specs) > 1 else ""
        if "name" not in given:
            raise ConfigError(f"{place}name is missing (got {show(given)}); it is one of {', '.join(PRESETS)}")
        name = given.pop("name")
        preset, where = preset_named(name), f"{place}{name}"
        weight = _weight(given, where)
        renamed, called = _renamed(given, name, preset, where)
        options = read_options(preset.options, renamed, where, readers=readers_of, called=called)
        made = _labelled(preset, options, set(owners))
        if not made:
            raise ConfigError(f"{where}: all its weights are 0, so it teaches nothing; set one above 0, or remove it")
        parts += [NamedPart(name, weight * share, part) for name, share, part in made]
        owners |= {name: preset.name for name, _, _ in made}
        descriptions.append(("" if weight == 1 else f"{weight:g} * ") + f"{preset.name}({described(options)})")
    objective = Objective(tuple(parts), " + ".join(descriptions))
    if objective.views and TEACHER_LOGPS in objective.dense:
        raise ConfigError(_views_beside_table(objective, owners))
    return objective


def _views_beside_table(objective: Objective, owners: Mapping[str, str]) -> str:
    """Return that rows read in views cannot be set beside a teacher's table, by name of who reads what."""

    def readers(reads: Callable[[Part], bool]) -> str:
        return " + ".join(dict.fromkeys(owners[named.name] for named in objective.parts if reads(named.part)))

    changed = "without their earlier turns" if any(view.forgets for view in objective.views) else "under changed media"
    taught = readers(lambda part: TEACHER_LOGPS in part.dense)
    return (
        f"{readers(lambda part: bool(part.views))} reads rows {changed}, and {taught} a teacher's table, which holds "
        "them as they are; train on the two one after the other (stages)"
    )


def _renamed(given: Mapping[str, Any], name: str, preset: Preset, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options under our names, and how each was written."""
    refuses = ALIASES[name].refuses if name in ALIASES else {}
    renamed: dict[str, Any] = {}
    called: dict[str, str] = {}
    for option, value in given.items():
        if option in refuses:
            raise ConfigError(f"{where}: option {option!r} makes no sense here: {refuses[option]}")
        ours = preset.also.get(option, option)
        if ours in renamed:
            raise ConfigError(f"{where}: option {option!r} is another name of {ours!r}, and both are given; keep one")
        renamed[ours], called[ours] = value, option
    return renamed, called


def _weight(given: dict[str, Any], where: str) -> float:
    weight = given.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight) or weight <= 0:
        raise ConfigError(
            f"{where}: option 'weight' must be a number above 0 (got {show(weight)}); to switch it off, remove it"
        )
    return float(weight)


def _labelled(preset: Preset, options: Any, taken: set[str]) -> list[tuple[str, float, Part]]:
    """Return the parts of a preset under names that no part has yet: `dckd_nll`, then `dckd_2_nll`."""
    made = preset.parts(options)
    labels = [preset.name] + [f"{preset.name}_{number}" for number in range(2, len(taken) + 3)]
    label = next(one for one in labels if not {one + suffix for suffix, _, _ in made} & taken)
    return [(label + suffix, share, part) for suffix, share, part in made]
