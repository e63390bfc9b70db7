"""Preferences for tests of the store: one that says everything, and a strategy that makes any."""

import io
import json
import string

from hypothesis import strategies as st
from PIL import Image

from mmalign.formats.media import MediaRef
from mmalign.formats.message import MediaPart, Message, TextPart
from mmalign.formats.preference import Preference, Response, Span


def png(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (29, 31)) -> bytes:
    """The bytes of a small picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def pair(k: int, *media: MediaRef, **facts) -> Preference:
    """A pair whose prompt names every medium before its question."""
    return Preference(
        id=f"row-{k}",
        prompt=(Message.of("user", *range(len(media)), f"What is number {k}?"),),
        media=media,
        responses=facts.pop("responses", (Response.of("A kettle."), Response.of("A fridge."))),
        **facts,
    )


EVERYTHING = Preference(
    id="everything",
    prompt=(
        Message.of("system", "Be exact."),
        Message.of("user", "Compare", 1, "with", 0, "\nplease \u00e9\u4f60\U0001f642\u2028"),
        Message.of("assistant", "One moment."),
        Message.of("user", 2),
    ),
    media=(
        MediaRef(kind="image", uri="a/b.jpg", sha256="ab" * 32),
        MediaRef(kind="image", content=png()),
        MediaRef(kind="video", uri="clip.mp4", frame_indices=(0, 7, 11)),
    ),
    responses=(
        Response.of("best", score=3.5, scores={"helpful": 4.0, "true": 1.0}, model="m-7b", annotator="anna"),
        Response(
            messages=(Message.of("assistant", "look"), Message.of("tool", "42"), Message.of("assistant", "it is 42")),
            score=2.0,
            critique="too long",
        ),
        Response.of(
            "a wrong thing", score=2.0, spans=(Span(start=2, end=7, weight=0.0), Span(start=8, end=13, weight=2.5))
        ),
        Response.of(
            "worst",
            score=-1.0,
            media=(
                MediaRef(kind="image", content=png((0, 0, 9)), sha256="cd" * 32),
                MediaRef(kind="image", uri="blurred.jpg"),
                MediaRef(kind="video", frames=("other/2.jpg", "other/10.jpg"), span_s=(1.0, 2.0)),
            ),
        ),
    ),
    ties=((1, 2),),
    margin=4.5,
    weight=0.25,
    difficulty=7.0,
    tags={"room": "kitchen", "split\n": "\u00fc"},
    provenance={"source": "trl", "file": "x.jsonl", "row": "3"},
)

_numbers = st.floats(allow_nan=False, allow_infinity=False)
_texts = st.text(st.characters(codec="utf-8"), max_size=12)
_names = st.text(string.ascii_letters + "_. ", min_size=1, max_size=6)
_maps = st.dictionaries(_names, _texts, max_size=2)


def _json_text(value) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@st.composite
def media_refs(draw, kind: str | None = None) -> MediaRef:
    kind = kind or draw(st.sampled_from(["image", "video", "layout", "sound"]))
    more = {"video": ["frames"], "layout": ["json"]}.get(kind, [])
    form = draw(st.sampled_from(["uri", "content", *more]))
    paths = _names.map(lambda name: f"m/{name}")
    forms = {
        "uri": paths,
        "content": st.binary(min_size=1, max_size=9),
        "frames": st.lists(paths, min_size=1).map(tuple),
        "json": (st.dictionaries(_names, _numbers, max_size=2) | st.lists(_texts, max_size=2)).map(_json_text),
    }
    where = {"content" if form == "json" else form: draw(forms[form])}
    span_s = draw(st.none() | st.tuples(st.floats(0, 5), st.floats(6, 9)))
    frames = None if span_s else draw(st.none() | st.lists(st.integers(0, 99), max_size=3).map(tuple))
    sha256 = None if form == "frames" else draw(st.none() | _names)
    return MediaRef(kind=kind, sha256=sha256, span_s=span_s, frame_indices=frames, **where)


@st.composite
def prompts(draw, media_count: int) -> tuple[Message, ...]:
    places = [MediaPart(index=index) for index in draw(st.permutations(range(media_count)))]
    texts = [TextPart(text=text) for text in draw(st.lists(_texts, min_size=1, max_size=4))]
    parts = draw(st.permutations([*places, *texts]))
    cut = draw(st.integers(0, len(parts)))
    roles = draw(st.tuples(st.sampled_from(["system", "user"]), st.sampled_from(["user", "assistant", "tool"])))
    return tuple(
        Message(role=role, parts=tuple(said)) for role, said in zip(roles, (parts[:cut], parts[cut:]), strict=True)
    )


@st.composite
def responses(draw, score: float | None, kinds: list[str]) -> Response:
    span = st.builds(lambda start, length, weight: Span(start=start, end=start + length, weight=weight),
                     st.integers(0, 9), st.integers(1, 9), _numbers)  # fmt: skip
    said = draw(st.lists(_texts, min_size=1, max_size=2))
    media = tuple(draw(media_refs(kind)) for kind in kinds)
    return Response(
        messages=tuple(Message.of("assistant", text) for text in said),
        score=score,
        scores=draw(st.dictionaries(_names, _numbers, max_size=2)),
        critique=draw(st.none() | _texts),
        spans=tuple(draw(st.lists(span, max_size=2))),
        media=draw(st.sampled_from([None, media])) if media else None,
        model=draw(st.none() | _names),
        annotator=draw(st.none() | _names),
    )


@st.composite
def preferences(draw) -> Preference:
    """Any preference with 1, 2, 3 or 5 responses, in which every field may say something."""
    media = tuple(draw(st.lists(media_refs(), max_size=3)))
    count = draw(st.sampled_from([1, 2, 3, 5]))
    scores = draw(st.none() | st.lists(_numbers, min_size=count, max_size=count).map(lambda s: sorted(s, reverse=True)))
    start = draw(st.integers(0, count - 1))
    end = draw(st.integers(start + 1, count))
    return Preference(
        id=draw(_names),
        prompt=draw(prompts(len(media))),
        media=media,
        responses=tuple(
            draw(responses(scores[k] if scores else None, [ref.kind for ref in media])) for k in range(count)
        ),
        ties=(tuple(range(start, end)),) if end - start > 1 else (),
        label=draw(st.sampled_from([None, True, False])) if count == 1 else None,
        margin=draw(st.none() | _numbers),
        weight=draw(st.just(1.0) | st.floats(0, 1e6)),
        difficulty=draw(st.none() | _numbers),
        tags=draw(_maps),
        provenance=draw(_maps),
    )
