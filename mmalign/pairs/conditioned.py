"""Relabellings that tell the model what a good answer is, and order the responses by it.

Which response is better then depends on the prompt: a reward that was averaged away becomes something to ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmalign.errors import RowError
from mmalign.formats.message import Message, TextPart
from mmalign.formats.preference import Preference, Response
from mmalign.pairs.draws import draws_of
from mmalign.pairs.options import PLACES, option, require, require_choice, require_count, require_seed
from mmalign.pairs.origin import marked

_GOAL = (
    "You are an assistant whose answers reach a given overall score, on a scale from 1 (worst) to 10 (best), without "
    "speaking of it. Overall score to reach: {score}."
)
_LEAST_SCORE, _MOST_SCORE = 1, 10
"""The scale that these words speak of."""

_WEIGHTS = "You are an assistant who weighs what makes an answer good by these numbers: {weights}."


@dataclass(frozen=True, kw_only=True)
class RewardAugmented:
    """Two rows of one: asked for the better score the better response wins, asked for the worse score the worse one.

    Zhang et al. 2024, Reward-Augmented Data, 2410.08067. Of a list, the best response is set against one drawn from
    those of a lower score. A response's new score is minus its distance from the goal, so that gaps keep their unit;
    the score before stays in `scores["score"]`. The released script's variant without a system message changes the
    first message only, so that its rows with the lower goal still prefer the better response; here both variants turn
    the responses round. The words of the goal are ours.
    """

    goal: str = option(_GOAL, "what the prompt says; {score} stands for the goal")
    place: str = option("system", "where it says so: system, or user for models without a system turn")
    seed: int = option(0, "of the response drawn from a list of more than two")

    def __post_init__(self) -> None:
        require_choice("place", self.place, PLACES)
        require_seed(self.seed)
        require("{score}" in self.goal, "goal", self.goal, "must hold {score}, where the goal goes")

    def __call__(self, preference: Preference) -> Iterator[Preference]:
        """Yield the row under the better score and the row under the worse one."""
        better, worse = self._pair(preference)
        for name, aim, other in (("better", better, worse), ("worse", worse, better)):
            gap = abs(better.score - worse.score)
            said = f"{aim.score:g}"
            row = replace(
                preference,
                id=f"{preference.id}#goal={name}",
                prompt=_told(preference.prompt, self.goal.replace("{score}", said), self.place),
                responses=(_rescored(aim, 0.0), _rescored(other, -gap)),
                ties=(),
                margin=gap,
                tags={**preference.tags, "goal": said},
            )
            yield marked(row, "reward_augmented")

    def _pair(self, preference: Preference) -> tuple[Response, Response]:
        scores = [response.score for response in preference.responses]
        if None in scores:
            hint = "give every response a score"
            raise RowError("response has no score to be asked for", field="responses", value=scores, hint=hint)
        if self.goal == _GOAL and not all(_LEAST_SCORE <= score <= _MOST_SCORE for score in scores):
            hint = "say the scale of your scores with goal, in words that hold {score}"
            raise RowError(
                "score lies outside the scale that the goal speaks of, 1 to 10",
                field="responses",
                value=scores,
                hint=hint,
            )
        lower = [response for response in preference.responses if response.score < preference.chosen.score]
        if not lower:
            reason = "responses have the same score, so that both goals would be one"
            raise RowError(reason, field="responses", value=scores, hint="leave out rows without a better response")
        drawn = 0 if len(lower) == 1 else draws_of(self.seed, preference.id).randint(len(lower))
        return preference.chosen, lower[drawn]


@dataclass(frozen=True, kw_only=True)
class Directional:
    """The row under a drawn direction v in the space of named scores; the responses are ordered by v . r.

    Wang et al. 2024, Directional Preference Alignment (DPA), 2402.18571: the prompt says v in whole hundredths. The
    paper imitates the best of N responses under v; this is the form for pairs, which the sign of v . (r_1 - r_2)
    orders. What the prompt says is what orders: v is rounded first. v lies within `angle` of the first score's axis:
    the angle is drawn evenly, then the way in which v leans (with two scores, one of two). A response's new score is
    v . r; the score before stays in `scores["score"]`. The words are ours.
    """

    scores: Sequence[str] = option((), "names of the scores to weigh, two or more; the first is the axis")
    angle: float = option(45.0, "largest angle between the direction and that axis, in degrees")
    draws: int = option(1, "directions, and so rows, for each row")
    text: str = option(_WEIGHTS, "what the prompt says; {weights} stands for the numbers")
    place: str = option("system", "where it says so: system, or user for models without a system turn")
    seed: int = option(0, "of the directions")

    def __post_init__(self) -> None:
        names = self.scores
        whole = isinstance(names, Sequence) and not isinstance(names, str) and len(set(names)) == len(names) >= 2
        rule = "must list two or more different names, such as [helpfulness, verbosity]"
        require(whole and all(isinstance(name, str) and name for name in names), "scores", names, rule)
        object.__setattr__(self, "scores", tuple(names))
        number = isinstance(self.angle, int | float) and not isinstance(self.angle, bool)
        require(number and 0 < self.angle <= 180, "angle", self.angle, "must be above 0 and at most 180")
        require_count("draws", self.draws)
        require_choice("place", self.place, PLACES)
        require_seed(self.seed)
        require("{weights}" in self.text, "text", self.text, "must hold {weights}, where the numbers go")

    def __call__(self, preference: Preference) -> Iterator[Preference]:
        """Yield the row under each drawn direction."""
        rewards = [self._rewards(preference, k) for k in range(len(preference.responses))]
        generator = draws_of(self.seed, preference.id)
        for draw in range(self.draws):
            hundredths = self.direction(generator)
            worth = [sum(h * r for h, r in zip(hundredths, reward, strict=True)) / 100 for reward in rewards]
            yield self._ordered(preference, draw, hundredths, worth)

    def direction(self, generator: np.random.RandomState) -> tuple[int, ...]:
        """Draw a direction: one whole number of hundredths for each score."""
        angle = np.deg2rad(self.angle * generator.random_sample())
        lean = generator.standard_normal(len(self.scores) - 1)
        unit = np.concatenate([[np.cos(angle)], np.sin(angle) * lean / np.linalg.norm(lean)])
        return tuple(int(number) for number in np.rint(100 * unit))

    def _rewards(self, preference: Preference, k: int) -> list[float]:
        scores = preference.responses[k].scores
        if any(name not in scores for name in self.scores):
            field, hint = f"responses[{k}].scores", f"every response needs {', '.join(self.scores)}"
            reason = "response lacks a score that the direction weighs"
            raise RowError(reason, field=field, value=dict(scores), hint=hint)
        return [scores[name] for name in self.scores]

    def _ordered(
        self, preference: Preference, draw: int, hundredths: tuple[int, ...], worth: Sequence[float]
    ) -> Preference:
        order = sorted(range(len(worth)), key=lambda k: -worth[k])
        said = ", ".join(f"{name} {number}" for name, number in zip(self.scores, hundredths, strict=True))
        row = replace(
            preference,
            id=f"{preference.id}#direction={draw}",
            prompt=_told(preference.prompt, self.text.replace("{weights}", said), self.place),
            responses=tuple(_rescored(preference.responses[k], worth[k]) for k in order),
            ties=_ties([worth[k] for k in order]),
            margin=max(worth) - min(worth) if len(worth) > 1 else None,
            tags={**preference.tags, "direction": said},
        )
        return marked(row, "dpa")


def _told(prompt: tuple[Message, ...], text: str, place: str) -> tuple[Message, ...]:
    """Return the prompt with `text` before everything that its system turn, or its first user turn, says."""
    positions = [position for position, message in enumerate(prompt) if message.role == place]
    if place == "system" and positions[:1] != [0]:
        return (Message.of("system", text), *prompt)
    if not positions:
        hint = "put it into the system turn (place: system)"
        raise RowError("prompt has no user turn that could say the goal", field="prompt", hint=hint)
    said = prompt[positions[0]]
    told = replace(said, parts=(TextPart(text=f"{text}\n\n"), *said.parts))
    return (*prompt[: positions[0]], told, *prompt[positions[0] + 1 :])


def _rescored(response: Response, score: float) -> Response:
    """Return the response under a new score; the first one that it had is kept by name."""
    before = {} if response.score is None else {"score": response.score}
    return replace(response, score=score, scores={**before, **response.scores})


def _ties(worth: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """Return groups of neighbouring positions of equal worth; `worth` falls."""
    groups: list[list[int]] = []
    for position, value in enumerate(worth):
        if position and value == worth[position - 1]:
            groups[-1].append(position)
        else:
            groups.append([position])
    return tuple(tuple(group) for group in groups if len(group) > 1)
