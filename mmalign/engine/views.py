"""Views: the same prompt and responses under other media, for objectives that ask whether a model looks.

A row is one tree of the media as they are, and one further tree for each view that the objective reads. What a view
shows follows from the row alone: chances are drawn from its id, so policy and reference, every epoch, cut, rank and
resumed run see the same. In a batch the B rows come first, then the B rows of the first view, and so on (`tree.py`).

Perturbed media keep their shape, so such a view has exactly the tokens of its row. Media from elsewhere (those that a
response saw, or that a tag names) are measured like the row's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

from mmalign.errors import RowError, show
from mmalign.formats.media import MediaRef
from mmalign.formats.message import MediaPart
from mmalign.formats.preference import Preference
from mmalign.modalities import motion
from mmalign.modalities.pixels import diffusion_strength
from mmalign.modalities.table import MODALITIES

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels of a medium's file."""

LAST_RESPONSE = "media of the last response"
"""In `View.media`: what the last response of the row saw (`Response.media`)."""


CONTRASTS: Mapping[str, tuple[float, float]] = {
    "crop": (0.8, 0.99),
    "noise": (diffusion_strength(500),) * 2,
    "blur": (1.0, 1.0),
    "blank": (1.0, 1.0),
    "black": (1.0, 1.0),
    "static": (1.0, 1.0),
    "reverse": (1.0, 1.0),
    "shuffle": (1.0, 1.0),
    "drop": (0.75, 0.75),
    "freeze": (1.0, 1.0),
}
"""How media may be changed for a contrast, and how strongly: a crop to 1% to 20% of the area is mDPO's, the noise of
diffusion step 500 POVID's and CHiP's. The last four move or hold the frames of videos."""


@dataclass(frozen=True, kw_only=True)
class View:
    """How the media of a row are changed. Views of one name are one view: build them with the functions below.

    Args:
        name: what logs, tables and `GroupLogps.views` call it.
        how: perturbation of every medium, as `perturb` of its modality knows it; None changes no pixel.
        strength: least and most strength; the row's is drawn evenly between them.
        media: where the media come from, the first place that the row has: `LAST_RESPONSE`, or the name of a tag that
            holds a path below the data root. Empty for the media of the row.
        box: name of the tag with the box outside of which nothing is changed; None changes all.
        likeliest: measure not the responses, but which tokens this view makes likeliest in their place: the view then
            holds the log-probs of those tokens under the media of the row.
        forgets: the prompt is its system messages and its last turn; turns between, and their media, are left out.
    """

    name: str
    how: str | None = None
    strength: tuple[float, float] = (1.0, 1.0)
    media: tuple[str, ...] = ()
    box: str | None = None
    likeliest: bool = False
    forgets: bool = False

    @property
    def keeps_shape(self) -> bool:
        """Whether every row has as many tokens in this view as without."""
        return not (self.media or self.forgets)

    @property
    def reads_responses_media(self) -> bool:
        """Whether media of single responses are read."""
        return LAST_RESPONSE in self.media

    def row(self, preference: Preference) -> Preference:
        """Return the row with the media that this view is made from, none of them perturbed yet.

        Raises:
            RowError: the row has no media, or not those that the view asks for.
        """
        if self.forgets:
            return _last_turn(preference)
        if not preference.media:
            raise RowError(
                "row has no media to change, and the objective compares with changed media",
                field="media",
                hint="leave such rows out, or train on them with an objective that has no views, such as dpo",
            )
        plain = replace(preference, responses=tuple(replace(one, media=None) for one in preference.responses))
        return replace(plain, media=self._media(preference)) if self.media else plain

    def require_changeable(self, frames: Iterable[int]) -> None:
        """Check that every clip of so many frames can be changed this way.

        Raises:
            RowError: a clip of one frame has no order.
        """
        if self.how in motion.ORDERS and any(count < 2 for count in frames):
            raise RowError("video has too few frames for a change in time", field="videos", hint="it needs at least 2")

    def change(self, preference: Preference) -> Change | None:
        """Return what is done to the decoded media of a row, None where they stay as they are.

        Raises:
            RowError: its media cannot be changed this way.
        """
        if self.how is None:
            return None
        still = next((place for place, ref in enumerate(preference.media) if ref.kind != "video"), None)
        if self.how in motion.ORDERS and still is not None:
            hint = f"{self.how!r} moves the frames of videos; choose another contrast for rows with pictures"
            raise RowError("picture has no order in time to change", field="media", value=still, hint=hint)
        box = None if self.box is None else self._box(preference)
        return Change(how=self.how, strength=self.strength, source=f"{preference.id}|{self.name}", box=box)

    def _media(self, preference: Preference) -> tuple[MediaRef, ...]:
        for place in self.media:
            own = preference.responses[-1].media if place == LAST_RESPONSE else None
            if own is not None:
                return own
            if place in preference.tags:
                return (self._tagged(preference, place),)
        wanted = " or ".join(place if place == LAST_RESPONSE else f"a tag {place!r}" for place in self.media)
        raise RowError(
            "row has not the other media that the objective compares with",
            field="media",
            value=sorted(preference.tags),
            hint=f"it wants {wanted}",
        )

    def _tagged(self, preference: Preference, tag: str) -> MediaRef:
        if len(preference.media) != 1:
            raise RowError(
                "tag names one medium in place of several",
                field=f"tags.{tag}",
                value=len(preference.media),
                hint="give the media in the last response, one for each of the row's",
            )
        return MediaRef(kind=preference.media[0].kind, uri=preference.tags[tag])

    def _box(self, preference: Preference) -> Box:
        text = preference.tags.get(self.box, "")
        numbers = [re.search(rf"['\"]{side}['\"]: *(-?\d+(?:\.\d+)?)", text) for side in "xywh"]
        if None in numbers:
            hint = f"the tag {self.box!r} must be a text as \"'x': 1.0, 'y': 2.0, 'w': 3.0, 'h': 4.0\""
            raise RowError("row has no box to hide", field="tags", value=text or sorted(preference.tags), hint=hint)
        left, top, width, height = (float(number.group(1)) for number in numbers)
        return left, top, width, height


@dataclass(frozen=True, kw_only=True)
class Change:
    """A perturbation of the media of one row.

    Args:
        how, strength: as in `View`.
        source: what chances are drawn from.
        box: the part that is changed; None for all.
    """

    how: str
    strength: tuple[float, float]
    source: str
    box: Box | None = None

    def __call__(self, kind: str, medium: Any, place: int) -> Any:
        """Return a decoded medium changed; `place` tells media of one row apart."""
        low, high = self.strength
        strength = low + (high - low) * crc32(f"{self.source}|{place}|strength".encode()) / 2**32
        seed = crc32(f"{self.source}|{place}".encode())
        return MODALITIES[kind].perturb(medium, self.how, seed=seed, strength=strength)

    @property
    def key(self) -> list[Any]:
        """What tells media changed this way from others."""
        return [self.how, self.strength, self.source, self.box]

    def inside(self, size: tuple[int, int], source_size: tuple[int, int]) -> tuple[slice, slice]:
        """Return the rows and columns that are changed of a picture of this (width, height) at its present size."""
        if self.box is None:
            return slice(None), slice(None)
        left, top, width, height = self.box
        (columns, rows), (source_columns, source_rows) = size, source_size
        edges = (top * rows / source_rows, (top + height) * rows / source_rows)
        sides = (left * columns / source_columns, (left + width) * columns / source_columns)
        return tuple(slice(max(0, round(start)), max(0, round(stop))) for start, stop in (edges, sides))


def id_in_view(row_id: str, view: str) -> str:
    """Return the id of a row's tree in a view, by which tables of log-probs know it."""
    return f"{row_id} [{view}]"


def contrasted(how: str, *, likeliest: bool = False) -> View:
    """Return the view of media changed as `CONTRASTS` says."""
    return View(
        name=f"{how}, likeliest tokens" if likeliest else how, how=how, strength=CONTRASTS[how], likeliest=likeliest
    )


def other_media(*places: str, hidden_box: str | None = None) -> View:
    """Return the view of media from elsewhere, of the first of `places` that the row has.

    Args:
        hidden_box: tag with a box that is black in them.
    """
    name = " or ".join(places)
    if hidden_box is None:
        return View(name=name, media=places)
    return View(name=f"{name} without {hidden_box}", media=places, how="black", box=hidden_box)


def without_history() -> View:
    """Return the view of a prompt whose earlier turns are left out."""
    return View(name="without history", forgets=True)


def _last_turn(preference: Preference) -> Preference:
    """Return a row with the system messages and the last turn of its prompt, and the media that stand in them.

    Raises:
        RowError: there is nothing before the last turn.
    """
    *earlier, last = preference.prompt
    kept = [message for message in earlier if message.role == "system"]
    if len(kept) == len(earlier):
        raise RowError(
            "prompt has no turn before the last, and the objective compares with a prompt without history",
            field="prompt",
            value=f"{len(preference.prompt)} message(s)",
            hint="write the history as turns of its own, or train on such rows with sft",
        )
    kept.append(last)
    place = {index: number for number, index in enumerate(i for message in kept for i in message.media_indices)}
    turns = tuple(
        replace(
            message,
            parts=tuple(
                MediaPart(index=place[part.index]) if isinstance(part, MediaPart) else part for part in message.parts
            ),
        )
        for message in kept
    )
    return replace(preference, prompt=turns, media=tuple(preference.media[index] for index in place))


def require_read(preference: Preference, views: Sequence[View]) -> None:
    """Check that media of single responses are read by some view.

    Raises:
        RowError: they are there, and nothing reads them.
    """
    own = [k for k, response in enumerate(preference.responses) if response.media is not None]
    if own and not any(view.reads_responses_media for view in views):
        raise RowError(
            "responses with media of their own cannot share one prompt",
            field=f"responses[{own[0]}].media",
            hint="objectives that compare under changed media read those of the last response: mixed_image, symmpo",
        )
    unread = [k for k in own if k != len(preference.responses) - 1]
    if unread:
        raise RowError(
            "media of a response that is not the last are not read",
            field=f"responses[{unread[0]}].media",
            hint=f"only the last response may have media of its own, of {show(len(preference.responses))}",
        )
