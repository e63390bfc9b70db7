"""From a preference to tokens: the prompt with its media once, and every response apart from it.

Ids are those that TRL's vision collator makes: the prompt through the processor, each response through the tokenizer,
both without added special tokens (the chat template wrote them).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mmalign.engine.assemble import assemble
from mmalign.engine.chat import ChatRenderer, Rendered
from mmalign.engine.explain import explain
from mmalign.engine.families import Family
from mmalign.engine.media_inputs import LoadedMedia, MediaInputs, MediaShapes
from mmalign.engine.media_tokens import PromptCount, count_prompt, counts_videos
from mmalign.engine.processor import load_processor
from mmalign.engine.spans import token_weights
from mmalign.engine.truncate import Fitted, Fitter, TreeLengths
from mmalign.engine.views import Change, View, require_read
from mmalign.errors import ModelError, RowError
from mmalign.formats.media import MediaKind
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.formats.prompt import Prompt
from mmalign.modalities.fetch import MediaLimits

__all__ = ["PromptTree", "Tokeniser", "TreeLengths", "load_processor"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PromptTree:
    """One prompt and K responses as tokens.

    Args:
        id: of the row.
        prompt_ids: int64 [P], media placeholders expanded.
        media: processor outputs for the media of this row, {} for text.
        mm_token_type_ids: int64 [P] where the processor makes it.
        prompt_extra: further outputs per prompt token ("token_type_ids" [P]).
        response_ids: K tensors int64 [R_k], ending with what the chat template puts after an answer.
        response_weights: K tensors float32 [R_k] made from spans, None when no response has spans.
        levels: of each response; 0 is best, equal numbers are ties, `tree.NOT_OF_THE_ROW` marks an answer to another
            prompt.
        margin, weight, tags: of the row.
        scores: of each response, nan where one has none; empty where none has.
        numbers: named scores of the responses, nan where one has none; names that no response has are left out.
        media_key: hash of the media's content and of everything that decides what the processor makes of it.
    """

    id: str
    prompt_ids: Tensor
    response_ids: tuple[Tensor, ...]
    media: dict[str, Tensor] = field(default_factory=dict)
    mm_token_type_ids: Tensor | None = None
    prompt_extra: dict[str, Tensor] = field(default_factory=dict)
    response_weights: tuple[Tensor, ...] | None = None
    levels: tuple[int, ...]
    margin: float | None = None
    weight: float = 1.0
    scores: tuple[float, ...] = ()
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    media_key: str | None = None


@dataclass(frozen=True)
class _Draft:
    """A record on its way: rendered, its responses tokenised, its media not decoded.

    `encoded` is what the tokenizer says about the responses.
    """

    preference: Preference | Prompt
    rendered: Rendered
    encoded: Mapping[str, Any]
    media: MediaInputs | None

    @cached_property
    def shapes(self) -> MediaShapes:
        """What the headers of the media say."""
        return MediaShapes() if self.media is None else self.media.shapes(self.preference)

    def largest_pixels(self) -> int:
        """Area of the largest picture or frame as the model sees it."""
        return 0 if self.media is None else self.media.largest_pixels(self.shapes)


class Tokeniser:
    """Makes prompt trees for one model; pickles, forks, and keeps no file open.

    Args:
        processor: from `load_processor`.
        family: of the model.
        limits: for every kind of media, where they may come from and how large they may be; kept by
            `engine/media_inputs.py`.
        max_length: bound on prompt + longest response in tokens; longer rows are made to fit (`engine/truncate.py`).
    """

    def __init__(
        self,
        processor: Any,
        family: Family,
        limits: Mapping[MediaKind, MediaLimits],
        *,
        max_length: int | None = None,
    ) -> None:
        self.processor, self.family, self.limits, self.max_length = processor, family, limits, max_length
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self._render = ChatRenderer(processor, reads=_kinds_read(processor, family))
        sees = getattr(processor, "image_processor", None) is not None
        self._media = MediaInputs(processor, limits) if sees else None
        self._fitter = None if max_length is None else self._make_fitter(max_length)
        if not self.ends_turn:
            logger.warning(
                "the chat template puts no end of turn after an answer, and none is added: log-probs agree with TRL, "
                "but the model is not taught to stop; let the template end the assistant's turn with a special token"
            )

    @property
    def pad_id(self) -> int:
        """An id for padding, which nothing attends to."""
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((token for token in ids if token is not None), 0)

    @property
    def ends_turn(self) -> bool:
        """True when an answer is followed by a token that is no text: the end of a turn or of the whole."""
        try:
            return self._turn_end() is not None
        except RowError:
            return True

    @property
    def turn_end_id(self) -> int | None:
        """The token that stands behind an answer, None where the template puts none there or refuses to say."""
        try:
            return self._turn_end()
        except RowError:
            return None

    def _turn_end(self) -> int | None:
        sample = Preference(id="", prompt=(Message.of("user", "a"),), responses=(Response.of("b"),))
        ids = self.tokenizer(self._render(sample).responses[0].rstrip(), add_special_tokens=False)["input_ids"]
        ends = {self.tokenizer.eos_token_id, *self.tokenizer.added_tokens_decoder}
        return ids[-1] if ids and ids[-1] in ends else None

    def __call__(self, preference: Preference) -> PromptTree:
        """Tokenise a row and process its media.

        Raises:
            RowError: it cannot be rendered, does not fit, or a medium cannot be read.
        """
        return self.trees(preference)[0]

    def trees(self, preference: Preference, views: Sequence[View] = ()) -> list[PromptTree]:
        """Tokenise a row, and then the row in each of its views.

        Raises:
            RowError: as `__call__`, and when the row cannot be seen in one of the views.
        """
        require_read(preference, views)
        fitted = self._fit(preference)
        changes = [view.change(preference) for view in views]
        seen = [fitted, *(self._fit_view(view, fitted) for view in views)]
        return [self._tree(one, change) for one, change in zip(seen, [None, *changes], strict=True)]

    def lengths_of_all(self, preference: Preference, views: Sequence[View] = ()) -> list[TreeLengths]:
        """Return the lengths of each of `trees`; reads only headers.

        Raises:
            RowError: as `trees`, except for what only decoding finds.
        """
        require_read(preference, views)
        fitted = self._fit(preference)
        for view in views:
            if view.change(preference) is not None:
                view.require_changeable(clip.frames for clip in fitted.draft.shapes.clips)
        own = fitted.lengths or self._measure(fitted.draft, None)
        seen = [replace(fitted, lengths=own), *(self._fit_view(view, replace(fitted, lengths=own)) for view in views)]
        return [one.lengths or self._measure(one.draft, None) for one in seen]

    def _tree(self, fitted: Fitted[_Draft], change: Change | None) -> PromptTree:
        row = fitted.draft.preference
        return PromptTree(
            **self._prompt(fitted, change),
            response_ids=tuple(torch.tensor(ids) for ids in fitted.draft.encoded["input_ids"]),
            response_weights=self._response_weights(fitted.draft),
            levels=row.levels(),
            margin=row.margin,
            weight=row.weight,
            scores=tuple(math.nan if response.score is None else response.score for response in row.responses),
            numbers=_numbers(row),
            tags=row.tags,
        )

    def prompt(self, prompt: Prompt) -> PromptTree:
        """Tokenise a prompt that waits for an answer, with what the chat template puts before one; a tree without
        responses.

        Raises:
            RowError: as `__call__`; `max_length` then bounds the prompt alone.
        """
        return PromptTree(**self._prompt(self._fit(prompt)), response_ids=(), levels=(), tags=prompt.tags)

    def _prompt(self, fitted: Fitted[_Draft], change: Change | None = None) -> dict[str, Any]:
        """Return the fields of a prompt tree that are about the prompt."""
        prompt, media_key = self._encode_prompt(fitted.draft, fitted.lengths and fitted.lengths.max_pixels, change)
        types = {name: prompt[name][0] for name in ("mm_token_type_ids", "token_type_ids") if name in prompt}
        return {
            "id": fitted.draft.preference.id,
            "prompt_ids": prompt["input_ids"][0],
            "media": {name: prompt[name] for name in self.family.media_inputs if name in prompt},
            "mm_token_type_ids": types.pop("mm_token_type_ids", None),
            "prompt_extra": types,
            "media_key": media_key,
        }

    def answers(self, preference: Preference) -> tuple[Tensor, ...]:
        """Return the tokens of every response, K tensors int64 [R_k], without a look at the media."""
        return tuple(torch.tensor(ids) for ids in self._draft(preference).encoded["input_ids"])

    def lengths(self, preference: Preference) -> TreeLengths:
        """Return the numbers of tokens that `__call__` makes, and what it does to make the row fit; reads only headers.

        Raises:
            RowError: as `__call__`, except for what only decoding finds.
        """
        return self.lengths_of_all(preference)[0]

    def explain(self, preference: Preference) -> dict[str, Any]:
        """Return, ready for JSON, what becomes of a row: texts, tokens with their roles, media, lengths.

        Raises:
            RowError: as `__call__`.
        """
        return explain(self, preference)

    def _make_fitter(self, max_length: int) -> Fitter[_Draft]:
        return Fitter(
            max_length=max_length,
            make_draft=self._draft,
            measure=self._measure,
            largest_pixels=_Draft.largest_pixels,
            smallest_pixels=1 if self._media is None else self._media.smallest_pixels,
        )

    def _draft(self, preference: Preference | Prompt) -> _Draft:
        rendered = self._render(preference)
        if not rendered.responses:
            return _Draft(preference, rendered, {"input_ids": []}, self._media)
        with_offsets = any(response.spans for response in preference.responses)
        if with_offsets and not self.tokenizer.is_fast:
            raise ModelError("spans need a tokenizer that knows character offsets, and this model's does not")
        encoded = self.tokenizer(
            list(rendered.responses), add_special_tokens=False, return_offsets_mapping=with_offsets
        )
        for k, ids in enumerate(encoded["input_ids"]):
            if not ids:
                raise RowError("response is empty", field=f"responses[{k}]", hint="it has not a single token")
        return _Draft(preference, rendered, encoded, self._media)

    def _fit(self, preference: Preference | Prompt) -> Fitted[_Draft]:
        """Return the row as it is going to be tokenised; unmeasured when nothing bounds it."""
        draft = self._draft(preference)
        return Fitted(draft, None) if self._fitter is None else self._fitter(preference, draft)

    def _fit_view(self, view: View, fitted: Fitted[_Draft]) -> Fitted[_Draft]:
        """Return a row that fits in one of its views: other media as large as they may be, or fewer turns."""
        row = view.row(fitted.draft.preference)
        draft = self._draft(row) if view.forgets else replace(fitted.draft, preference=row)
        if view.keeps_shape:
            return Fitted(draft, fitted.lengths)
        if self._fitter is None:
            return Fitted(draft, None)
        lengths = self._fitter.largest_fit(draft)
        if lengths is None:
            hint = f"data.max_length is {self.max_length}; raise it, or make the other media smaller"
            raise RowError("row with its other media is too long", field="media", value=view.name, hint=hint)
        return Fitted(draft, lengths)

    def _measure(self, draft: _Draft, max_pixels: int | None) -> TreeLengths:
        """Return the lengths of a draft with its media shrunk to `max_pixels` (None: as configured)."""
        text = draft.rendered.prompt
        if draft.preference.media:
            counted = count_prompt(self.processor, text, self._media.arriving(draft.shapes, max_pixels))
        else:
            counted = PromptCount(len(self.tokenizer(text, add_special_tokens=False)["input_ids"]), 0)
        return TreeLengths(
            **counted._asdict(),
            response_tokens=tuple(len(ids) for ids in draft.encoded["input_ids"]),
            max_pixels=max_pixels,
        )

    def _encode_prompt(
        self, draft: _Draft, max_pixels: int | None, change: Change | None
    ) -> tuple[Mapping[str, Tensor], str | None]:
        """Return what the processor makes of prompt and media, with a leading dimension of 1, and the media's key."""
        row, media, pictures = draft.preference, LoadedMedia(), {}
        if row.media:
            media, pictures = self._media.load(row, max_pixels, change), self._media.pictures.arguments(max_pixels)
        try:
            if media.frames:
                return assemble(self.processor, self.family, draft.rendered.prompt, media, pictures), media.key
            how = {"images": [list(media.pictures)], **pictures} if row.media else {}
            text = {"text": [draft.rendered.prompt], "add_special_tokens": False, "return_tensors": "pt"}
            return self.processor(**text, **how), media.key
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            sizes = [*media.arriving.pictures, *(frames.shape for frames in media.frames)]
            raise RowError("processor refuses the row", field="media", value=sizes, hint=str(error)) from error

    def _response_weights(self, draft: _Draft) -> tuple[Tensor, ...] | None:
        responses = draft.preference.responses
        if not any(response.spans for response in responses):
            return None
        made = zip(responses, draft.rendered.responses, draft.encoded["offset_mapping"], strict=True)
        return tuple(
            token_weights(response, text, offsets, field=f"responses[{k}]")
            for k, (response, text, offsets) in enumerate(made)
        )


def _numbers(row: Preference) -> dict[str, tuple[float, ...]]:
    """Return the named scores of a row's responses, by name."""
    names = dict.fromkeys(name for response in row.responses for name in response.scores)
    return {name: tuple(float(response.scores.get(name, math.nan)) for response in row.responses) for name in names}


def _kinds_read(processor: Any, family: Family) -> frozenset[MediaKind]:
    """Return the kinds of media that reach the model."""
    kinds = {"image"} if getattr(processor, "image_processor", None) is not None else set()
    if family.videos == "none" or getattr(processor, "video_processor", None) is None:
        return frozenset(kinds)
    if counts_videos(processor):
        return frozenset({*kinds, "video"})
    name = type(processor).__name__
    logger.warning("rows with videos are refused: how %s counts them is not in engine/media_tokens.py", name)
    return frozenset(kinds)
