"""The media of a page: each content once, as small pictures, within a budget of bytes.

What a medium looks like is the business of its modality: a page asks `render` for a picture and, where the modality
has one, `playable` for moving ones. It knows no kind of media by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities.fetch import MediaLimits, shown
from mmalign.modalities.table import MODALITIES

PICTURE_PIXELS = 200_704
"""Pictures inside a data page are made this small: 448 by 448."""

_LONGEST_NAME = 160
_UNITS = ("s", "px", "m")


class MediaShelf:
    """Takes references and gives out numbers; the pictures behind the numbers stand in the page once.

    The budget is spent in the order of the rows. The first picture that would exceed it closes the shelf: what comes
    later is checked and named, and its entry says that the picture was left out (`left_out`), or the moving one alone
    (`playable_left_out`); so many media of each there are.

    Args:
        limits: of each kind of media.
        budget_bytes: of all pictures together, as the page holds them.
    """

    def __init__(self, limits: Mapping[str, MediaLimits], budget_bytes: int) -> None:
        self._limits, self.budget_bytes = limits, budget_bytes
        self.entries: list[dict[str, Any]] = []
        self.pictures: list[str] = []
        self.troubles: list[RowError | None] = []
        self.used_bytes, self.left_out, self.playable_left_out = 0, 0, 0
        self._closed = False
        self._numbers: dict[str, int] = {}
        self._pictures: dict[bytes, int] = {}

    @property
    def limits(self) -> Mapping[str, MediaLimits]:
        """What media of each kind may be."""
        return self._limits

    @property
    def is_full(self) -> bool:
        """Whether the budget is spent: no picture is taken any more."""
        return self._closed

    def place(self, ref: MediaRef, field: str) -> tuple[int, RowError | None]:
        """Return the number of a medium's entry, and why its modality refuses it, if it does."""
        key = ref.identity()
        if key not in self._numbers:
            self._numbers[key] = len(self.entries)
            entry: dict[str, Any] = {"kind": ref.kind, "name": _named(ref)}
            self.troubles.append(self._look(ref, field, entry))
            self.entries.append(entry)
        number = self._numbers[key]
        return number, self.troubles[number]

    def _look(self, ref: MediaRef, field: str, entry: dict[str, Any]) -> RowError | None:
        """Fill the entry of a medium: what it is, its picture, or what is wrong with it."""
        try:
            limits = self._limits[ref.kind]
            modality = MODALITIES[ref.kind]
            entry["facts"] = described(modality.check(ref, limits, field=field))
            if not self._closed:
                self._keep(modality.render(ref, limits, PICTURE_PIXELS, field=field), entry, "picture")
            if not self._closed and modality.playable is not None:
                self._keep(modality.playable(ref, limits, field=field), entry, "playable")
        except RowError as error:
            entry["trouble"] = f"{error.reason} ({error.hint})" if error.hint else error.reason
            return error
        if self._closed and "picture" not in entry:
            entry["left_out"] = True
            self.left_out += 1
        elif self._closed and modality.playable is not None and not entry.keys() & {"playable", "too_long"}:
            entry["playable_left_out"] = True
            self.playable_left_out += 1
        return None

    def _keep(self, uri: str | None, entry: dict[str, Any], name: str) -> None:
        """Put a picture on the shelf unless it is there, and its number into `entry`; None is too long a clip."""
        if uri is None:
            entry["too_long"] = True
            return
        digest = hashlib.sha256(uri.encode()).digest()
        if digest not in self._pictures:
            if self.used_bytes + len(uri) > self.budget_bytes:
                self._closed = True
                return
            self.used_bytes += len(uri)
            self._pictures[digest] = len(self.pictures)
            self.pictures.append(uri)
        entry[name] = self._pictures[digest]


def described(shape: Any) -> str:
    """Return what a modality's `check` found, for people.

    >>> described((640, 480))
    '640 x 480'

    A record is told by the names of its fields, width and height together, a name that ends with a unit with it:
    "frames 8, 448 x 252, duration 2.5 s". Fields that hold many values, such as a time for each frame, are left out.
    """
    if not dataclasses.is_dataclass(shape):
        return " x ".join(map(str, shape))
    facts = {name: value for name, value in dataclasses.asdict(shape).items() if not isinstance(value, list | tuple)}
    for of in [name.removesuffix("width") for name in facts if name.endswith("width")]:
        if f"{of}height" in facts:
            facts[f"{of}width"] = f"{facts[f'{of}width']} x {facts.pop(f'{of}height')}"
    return ", ".join(_said(name, value) for name, value in facts.items())


def _said(name: str, value: Any) -> str:
    figure = f"{value:.4g}" if isinstance(value, float) else str(value)
    if name.endswith("width") and isinstance(value, str):
        return name.removesuffix("width").replace("_", " ") + figure
    bare, _, unit = name.rpartition("_")
    words, after = (bare, f" {unit}") if unit in _UNITS and bare else (name, "")
    return f"{words.replace('_', ' ')} {figure}{after}"


def _named(ref: MediaRef) -> str:
    name = shown(ref)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."
