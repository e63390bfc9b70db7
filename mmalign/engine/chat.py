"""Rendering: a preference as the text that a model's own chat template makes of it.

The rule is TRL's, so that log-probs are comparable: the prompt is rendered with its generation prompt, each
conversation (prompt + response) as a whole; the prompt text is what ALL of these renderings begin with, and a response
text is what its rendering adds to that. Nothing is put after an answer that the template does not put there.

Base models have no template: their prompt is the text of its one turn after the model's own beginning of text, and the
response ends with the end-of-text token.
"""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from typing import Any

from mmalign.engine.arriving import field_of
from mmalign.engine.families import families_with_videos
from mmalign.errors import RowError
from mmalign.formats.media import MediaKind, MediaRef
from mmalign.formats.message import MediaPart, Message
from mmalign.formats.preference import Preference
from mmalign.modalities import text as text_modality
from mmalign.modalities.fetch import shown
from mmalign.modalities.table import MODALITIES

LONGEST_ROW_CHARACTERS = 2_000_000
"""Some 500,000 tokens. A longer row is a file by mistake: its tokens alone would take gigabytes and minutes."""


@dataclass(frozen=True)
class Rendered:
    """A preference as text.

    Args:
        prompt: begins every branch; media are single placeholders.
        responses: what each branch adds.
    """

    prompt: str
    responses: tuple[str, ...]


class ChatRenderer:
    """Renders preferences for one model.

    Args:
        processor: a transformers processor, or the tokenizer of a text-only model.
        reads: kinds of media that reach the model, none for a text-only model.
    """

    def __init__(self, processor: Any, *, reads: frozenset[MediaKind]) -> None:
        self._processor, self._reads = processor, reads
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._template = getattr(processor, "chat_template", None) or self._tokenizer.chat_template
        self.placeholders = _placeholders(processor) if reads else ()

    def __call__(self, preference: Preference) -> Rendered:
        """Render a preference.

        Raises:
            RowError: the row has media of a kind that the model does not read, a text holds a media token of the model
                or is not Unicode, the texts are beyond `LONGEST_ROW_CHARACTERS`, or the chat template refuses the
                turns.
        """
        self._require_readable(preference)
        if self._template is None:
            rendered = self._without_template(preference)
        else:
            rendered = self._with_template(preference)
        for kind in self._reads:
            number = sum(ref.kind == kind for ref in preference.media)
            _require_all(rendered, kind, getattr(self._processor, f"{kind}_token"), number)
        return rendered

    def _with_template(self, preference: Preference) -> Rendered:
        turns = self._turns(preference.prompt, preference.media)
        last_role = preference.prompt[-1].role
        if last_role == "system":
            raise RowError("prompt ends with a system turn", field="prompt", hint="let a user turn end it")
        goes_on = last_role == "assistant"
        prompt = self._apply(turns, continue_final_message=goes_on, add_generation_prompt=not goes_on)
        branches = [
            self._apply(turns + self._turns(response.messages, preference.media)) for response in preference.responses
        ]
        prompt = os.path.commonprefix([prompt, *branches])
        return Rendered(prompt, tuple(branch[len(prompt) :] for branch in branches))

    def _without_template(self, preference: Preference) -> Rendered:
        """Render for a base model: the words of one turn, then the words of the answer and the end of text."""
        if len(preference.prompt) > 1 or any(len(response.messages) > 1 for response in preference.responses):
            raise RowError(
                "model has no chat template for several turns",
                field="prompt",
                value=[message.role for message in preference.prompt],
                hint="put a chat_template.jinja into the model directory, or use rows of one turn",
            )
        begin = self._tokenizer.bos_token if _begins_with_bos(self._tokenizer) else ""
        image = getattr(self._processor, "image_token", "")
        parts = (image if isinstance(part, MediaPart) else part.text for part in preference.prompt[0].parts)
        end = self._tokenizer.eos_token or ""
        answers = (response.text for response in preference.responses)
        return Rendered(begin + "".join(parts), tuple(a if end and a.endswith(end) else a + end for a in answers))

    def _turns(self, messages: tuple[Message, ...], media: tuple[MediaRef, ...]) -> list[dict[str, Any]]:
        """Return turns as templates of this model read them: lists of parts with media, plain strings without."""
        if not self._reads:
            return [{"role": message.role, "content": message.text} for message in messages]
        return [{"role": message.role, "content": [_content(p, media) for p in message.parts]} for message in messages]

    def _apply(self, turns: list[dict[str, Any]], **how: bool) -> str:
        try:
            return self._processor.apply_chat_template(turns, chat_template=self._template, tokenize=False, **how)
        except Exception as error:  # templates raise by raise_exception, by a missing key, by a type: all are theirs
            raise RowError(
                "chat template refuses the conversation",
                field="prompt",
                value=[turn["role"] for turn in turns],
                hint=str(error) or type(error).__name__,
            ) from error

    def _require_readable(self, preference: Preference) -> None:
        for i, ref in enumerate(preference.media):
            self._require_read(field_of(preference, i), ref)
        _require_bounded(preference)
        self._require_plain_text("prompt", preference.prompt)
        for k, response in enumerate(preference.responses):
            self._require_plain_text(f"responses[{k}]", response.messages)
            if any(message.media_indices for message in response.messages):
                raise RowError("media can stand in the prompt only", field=f"responses[{k}]")

    def _require_read(self, field: str, ref: MediaRef) -> None:
        if ref.kind in self._reads:
            return
        if not self._reads:
            reason = f"model reads text only, but the row has {ref.kind}s"
            hint = f"use a vision-language model with its processor, or rows without {ref.kind}s"
        else:
            reason = f"model reads no {ref.kind}s"
            hint = f"leave out rows with {ref.kind}s"
            if ref.kind == "video":
                known = ", ".join(families_with_videos())
                hint = f"use a model of a family that does ({known}), or give some frames of it as images"
        raise RowError(reason, field=field, value=shown(ref), hint=hint)

    def _require_plain_text(self, field: str, messages: tuple[Message, ...]) -> None:
        for message in messages:
            words = message.text
            text_modality.check(words, field=field)
            for token in self.placeholders:
                if token in words:
                    raise RowError(
                        "text holds a media token of the model",
                        field=field,
                        value=token,
                        hint="media are named by placeholders of the record, not by text; write the word differently",
                    )


def _require_bounded(preference: Preference) -> None:
    turns = (*preference.prompt, *(turn for response in preference.responses for turn in response.messages))
    characters = sum(len(message.text) for message in turns)
    if characters > LONGEST_ROW_CHARACTERS:
        hint = f"at most {LONGEST_ROW_CHARACTERS:,} characters are tokenised; split the row"
        raise RowError("row has too much text", field="prompt", value=characters, hint=hint)


def _content(part: Any, media: tuple[MediaRef, ...]) -> dict[str, Any]:
    if isinstance(part, MediaPart):
        ref = media[part.index]
        return MODALITIES[ref.kind].messages(ref)
    return text_modality.messages(part.text)


def _placeholders(processor: Any) -> tuple[str, ...]:
    """Return the texts that become media tokens, of the processor and of its tokenizer (Gemma 3 uses one of each)."""
    names = ("image_token", "video_token", "audio_token")
    sources = (processor, getattr(processor, "tokenizer", None))
    found = (getattr(source, name, None) for source in sources for name in names)
    return tuple(dict.fromkeys(token for token in found if isinstance(token, str) and token))


def _begins_with_bos(tokenizer: Any) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def _require_all(rendered: Rendered, kind: MediaKind, token: str, number: int) -> None:
    found = rendered.prompt.count(token)
    if found != number or any(token in response for response in rendered.responses):
        raise RowError(
            f"chat template puts {found} {kind}(s) into the part that all responses share, the row has {number}",
            field="prompt",
            hint=f"the template drops or moves {kind}s; see the model's chat_template",
        )
