"""A prompt as a chat-completions request: pictures and frames of videos inlined as `data:` URIs, within a cap."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mmalign.errors import RowError
from mmalign.formats.media import MediaKind, MediaRef
from mmalign.formats.message import MediaPart, Message
from mmalign.formats.prompt import Prompt
from mmalign.generate.sampling import Sampling
from mmalign.modalities import image, video
from mmalign.modalities.fetch import MediaLimits

_JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class RequestForm:
    """What is the same in every request.

    Args:
        model: name that the server knows.
        max_request_bytes: a longer request is not sent.
        length_name: how the server calls the bound on new tokens.
        logprobs: ask for the log-prob of every token.
    """

    model: str
    max_request_bytes: int = 20 * 10**6
    length_name: str = "max_tokens"
    logprobs: bool = False


def turns_of(prompt: Prompt, limits: Mapping[MediaKind, MediaLimits]) -> list[dict[str, Any]]:
    """Return the turns of a prompt in OpenAI's form; a video is its frames, one picture after the other.

    Raises:
        RowError: a medium cannot be read.
    """
    fields = _fields(prompt)
    return [_turn(message, prompt.media, fields, limits) for message in prompt.prompt]


def request_of(turns: Sequence[dict[str, Any]], form: RequestForm, sampling: Sampling, seed: int) -> dict[str, Any]:
    """Return the body of a request for one answer.

    Raises:
        RowError: it is longer than `max_request_bytes`.
    """
    body: dict[str, Any] = {
        "model": form.model,
        "messages": list(turns),
        form.length_name: sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
        "n": 1,
        "stream": False,
    }
    optional = {"top_k": sampling.top_k, "stop": list(sampling.stop), "logprobs": form.logprobs}
    if sampling.repetition_penalty != 1:  # as top_k, no field of OpenAI's own, but of vLLM's and SGLang's
        optional["repetition_penalty"] = sampling.repetition_penalty
    body |= {name: value for name, value in optional.items() if value}
    size = len(encoded(body))
    if size > form.max_request_bytes:
        raise RowError(
            "request is larger than the cap",
            field="media",
            value=size,
            hint=f"server.max_request_mb allows {form.max_request_bytes:,} bytes; lower data.max_pixels, "
            "data.video.max_pixels or data.video.frames",
        )
    return body


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return a request as it is sent."""
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")


def key_of(address: str, body: Mapping[str, Any]) -> str:
    """Return the name of a request by its content: the same question to the same server has the same one."""
    return hashlib.sha256(address.encode("utf-8") + b"\0" + encoded(body)).hexdigest()


def _fields(prompt: Prompt) -> list[str]:
    """Return how each medium of a prompt is called in messages."""
    kinds = [ref.kind for ref in prompt.media]
    return [f"{kind}s[{kinds[:place].count(kind)}]" for place, kind in enumerate(kinds)]


def _turn(
    message: Message, media: Sequence[MediaRef], fields: Sequence[str], limits: Mapping[MediaKind, MediaLimits]
) -> dict[str, Any]:
    if not message.media_indices:
        return {"role": message.role, "content": message.text}
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, MediaPart):
            content += map(_picture, _pictures(media[part.index], limits, fields[part.index]))
        else:
            content.append({"type": "text", "text": part.text})
    return {"role": message.role, "content": content}


def _pictures(ref: MediaRef, limits: Mapping[MediaKind, MediaLimits], field: str) -> list[Image.Image]:
    if ref.kind == "image":
        return [image.load(ref, limits["image"], field=field)]
    if ref.kind == "video":
        return [Image.fromarray(frame) for frame in video.load(ref, limits["video"], field=field).frames]
    hint = "images and videos can be sent to a server"
    raise RowError("kind of media has no place in a request", field=field, value=ref.kind, hint=hint)


def _picture(picture: Image.Image) -> dict[str, Any]:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY)
    address = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": address}}
