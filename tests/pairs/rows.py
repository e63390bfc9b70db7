"""Ranked rows of several modalities."""

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response

IMAGE = MediaRef(kind="image", uri="a.png")
CLIP = MediaRef(kind="video", uri="walk.mp4", span_s=(1.0, 2.5))
FRAMES = MediaRef(kind="video", frames=("f/1.jpg", "f/2.jpg"))


def ranked(*scores: float | None, media: tuple[MediaRef, ...] = (), **facts) -> Preference:
    """Responses "a", "b", ... with these scores, best first, to a prompt that names all media before its question."""
    responses = facts.pop("responses", None) or tuple(
        Response.of("abcdefgh"[k], score=score) for k, score in enumerate(scores)
    )
    prompt = facts.pop("prompt", (Message.of("user", *range(len(media)), "Which?"),))
    return Preference(id=facts.pop("id", "row"), prompt=prompt, media=media, responses=responses, **facts)


def texts(row: Preference) -> str:
    """The responses, best first."""
    return "".join(response.text for response in row.responses)
