"""Numbers that come with the rows: named scores of the responses (`Response.scores`) that a part of a loss may read.

    logp/<source>     sum of the response's token log-probs under another model, in nats
    tokens/<source>   number of the response's tokens, by that model's tokenizer
    reward/<source>   gap between two such sums, the other model's implicit reward of DPO without its beta
    win_rate          probability that the response wins against a response to the same prompt
    strength          votes for the response, or its strength under Bradley and Terry: it wins with p_w / (p_w + p_l)
    from_reference    1 for what the reference itself answered, 0 for other responses
    judge             score by a second judge; differences are log-odds of winning

`mmalign data score` writes the first three with any model. Each response that is read must have the numbers that are
read; a row without is refused before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mmalign.errors import RowError
from mmalign.formats.preference import Preference


@dataclass(frozen=True)
class NumberRule:
    """What a number must be.

    Args:
        rule: in words.
        holds: whether a value keeps it.
        way_out: how rows come by it.
    """

    rule: str
    holds: Callable[[float], bool]
    way_out: str


FUSIONS = ("max_margin", "average", "confidence")
"""Ways to make one log-prob of those of several sources; see `sources.py`."""

_BY_MODEL = "`mmalign data score ROWS --model DIR --as {source} -o OUT` writes it"
_RULES = {
    "logp": NumberRule("a number of nats", lambda value: True, _BY_MODEL),
    "tokens": NumberRule("a whole number from 1", lambda value: value >= 1 and value == int(value), _BY_MODEL),
    "reward": NumberRule("a number of nats", lambda value: True, _BY_MODEL + " with --against BASE"),
    "win_rate": NumberRule(
        "a probability from 0 to 1", lambda value: 0 <= value <= 1, "give every response its rate of wins"
    ),
    "strength": NumberRule("a number at least 0", lambda value: value >= 0, "give every response its votes"),
    "from_reference": NumberRule(
        "0 or 1", lambda value: value in (0, 1), "say 1 for what the reference answered, 0 for other responses"
    ),
}
_OF_A_JUDGE = NumberRule("a number", lambda value: True, "score every response by a second judge")


def source_names(sources: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the numbers that other models give: `logp/<source>` and `tokens/<source>` of each."""
    return tuple(f"{kind}/{source}" for source in sources for kind in ("logp", "tokens"))


def require_numbers(preference: Preference, names: Iterable[str], positions: Iterable[int]) -> None:
    """Check that the responses at `positions` have these numbers, each within its rule.

    Raises:
        RowError: a number is missing, or breaks its rule.
    """
    for name in names:
        kind, _, source = name.partition("/")
        rule = _RULES.get(kind, _OF_A_JUDGE)
        for position in sorted(positions):
            value = preference.responses[position].scores.get(name)
            field = f"responses[{position}].scores.{name}"
            if value is None:
                reason = "response lacks a number that the objective reads"
                raise RowError(reason, field=field, hint=rule.way_out.format(source=source))
            if not rule.holds(value):
                reason = "a number of a response is not what it must be"
                raise RowError(reason, field=field, value=value, hint=f"{kind} must be {rule.rule}")
