"""The one record everything works on: a prompt, its media, and K responses, best first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.values import require_map, require_number, require_position, require_text, require_texts


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of a response's text and the weight of their tokens."""

    start: int
    end: int
    weight: float

    def __post_init__(self) -> None:
        require_position(self.start, "spans.start")
        require_position(self.end, "spans.end")
        if not self.start < self.end:
            raise RowError("span must satisfy 0 <= start < end", field="spans", value=(self.start, self.end))
        require_number(self.weight, "spans.weight")


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """One answer to the prompt and what is known about it.

    Args:
        messages: usually one assistant turn; more when the answer used tools.
        score: overall score, larger is better.
        scores: named scores ("helpfulness": 4.0).
        critique: what an annotator wrote about it.
        spans: characters with a token weight (hallucinated or corrected passages).
        media: media of the prompt as this response saw them, when they differ from the row's (same length and order);
            None means the row's own.
        model: who wrote the response.
        annotator: who judged it.
    """

    messages: tuple[Message, ...]
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    critique: str | None = None
    spans: tuple[Span, ...] = ()
    media: tuple[MediaRef, ...] | None = None
    model: str | None = None
    annotator: str | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            raise RowError("response has no message", field="responses")
        require_map(self.scores, "scores")
        for name in self.scores:
            require_text(name, "scores")
        for name, value in [("score", self.score), *self.scores.items()]:
            if value is not None:
                require_number(value, name)
        for name in ("critique", "model", "annotator"):
            if getattr(self, name) is not None:
                require_text(getattr(self, name), name)

    @classmethod
    def of(cls, text: str, **facts) -> Response:
        """Build a response of one assistant turn."""
        return cls(messages=(Message.of("assistant", text),), **facts)

    @property
    def text(self) -> str:
        """The assistant's words, joined over turns."""
        return "".join(message.text for message in self.messages if message.role == "assistant")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """A prompt, its media and K >= 1 responses, best first.

    K = 1 is a demonstration (SFT), or, with a label, an answer that was judged by itself (KTO).

    Args:
        id: unique within its data set; tables of reference log-probs and reports refer to it.
        prompt: the turns before the answer; the last is not the answer.
        media: every medium of the prompt; `MediaPart.index` points here.
        responses: best first.
        ties: groups of neighbouring positions that are equally good, e.g. ((1, 2),).
        label: how the only response was judged by itself: True good, False bad; None where nobody said. Of several
            responses their order says it.
        margin: how much better the best is than the worst, in the annotator's unit.
        weight: weight of the row in the loss.
        difficulty: set by curricula; larger is harder.
        tags: free labels, used to slice evaluation.
        provenance: where the row comes from: "source", "file", "row", "model", "annotator".
    """

    id: str
    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
    media: tuple[MediaRef, ...] = ()
    ties: tuple[tuple[int, ...], ...] = ()
    label: bool | None = None
    margin: float | None = None
    weight: float = 1.0
    difficulty: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompt:
            raise RowError("prompt has no message", field="prompt")
        if not self.responses:
            raise RowError("row has no response", field="responses")
        require_text(self.id, "id")
        require_texts(self.tags, "tags")
        require_texts(self.provenance, "provenance")
        for name in ("margin", "weight", "difficulty"):
            value = getattr(self, name)
            if value is not None:
                require_number(value, name)
        if self.weight < 0:
            raise RowError("weight must not be negative", field="weight", value=self.weight)
        self._require_media_match()
        self._require_order()
        self._require_label()

    def _require_media_match(self) -> None:
        require_media_match(self.prompt, self.media)
        for k, response in enumerate(self.responses):
            if response.media is not None and len(response.media) != len(self.media):
                raise RowError(
                    f"response has {len(response.media)} media of its own, the row has {len(self.media)}",
                    field=f"responses[{k}].media",
                )
            kinds, own = ([ref.kind for ref in media] for media in (self.media, response.media or self.media))
            if own != kinds:
                reason = "response has media of its own that are of other kinds than the row's"
                raise RowError(reason, field=f"responses[{k}].media", value=own, hint=f"the row has {kinds}")

    def _require_order(self) -> None:
        scores = [response.score for response in self.responses]
        if None not in scores and any(later > sooner for sooner, later in zip(scores, scores[1:], strict=False)):
            raise RowError("responses must stand best first by score", field="responses", value=scores)
        for group in self.ties:
            neighbours = len(group) > 1 and list(group) == list(range(group[0], group[0] + len(group)))
            if not neighbours or group[0] < 0 or group[-1] >= len(self.responses):
                raise RowError("a tie must name neighbouring responses", field="ties", value=group)

    def _require_label(self) -> None:
        if self.label is None:
            return
        if not isinstance(self.label, bool):
            raise RowError("label must be true or false", field="label", value=self.label)
        if len(self.responses) > 1:
            raise RowError(
                "label judges one answer alone, and the row has several",
                field="label",
                value=len(self.responses),
                hint="put the best first (chosen, rejected), or write one row an answer",
            )

    @property
    def chosen(self) -> Response:
        """The best response."""
        return self.responses[0]

    @property
    def rejected(self) -> Response:
        """The worst response; of several that are equally bad, the first."""
        return self.responses[self.worst()]

    def worst(self) -> int:
        """Return the position of the first response of the last level.

        Sets that have two rejected answers name first the one that is near to the chosen one. Where all responses are
        tied it is the second: what stands beside the chosen one is never that one again.
        """
        levels = self.levels()
        return levels.index(levels[-1]) or min(1, len(levels) - 1)

    def levels(self) -> tuple[int, ...]:
        """Return one integer per response: 0 for the best level, equal integers for ties.

        An only response that was judged bad is of level 1: below the good one that nobody wrote.
        """
        if self.label is False:
            return (1,)
        tied_to_previous = {index for group in self.ties for index in group[1:]}
        levels: list[int] = []
        for k in range(len(self.responses)):
            levels.append(0 if k == 0 else levels[-1] + (k not in tied_to_previous))
        return tuple(levels)


def require_media_match(prompt: tuple[Message, ...], media: tuple[MediaRef, ...]) -> None:
    """Refuse a prompt whose placeholders do not name each of its media once.

    Raises:
        RowError: they do not.
    """
    used = [index for message in prompt for index in message.media_indices]
    if sorted(used) != list(range(len(media))):
        raise RowError(
            f"placeholders and media do not match: {len(used)} placeholder(s), {len(media)} medium/media",
            field="prompt",
            value=used,
            hint="every medium must be named by exactly one placeholder of the prompt",
        )
