"""Orders that tell a list of N clips, captions or frames wrongly, how far each is from the right one, and their seeds.

TEMPLE (arXiv 2503.16929 and its released code) cuts the list into consecutive blocks of g = max(1, floor(N / r)) items,
the last of which may be shorter; a larger factor r asks for a stronger change. What an order does is measured on the
order itself: r is a request, which several r may grant alike, and which a draw may grant more or less fully.

    reverse      the blocks stand last to first, each forwards in itself
    shuffle      the blocks stand in an order drawn evenly from all but their own
    drop         g items, drawn evenly, are kept in their order
    drop_groups  whole groups of items that look alike, drawn evenly, are dropped while g items or more are left
    repeat       g items, drawn evenly, are kept; each is said again until the next: the list stays as long as it was
    freeze       one item, drawn evenly, is held until only g different ones are left
    speed        g items are kept, evenly spread: the story told faster

The first four are TEMPLE's, whose released runs drop evenly, and whose groups are of shots where clips are dropped.
No order is the right one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmalign.errors import ConfigError
from mmalign.pairs.draws import draws_of

Order = tuple[int, ...]
Groups = Sequence[int]
"""Of every item the number of its group: items of one group look alike."""


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """An order, and how far it is from 0, 1, ..., N - 1.

    Args:
        how: which perturbation.
        factor: r, what was asked for.
        order: places of the list, as they are told.
        block: g, items of a block, or items kept (of drop_groups: the fewest).
        kept_share: different items that are told, over N.
        kendall: of the pairs of different items told, the share told the wrong way round; an item counts where it is
            told first.
    """

    how: str
    factor: int
    order: Order
    block: int
    kept_share: float
    kendall: float

    @property
    def difficulty(self) -> float:
        """kept_share * (1 - kendall), from 0 to 1: near 1 the order is nearly right, and hard to tell from it."""
        return self.kept_share * (1.0 - self.kendall)


def block_size(count: int, factor: int) -> int:
    """Return g = max(1, floor(N / r))."""
    return max(1, count // factor)


def blocks(count: int, factor: int) -> list[range]:
    """Return the consecutive blocks of g items that 0..N-1 is cut into; the last may be shorter."""
    size = block_size(count, factor)
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _reverse(count: int, factor: int, draws: np.random.RandomState, groups: Groups) -> list[int]:
    return list(itertools.chain.from_iterable(reversed(blocks(count, factor))))


def _shuffle(count: int, factor: int, draws: np.random.RandomState, groups: Groups) -> list[int]:
    cut = blocks(count, factor)
    places = list(range(len(cut)))
    while places == sorted(places):
        places = draws.permutation(len(cut)).tolist()
    return list(itertools.chain.from_iterable(cut[place] for place in places))


def _drop(count: int, factor: int, draws: np.random.RandomState, groups: Groups) -> list[int]:
    return sorted(draws.choice(count, block_size(count, factor), replace=False).tolist())


def _drop_groups(count: int, factor: int, draws: np.random.RandomState, groups: Groups) -> list[int]:
    left = list(range(count))
    for group in draws.permutation(sorted(set(groups))).tolist():
        rest = [item for item in left if groups[item] != group]
        left = rest if len(rest) >= block_size(count, factor) else left
    return left if len(left) < count else _drop(count, factor, draws, groups)


def _repeat(count: int, factor: int, draws: np.random.RandomState, groups: Groups) -> list[int]:
    kept = _drop(count, factor, draws, groups)
    return [kept[max(0, np.searchsorted(kept, place, side="right") - 1)] for place in range(count)]


def _freeze(count: int, factor: int, draws: np.random.RandomState, groups: Groups) -> list[int]:
    held = count - block_size(count, factor) + 1
    first = int(draws.randint(count - held + 1))
    return [first if first <= place < first + held else place for place in range(count)]


def _speed(count: int, factor: int, draws: np.random.RandomState, groups: Groups) -> list[int]:
    kept = block_size(count, factor)
    return [(2 * k + 1) * count // (2 * kept) for k in range(kept)]


PERTURBATIONS: dict[str, Callable[[int, int, np.random.RandomState, Groups], list[int]]] = {
    "reverse": _reverse,
    "shuffle": _shuffle,
    "drop": _drop,
    "drop_groups": _drop_groups,
    "repeat": _repeat,
    "freeze": _freeze,
    "speed": _speed,
}
"""Number of items, factor, draws, groups -> the places told. Groups are read by drop_groups alone."""

_ATTEMPTS = 16
"""Draws of an order that is not told yet."""

LOSES_ITEMS = frozenset({"drop", "drop_groups", "speed"})
"""Perturbations after which there is less to tell; after the others there is as much, or the same again."""


def perturbed(count: int, how: str, factor: int, *, seed: int, name: str, groups: Groups | None = None) -> Perturbed:
    """Return an order of `count` items that is not the right one.

    Args:
        count: N >= 2.
        how: of `PERTURBATIONS`.
        factor: r >= 2.
        seed: of the data set, 0 <= seed < 2^32.
        name: what is perturbed; the draw depends on it, `how`, the factor and the seed alone.
        groups: which items look alike; without them none do.

    Raises:
        ConfigError: unknown `how`, a factor below 2, or fewer than two items, which have one order only.
    """
    if how not in PERTURBATIONS:
        raise ConfigError(f"perturbation {how!r} is unknown; use one of {', '.join(PERTURBATIONS)}")
    if factor < 2 or count < 2:
        raise ConfigError(f"a perturbation needs a factor and a number of items of 2 or more, got {factor} and {count}")
    draws = draws_of(seed, f"{name}\0{how}\0{factor}")
    order = tuple(PERTURBATIONS[how](count, factor, draws, range(count) if groups is None else groups))
    told = tuple(dict.fromkeys(order))
    return Perturbed(
        how=how,
        factor=factor,
        order=order,
        block=block_size(count, factor),
        kept_share=len(told) / count,
        kendall=kendall(told),
    )


def kendall(order: Sequence[int]) -> float:
    """Return the share of pairs that stand the wrong way round: 0 for ascending numbers, 1 for descending ones."""
    pairs = len(order) * (len(order) - 1) // 2
    return sum(later < sooner for sooner, later in itertools.combinations(order, 2)) / pairs if pairs else 0.0


def different(
    count: int, hows: Sequence[str], factors: Sequence[int], *, seed: int, name: str, groups: Groups | None = None
) -> list[Perturbed]:
    """Return every perturbation by every factor, easiest request first, each way of telling the list once.

    Factors that cut the list into the same blocks would be the same request twice; it stands at the largest of them.
    An order that is told already is drawn again; where none is left (of two blocks, the reverse is the only shuffle)
    the perturbation that is named first has it.

    Raises:
        ConfigError: as `perturbed`.
    """
    found: list[Perturbed] = []
    for factor in sorted(set(factors), reverse=True):
        if any(block_size(count, factor) == block_size(count, other.factor) for other in found):
            continue
        for how in hows:
            told = {other.order for other in found}
            names = (name, *(f"{name}\0{attempt}" for attempt in range(1, _ATTEMPTS)))
            drawn = (perturbed(count, how, factor, seed=seed, name=one, groups=groups) for one in names)
            found += itertools.islice((made for made in drawn if made.order not in told), 1)
    return found
