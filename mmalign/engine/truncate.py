"""Making a long row fit: shrink its media, then drop its oldest turns, then refuse it.

A row is never cut by tokens: a media token without its picture crashes the model, and a prompt that is cut differently
for two responses compares answers to two questions. What is done depends on the record and on the settings alone, so
that preparing, resuming and training see the same row.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mmalign.errors import RowError
from mmalign.formats.message import MediaPart, Message
from mmalign.formats.preference import Preference, Response

Draft = TypeVar("Draft")

_SHARES = tuple(2 ** (-step / 4) for step in range(1, 17))
"""Shares of their area that media are tried at before a turn is dropped: down to a quarter of each side."""


@dataclass(frozen=True, kw_only=True)
class TreeLengths:
    """Tokens of a row, and what was done to make it fit.

    Args:
        prompt_tokens: of the prompt, media included.
        response_tokens: of each response.
        media_tokens: of the prompt's tokens, those that media features fill.
        video_tokens: of these, those of videos.
        max_pixels: area media were shrunk to, None when they were not.
        turns_dropped: leading turns that were left out.
    """

    prompt_tokens: int
    response_tokens: tuple[int, ...]
    media_tokens: int = 0
    video_tokens: int = 0
    max_pixels: int | None = None
    turns_dropped: int = 0

    @property
    def longest_branch(self) -> int:
        """Tokens of the prompt and its longest response: what `max_length` bounds, as in a model's own context."""
        return self.prompt_tokens + max(self.response_tokens, default=0)

    @property
    def tree_tokens(self) -> int:
        """Tokens of the prompt and all responses: what a row of a batch holds."""
        return self.prompt_tokens + sum(self.response_tokens)

    @property
    def actions(self) -> tuple[str, ...]:
        """What was done to the row, in words fit for counting."""
        done = (("media shrunk", self.max_pixels is not None), ("turns dropped", self.turns_dropped > 0))
        return tuple(name for name, was_done in done if was_done)


@dataclass(frozen=True)
class Fitted(Generic[Draft]):
    """A row that fits.

    Args:
        draft: of the record after turns were dropped.
        lengths: of the draft with its media shrunk, None when nobody measured.
    """

    draft: Draft
    lengths: TreeLengths | None


@dataclass(frozen=True, kw_only=True)
class Fitter(Generic[Draft]):
    """Makes rows fit. A draft is whatever `measure` needs to know of a record.

    Args:
        max_length: bound on the longest branch in tokens.
        make_draft: record -> draft.
        measure: draft and the area media are shrunk to (None: not) -> lengths.
        largest_pixels: area of the draft's largest medium as the model sees it, 0 without media.
        smallest_pixels: no medium shrinks below this area.
    """

    max_length: int
    make_draft: Callable[[Preference], Draft]
    measure: Callable[[Draft, int | None], TreeLengths]
    largest_pixels: Callable[[Draft], int]
    smallest_pixels: int = 1

    def __call__(self, preference: Preference, draft: Draft) -> Fitted[Draft]:
        """Return the row as it is if it fits, else with media shrunk, else with leading turns dropped too.

        As few turns as possible are dropped, and media shrink as little as the turns that stay allow.

        Raises:
            RowError: the last user turn with its media at their smallest and the longest response do not fit.
        """
        lengths = self.largest_fit(draft)
        if lengths is not None:
            return Fitted(draft, lengths)
        starts, drafts = _exchanges(preference.prompt), {}

        def fits(start: int) -> bool:
            drafts[start] = self.make_draft(without_turns_before(preference, start))
            return self._shortest(drafts[start]).longest_branch <= self.max_length

        place = bisect_left(starts, True, key=fits)
        if place == len(starts):
            raise self._refusal(drafts[starts[-1]] if starts else draft)
        kept = drafts[starts[place]]
        dropped = sum(message.role != "system" for message in preference.prompt[: starts[place]])
        return Fitted(kept, replace(self.largest_fit(kept), turns_dropped=dropped))

    def largest_fit(self, draft: Draft) -> TreeLengths | None:
        """Return the lengths with media as large as fits, None when nothing fits."""
        lengths = self.measure(draft, None)
        if lengths.longest_branch <= self.max_length:
            return lengths
        tried = (self.measure(draft, max_pixels) for max_pixels in self._rungs(draft))
        return next((lengths for lengths in tried if lengths.longest_branch <= self.max_length), None)

    def _shortest(self, draft: Draft) -> TreeLengths:
        """Return the lengths with media at their smallest."""
        return self.measure(draft, (None, *self._rungs(draft))[-1])

    def _rungs(self, draft: Draft) -> list[int]:
        """Return areas to try, from just below the present one down."""
        present = self.largest_pixels(draft)
        areas = (int(present * share) for share in _SHARES)
        return [area for area in areas if area >= self.smallest_pixels]

    def _refusal(self, draft: Draft) -> RowError:
        return RowError(
            "row is longer than max_length",
            field="prompt",
            value=self._shortest(draft).longest_branch,
            hint=f"data.max_length is {self.max_length} and neither smaller media nor fewer turns suffice; raise it, "
            "or take fewer frames (data.video.frames)",
        )


def without_turns_before(preference: Preference, start: int) -> Preference:
    """Return the record without the turns before `start`, except system turns, and without the media in them."""
    system = tuple(message for message in preference.prompt[:start] if message.role == "system")
    prompt = system + preference.prompt[start:]
    kept = sorted(index for message in prompt for index in message.media_indices)
    place = {index: new for new, index in enumerate(kept)}
    return replace(
        preference,
        prompt=tuple(_with_media(message, place) for message in prompt),
        media=tuple(preference.media[index] for index in kept),
        responses=tuple(_seen_with(response, kept) for response in preference.responses),
    )


def _seen_with(response: Response, kept: list[int]) -> Response:
    """Return the response with those media of its own that stand in the place of kept ones."""
    own = response.media
    return response if own is None else replace(response, media=tuple(own[index] for index in kept))


def _with_media(message: Message, place: dict[int, int]) -> Message:
    parts = (MediaPart(index=place[p.index]) if isinstance(p, MediaPart) else p for p in message.parts)
    return replace(message, parts=tuple(parts))


def _exchanges(prompt: tuple[Message, ...]) -> list[int]:
    """Return where a shortened prompt may begin: at every user turn but the first, so that roles go on alternating."""
    return [i for i, message in enumerate(prompt) if message.role == "user"][1:]
