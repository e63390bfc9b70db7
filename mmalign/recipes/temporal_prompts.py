"""What the model is asked of a video, and what is kept of its answers. Ideas of TEMPLE (2503.16929), our words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmalign.formats.media import MediaRef
from mmalign.formats.prompt import Prompt
from mmalign.pairs.draws import draws_of

_FIRST = (
    "Describe this video in detail: who and what can be seen, where it is, and what happens. Answer with the "
    "description alone."
)
_NEXT = (
    "These are two clips of one video, one after the other: video clip 1, then video clip 2. Write three lines. On the "
    "first, describe video clip 2. On the second, say how it goes on from video clip 1. On the third, write a detailed "
    "caption of video clip 2, which begins with the word Caption and a colon."
)
_WHOLE = (
    "Here is a list of captions. Each describes a clip of one video, and they stand in the order of the clips. Write "
    "one paragraph that describes the whole video in detail and in this order, as if you had seen it. Let it read "
    "well, say nothing twice, keep the details, and do not speak of clips or captions. Answer with the paragraph alone."
)
REQUESTS = (
    "Describe this video in detail.",
    "What happens in this video? Give a detailed account in the order of events.",
    "Tell what this video shows from beginning to end, in detail.",
    "Give a detailed timeline of this video in one paragraph.",
    "Describe how this video unfolds, step by step and with its details.",
    "Write a detailed description of the events of this video in chronological order.",
)
"""What a person asks of a whole video; one is drawn for each video."""

_THINKING = "</think>"
_LABEL = re.compile(r"^(?:\W*(?:detailed\s+)?captions?(?:\s+of)?(?:\s+(?:video\s+)?clip\s*2)?\s*:)", re.IGNORECASE)


def of_clip(id: str, video: str, frames: Sequence[Sequence[int]]) -> Prompt:
    """Ask for the caption of a clip, beside the clip before it where there is one.

    Args:
        id: of the prompt.
        video: path below the data root.
        frames: numbers of the frames of the clip before, if any, and of the clip.
    """
    seen = [MediaRef(kind="video", uri=video, frame_indices=tuple(indices)) for indices in frames]
    return Prompt.ask(_FIRST if len(seen) == 1 else _NEXT, *seen, id=id)


def of_captions(id: str, captions: Sequence[str]) -> Prompt:
    """Ask for the description of a whole video, as a list of captions tells it."""
    lines = [f"- Caption {number}: {caption}" for number, caption in enumerate(captions, 1)]
    return Prompt.ask("\n".join((_WHOLE, "", *lines)), id=id)


def of_frames(id: str, video: str, frames: Sequence[int], request: str) -> Prompt:
    """Ask for the description of a whole video, as some of its frames, in this order, tell it."""
    return Prompt.ask(request, MediaRef(kind="video", uri=video, frame_indices=tuple(frames)), id=id)


def request_of(video: str, seed: int) -> str:
    """Draw what is asked of a video."""
    return REQUESTS[draws_of(seed, video).randint(len(REQUESTS))]


def after_thinking(answer: str) -> str:
    """Return what a model says once it has thought."""
    return answer.rpartition(_THINKING)[2].strip()


def caption_in(answer: str, *, is_first: bool) -> str:
    """Return the caption in an answer to `of_clip`, as one line: of a clip behind another, the last line.

    Labels, bold marks and quotes are taken off; the clips are called as somebody would who knows no numbers.
    """
    said = after_thinking(answer)
    if is_first:
        return " ".join(said.split())
    line = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    line = _LABEL.sub("", line.replace("**", "").strip()).strip().strip("\"'“”").strip()
    for number, name in (("1", "the previous clip"), ("2", "this video clip")):
        line = re.sub(rf"video clip {number}\b", name, line, flags=re.IGNORECASE)
    return " ".join(line.split())
