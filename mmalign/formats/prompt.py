"""A prompt without answers: what a model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response, require_media_match
from mmalign.formats.values import require_text, require_texts


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Turns that wait for an answer, and their media.

    It reads like a `Preference` that has no responses, so that one renderer serves both.

    Args:
        id: unique within its data set; the draws of its answers depend on it.
        prompt: the turns before the answer.
        media: every medium of the prompt; `MediaPart.index` points here.
        tags, provenance: as in `Preference`.
    """

    id: str
    prompt: tuple[Message, ...]
    media: tuple[MediaRef, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompt:
            raise RowError("prompt has no message", field="prompt")
        require_text(self.id, "id")
        require_texts(self.tags, "tags")
        require_texts(self.provenance, "provenance")
        require_media_match(self.prompt, self.media)

    @property
    def responses(self) -> tuple[Response, ...]:
        """None yet."""
        return ()

    @classmethod
    def of(cls, row: Preference | Prompt) -> Prompt:
        """Return the prompt of a row; its responses stay behind."""
        if isinstance(row, Prompt):
            return row
        return cls(id=row.id, prompt=row.prompt, media=row.media, tags=row.tags, provenance=row.provenance)

    @classmethod
    def ask(cls, text: str, *media: MediaRef, id: str) -> Prompt:
        """Build a prompt of one user turn that shows the media and then asks."""
        return cls(id=id, prompt=(Message.of("user", *range(len(media)), text),), media=media)

    def answered(self, responses: tuple[Response, ...], provenance: Mapping[str, str]) -> Preference:
        """Return the row with these responses, which nobody has compared: all of them are tied."""
        return Preference(
            id=self.id,
            prompt=self.prompt,
            media=self.media,
            responses=responses,
            ties=(tuple(range(len(responses))),) if len(responses) > 1 else (),
            tags=self.tags,
            provenance={**self.provenance, **provenance},
        )
