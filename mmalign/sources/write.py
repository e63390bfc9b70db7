"""Preferences -> rows that other tools read: TRL, LLaMA-Factory (sharegpt), ms-swift, and our own.

What a format cannot say is either lost, and counted by name, or, where leaving it out would change what the row means,
a reason to refuse the row. What is written reads back through `mmalign.sources` as the same record, save what is lost.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmalign.errors import DataError, RowError
from mmalign.formats.columns import to_columns
from mmalign.formats.media import MediaRef
from mmalign.formats.message import MediaPart, Message
from mmalign.formats.preference import Preference, Response
from mmalign.formats.store import completed, json_line, mime_type, write_jsonl, write_parquet
from mmalign.sources.media_columns import TAG_OF

_RESPONSE_FACTS = ("score", "scores", "critique", "spans", "model", "annotator")
_ENDINGS = {
    "image/jpeg": "jpeg",
    "image/png": "png",
    "image/gif": "gif",
    "image/bmp": "bmp",
    "image/webp": "webp",
    "image/avif": "avif",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/x-msvideo": "avi",
    "video/x-matroska": "mkv",
}
_SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


class Target(NamedTuple):
    """One format to write: the file endings it may have, and what of a record it can say beside the answers.

    Args:
        says: names of facts.
        tags: texts that stand for something else, and for what.
        says_response_media: whether a rejected answer may have seen other media.
        says_frames: whether a video may be a list of frame files.
    """

    endings: tuple[str, ...]
    says: frozenset[str]
    tags: Mapping[str, str]
    says_response_media: bool
    says_frames: bool


_MEDIA_TAGS = {TAG_OF["image"]: "a picture", TAG_OF["video"]: "a video", "<audio>": "a sound"}
_SWIFT_TAGS = _MEDIA_TAGS | {"<bbox>": "a box", "<ref-object>": "an object"}
TARGETS: dict[str, Target] = {
    "mmalign": Target((".jsonl", ".parquet"), frozenset(), {}, says_response_media=True, says_frames=True),
    "trl": Target((".jsonl", ".parquet"), frozenset({"margin"}), {}, says_response_media=False, says_frames=False),
    "sharegpt": Target((".json", ".jsonl"), frozenset(), _MEDIA_TAGS, says_response_media=False, says_frames=True),
    "swift": Target(
        (".jsonl", ".json"), frozenset({"margin"}), _SWIFT_TAGS, says_response_media=True, says_frames=False
    ),
}


def target_for(name: str, out: Path) -> Target:
    """Return the format called `name`, once it is known that `out` may hold it.

    Raises:
        DataError: there is no such format, or it is never in a file with this ending.
    """
    if name not in TARGETS:
        raise DataError(f"cannot write the format {name!r}; known are {', '.join(TARGETS)}")
    target = TARGETS[name]
    if out.suffix not in target.endings:
        raise DataError(f"rows of the format {name} go into {' or '.join(target.endings)}, not {out.name!r}")
    return target


def write(
    out: str | Path, preferences: Iterable[Preference], to: str, on_refused: Callable[[Preference, RowError], None]
) -> tuple[int, Counter[str]]:
    """Write preferences in the format `to`, streaming; return the number of rows and what was lost, by name.

    Media paths stay as they are. Encoded bytes become `data:` URIs in JSONL of ours and of TRL, stay bytes in Parquet,
    and become files in a folder beside `out` for sharegpt and ms-swift.

    Raises:
        DataError: the format or the ending is unknown, or the file cannot be written.
    """
    out = Path(out)
    target_for(to, out)
    lost: Counter[str] = Counter()
    sayable = _sayable(preferences, to, lost, on_refused)
    if to in ("sharegpt", "swift"):
        make = to_sharegpt if to == "sharegpt" else to_swift
        save = _MediaFolder(out.with_name(f"{out.stem}_media"))
        return _write_json(out, (make(preference, save) for preference in sayable)), lost
    columns = to_columns if to == "mmalign" else to_trl
    writer = write_parquet if out.suffix == ".parquet" else write_jsonl
    return writer(out, sayable, columns=columns), lost


def to_trl(preference: Preference) -> dict[str, Any]:
    """Return TRL's conversational row: prompt, chosen, rejected, media; prompt and completion for one answer.

    An answer that was judged by itself makes an unpaired row, with its label.

    TRL 1.16 reads images alone; `videos` stand as `datasets` knows them.
    """
    row = to_columns(preference)
    if "chosen" in row and len(preference.responses) == 1:
        row["completion"] = row.pop("chosen")
    names = ("id", "prompt", "images", "videos", "chosen", "rejected", "completion", "label", "margin")
    return {name: row[name] for name in names if name in row}


def to_sharegpt(preference: Preference, save: Callable[[MediaRef], Any]) -> dict[str, Any]:
    """Return LLaMA-Factory's sharegpt row; one answer makes a demonstration, or a row of KTO where it was judged."""
    turns = [_turn(message, preference.media, "from", "value", _SHAREGPT_ROLES) for message in preference.prompt]
    answers = [_turn(_only_turn(preference, k), (), "from", "value", _SHAREGPT_ROLES) for k in _ends(preference)]
    row: dict[str, Any] = {"id": preference.id, "conversations": turns}
    if len(answers) == 1:
        row["conversations"] = [*turns, *answers]
    else:
        row |= {"chosen": answers[0], "rejected": answers[1]}
    if preference.label is not None:
        row["kto_tag"] = preference.label
    return row | _media_columns("", preference, preference.media, save)


def to_swift(preference: Preference, save: Callable[[MediaRef], Any]) -> dict[str, Any]:
    """Return ms-swift's row; all answers worse than the best become `rejected_response`.

    An answer that was judged by itself makes a row of KTO, with its label.
    """
    turns = [
        _turn(message, preference.media, "role", "content")
        for message in (*preference.prompt, _only_turn(preference, 0))
    ]
    row: dict[str, Any] = {"id": preference.id, "messages": turns}
    row |= _media_columns("", preference, preference.media, save)
    if preference.label is not None:
        row["label"] = preference.label
    worse = _worse_than_the_first(preference)
    texts = [_only_turn(preference, k).text for k in worse]
    if texts:
        row["rejected_response"] = texts[0] if len(texts) == 1 else texts
        row |= _media_columns("rejected_", preference, preference.responses[worse[0]].media or (), save)
    if preference.margin is not None:
        row["margin"] = preference.margin
    return row


# ---- what a format cannot say ---------------------------------------------------------------------------------------


def _sayable(
    preferences: Iterable[Preference], to: str, lost: Counter[str], on_refused: Callable[[Preference, RowError], None]
) -> Iterator[Preference]:
    """Yield the rows that the format can hold, counting what each loses in it."""
    for preference in preferences:
        try:
            if to != "mmalign":
                _require_sayable(preference, to)
                lost.update(_losses(preference, to))
        except RowError as error:
            on_refused(preference, error)
        else:
            yield preference


def _require_sayable(preference: Preference, to: str) -> None:
    """Refuse a row that would mean something else in the other format.

    Raises:
        RowError: a tie would become a preference, a text holds a tag, an answer has several turns or saw media of its
            own, or a video is a clip, some frames of a file, or a list of frames.
    """
    levels = preference.levels()
    if len(levels) > 1 and levels[-1] == 0:
        raise RowError(f"{to} cannot say that answers are equally good", field="ties", value=preference.ties)
    own = [k for k, response in enumerate(preference.responses) if response.media is not None]
    worse = _worse_than_the_first(preference)
    if own and not (TARGETS[to].says_response_media and own == worse and len(worse) == 1):
        raise RowError(f"{to} cannot say that this answer saw other media", field=f"responses[{own[0]}].media")
    for ref in (*preference.media, *(ref for response in preference.responses for ref in response.media or ())):
        _require_sayable_medium(ref, to)
    if to == "trl":
        return
    for k in range(len(preference.responses)):
        _only_turn(preference, k)
    for message in (*preference.prompt, *(turn for response in preference.responses for turn in response.messages)):
        for tag, meaning in TARGETS[to].tags.items():
            if tag in message.text:
                reason = f"{to} takes {tag} in a text for {meaning}"
                raise RowError(reason, field=message.role, value=message.text)


def _require_sayable_medium(ref: MediaRef, to: str) -> None:
    """Refuse a kind of media that the other format does not know, and a video of which it would show more, or nothing.

    Raises:
        RowError: it would.
    """
    if ref.kind not in TAG_OF:
        raise RowError(f"{to} cannot hold this kind of media", field="media", value=ref.kind)
    if ref.kind == "video" and (ref.span_s is not None or ref.frame_indices is not None):
        part = ref.span_s if ref.span_s is not None else ref.frame_indices
        raise RowError(f"{to} cannot say that a part of the video is meant", field="videos", value=part)
    if ref.frames is not None and not TARGETS[to].says_frames:
        raise RowError(f"{to} cannot say that a video is a list of frames", field="videos", value=ref.frames)


def _losses(preference: Preference, to: str) -> Iterator[str]:
    """Name what the row says and the format cannot."""
    said = {
        "margin": preference.margin is not None,
        "weight": preference.weight != 1.0,
        "difficulty": preference.difficulty is not None,
        "tags": bool(preference.tags),
        # Where a row was read says every format's reader anew; what else is known of its origin is lost.
        "provenance": not set(preference.provenance) <= {"source", "file", "row"},
    }
    yield from (name for name, is_said in said.items() if is_said and name not in TARGETS[to].says)
    for name in _RESPONSE_FACTS:
        if any(getattr(response, name) not in (None, (), {}) for response in preference.responses):
            yield f"{name} of answers"
    if any(ref.span_s or ref.frame_indices or ref.sha256 for ref in preference.media):
        yield "hashes of media, or parts of pictures"
    yield from _lost_order(preference.levels(), to)


def _lost_order(levels: tuple[int, ...], to: str) -> Iterator[str]:
    """Name what the format cannot say of the order: ms-swift has one best answer, the others have one pair."""
    if levels.count(0) > 1:
        yield "answers as good as the best"
    if to == "swift":
        if len(set(levels) - {0}) > 1:
            yield "order among the rejected"
        return
    if levels[-1] > 1:
        yield "answers between the best and the worst"
    if levels[-1] > 0 and levels.count(levels[-1]) > 1:
        yield "answers as bad as the worst"


def _ends(preference: Preference) -> tuple[int, ...]:
    return (0,) if len(preference.responses) == 1 else (0, preference.worst())


def _worse_than_the_first(preference: Preference) -> list[int]:
    levels = preference.levels()
    return [k for k, level in enumerate(levels) if level > levels[0]]


def _only_turn(preference: Preference, k: int) -> Message:
    response: Response = preference.responses[k]
    if len(response.messages) > 1:
        raise RowError("answer has several turns", field=f"responses[{k}]", value=len(response.messages))
    return response.messages[0]


# ---- turns, pictures, files -----------------------------------------------------------------------------------------


def _turn(
    message: Message, media: tuple[MediaRef, ...], role_key: str, text_key: str, roles: dict[str, str] | None = None
) -> dict[str, str]:
    said = [TAG_OF[media[part.index].kind] if isinstance(part, MediaPart) else part.text for part in message.parts]
    return {role_key: roles[message.role] if roles else message.role, text_key: "".join(said)}


def _media_columns(
    prefix: str, preference: Preference, media: tuple[MediaRef, ...], save: Callable[[MediaRef], Any]
) -> dict[str, list[Any]]:
    """Return a column of paths for each kind of media that there is, in the order of the placeholders."""
    ordered = [media[index] for message in preference.prompt for index in message.media_indices] if media else []
    columns = {f"{prefix}{kind}s": [save(ref) for ref in ordered if ref.kind == kind] for kind in TAG_OF}
    return {name: paths for name, paths in columns.items() if paths}


class _MediaFolder:
    """Gives every medium a path: its own, those of its frames, or that of a file made from its bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, ref: MediaRef) -> str | list[str]:
        if ref.frames is not None:
            return list(ref.frames)
        if ref.content is None:
            return ref.uri
        ending = _ENDINGS.get(mime_type(ref.content), "bin")
        path = self.folder / f"{hashlib.sha256(ref.content).hexdigest()[:20]}.{ending}"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(ref.content)
        return f"{self.folder.name}/{path.name}"


def _write_json(out: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as lines (.jsonl) or as one array with a row a line (.json)."""
    is_array, count = out.suffix == ".json", 0
    with completed(out) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write("[\n" if is_array else "")
        for row in rows:
            file.write((",\n" if is_array and count else "") + json_line(row) + ("" if is_array else "\n"))
            count += 1
        file.write("\n]\n" if is_array else "")
    return count
