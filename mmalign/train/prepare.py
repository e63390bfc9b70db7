"""Published rows -> checked rows that any step can open by number (`rows.py`).

Every row is read, its media headers are looked at, its tokens are counted and, where it is too long, its way to fit is
found; what cannot be used goes to quarantine with a reason. Rows stream through: memory does not grow with their number
but for a few bytes a row. A prepared directory appears whole, by renaming, and serves every later start of the run as
long as rows, settings and processor are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmalign.config.media import what_is_seen
from mmalign.config.schema import DataConfig
from mmalign.engine.fingerprint import of_processor, of_settings
from mmalign.engine.tokenise import Tokeniser, TreeLengths
from mmalign.engine.views import View
from mmalign.errors import DataError, RowError
from mmalign.formats.preference import Preference
from mmalign.formats.store import to_line
from mmalign.sources.detect import read
from mmalign.sources.quarantine import Quarantine
from mmalign.train.mismatch import lenders, room_for_answer
from mmalign.train.progress import Counting
from mmalign.train.row_change import RowChange
from mmalign.train.rows import COLUMNS, MediaStore, PreparedRows, with_media

ResponsesRead = Callable[[Sequence[int]], Sequence[int]]

KeptRow = tuple[Preference, Sequence[tuple[TreeLengths, Sequence[int]]]]
"""A row; as it is and in each view, its tokens and the positions of the responses that the objective reads."""

_FORMAT = 3
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What decides which rows are kept and what they become.

    Args:
        config: the recipe's `data` section.
        tokeniser: counts tokens and finds out what does not fit.
        responses_read: levels of a row -> positions of the responses that the objective reads.
        views: in which it reads rows beside their own.
        read_in: a view, levels -> positions that it reads in it.
        require: raises RowError for a row that lacks what the objective reads beside its responses.
        borrows: whether the objective reads, beside each row's responses, one answer to another prompt.
        reads: the objective in words; rows are prepared anew when it changes.
        directory: the run's `data/`.
        quarantine: the run's file of refused rows.
        change: which rows of the split are read, and what they become first.
    """

    config: DataConfig
    tokeniser: Tokeniser
    responses_read: ResponsesRead
    views: tuple[View, ...] = ()
    read_in: Callable[[View, Sequence[int]], Sequence[int]] | None = None
    require: Callable[[Preference], None]
    reads: str
    directory: Path
    quarantine: Path
    borrows: bool = False
    change: RowChange = RowChange()


def prepare(split: str, source: str, how: Preparation, *, writes: bool = True) -> PreparedRows:
    """Return the prepared rows of one split, made now or found from an earlier start.

    Args:
        split: "train" or "eval"; names the directory.
        source: file, folder or hub id.
        how: settings.
        writes: True on the one process that prepares; the others wait until it is done.

    Raises:
        DataError: the rows cannot be read, none is left, or too many are refused.
    """
    directory, media = how.directory / split, MediaStore(how.directory / "media")
    fingerprint = fingerprint_of(source, how)
    while not writes and not _is_prepared(directory, fingerprint):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if not _is_prepared(directory, fingerprint):
        _prepare(split, source, how, directory, media, fingerprint)
    rows = PreparedRows(directory, media)
    _require_share(split, rows, how)
    return rows


def _require_share(split: str, rows: PreparedRows, how: Preparation) -> None:
    """Hold rows that an earlier start prepared to the share that is accepted now."""
    refused = sum(rows.facts["refused"].values())
    if refused > how.config.max_refused_share * (len(rows) + refused):
        raise DataError(
            f"{refused} of {len(rows) + refused} {split} rows were refused, more than the accepted share of "
            f"{how.config.max_refused_share:g}. See {how.quarantine}; mend the rows, or raise data.max_refused_share"
        )


def fingerprint_of(source: str, how: Preparation) -> str:
    """Return a text that changes when the rows' files, the settings or the processor change."""
    return of_settings(
        {
            "format": _FORMAT,
            "source": source,
            "files": facts_of_files(source),
            "config": what_is_seen(how.config),
            "processor": of_processor(how.tokeniser.processor),
            "family": how.tokeniser.family.name,
            "reads": how.reads,
            "views": list(map(str, how.views)),
            "selection": repr(how.change.selection),
        }
    )


def facts_of_files(source: str) -> list[tuple[str, int, int]]:
    """Return path, size and time of change of the files behind `source`; none for a hub id."""
    place = Path(source)
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _is_prepared(directory: Path, fingerprint: str) -> bool:
    try:
        return json.loads((directory / "prepared.json").read_text(encoding="utf-8"))["fingerprint"] == fingerprint
    except (OSError, ValueError, KeyError):
        return False


def _prepare(split: str, source: str, how: Preparation, directory: Path, media: MediaStore, fingerprint: str) -> None:
    quarantine = Quarantine(how.quarantine, how.config.max_refused_share)
    unfinished = directory.with_name(f".{split}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        actions: Counter[str] = Counter()
        left_out: Counter[str] = Counter()
        with Counting(f"preparing {split} rows") as counting:
            rows = _kept_rows(source, how, media, quarantine, actions, left_out)
            content = _write_rows(unfinished, counting.each(rows), 1 + len(how.views))
        _require_selected(split, quarantine, left_out)
        quarantine.check()
        if how.borrows:
            _lend_answers(unfinished, split, how.config.max_length)
        facts = {
            "fingerprint": fingerprint,
            "content": content,
            "source": source,
            "rows": quarantine.kept_rows,
            "refused": dict(quarantine.counts),
            "fitted": dict(actions),
            "views": [view.name for view in how.views],
            "not_selected": dict(left_out),
        }
        (unfinished / "prepared.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(unfinished, directory)
    except OSError as error:
        raise DataError(
            f"rows cannot be prepared in {directory}: {error.strerror or error}; free some space"
        ) from error
    finally:
        quarantine.close()
        shutil.rmtree(unfinished, ignore_errors=True)
    fitted = "".join(f"; {action}: {count}" for action, count in actions.items())
    unread = "".join(f"; not selected by {rule}: {count}" for rule, count in left_out.items())
    print(f"{split} rows: {quarantine.summary()}{fitted}{unread}", flush=True)


def _require_selected(split: str, quarantine: Quarantine, left_out: Counter[str]) -> None:
    """Refuse a selection that leaves nothing."""
    if left_out and not quarantine.kept_rows:
        rules = "; ".join(f"{rule}: {count}" for rule, count in left_out.items())
        raise DataError(f"data.select leaves none of the {split} rows; not selected by {rules}. Widen data.select")


def _changed_rows(
    source: str, how: Preparation, quarantine: Quarantine, left_out: Counter[str]
) -> Iterator[Preference]:
    """Yield the rows of the file that are read, as what the recipe makes of them."""
    rows = read(source, format=how.config.format, on_refused=quarantine.take, allow_network=True)
    for preference in rows:
        try:
            yield from how.change.apply(preference, left_out)
        except RowError as error:
            _refuse(quarantine, source, preference, error)


def _refuse(quarantine: Quarantine, source: str, preference: Preference, error: RowError) -> None:
    place = preference.provenance
    quarantine.refuse(place.get("file", source), int(place.get("row", 0)), error)


def _kept_rows(
    source: str,
    how: Preparation,
    media: MediaStore,
    quarantine: Quarantine,
    actions: Counter[str],
    left_out: Counter[str],
) -> Iterator[KeptRow]:
    """Yield rows that can be trained on, their media bytes in the store."""
    limits = how.tokeniser.limits
    for preference in _changed_rows(source, how, quarantine, left_out):
        try:
            positions = _positions_read(preference, how.responses_read)
            how.require(preference)
            stored = with_media(preference, lambda ref: media.put(ref, limits[ref.kind]))
            lengths = how.tokeniser.lengths_of_all(with_media(stored, media.fetch), how.views)
        except RowError as error:
            _refuse(quarantine, source, preference, error)
            continue
        actions.update(lengths[0].actions)
        quarantine.kept()
        of_views = [positions, *(how.read_in(view, preference.levels()) for view in how.views)]
        yield stored, list(zip(lengths, of_views, strict=True))


def _positions_read(preference: Preference, responses_read: ResponsesRead) -> Sequence[int]:
    positions = responses_read(preference.levels())
    if not positions:
        raise RowError(
            "row gives the objective nothing to compare",
            field="responses",
            value=f"{len(preference.responses)} response(s), levels {preference.levels()}",
            hint="comparing needs two responses of different rank; answers judged one by one are for kto, else sft",
        )
    return positions


def _write_rows(directory: Path, rows: Iterator[KeptRow], seen_as: int) -> str:
    """Write rows, offsets and lengths, each row `seen_as` often; return the hash of the rows."""
    offsets, lengths, responses, digest = array("q", [0]), array("i"), array("i"), hashlib.sha256()
    with open(directory / "rows.jsonl", "wb") as file:
        for preference, seen in rows:
            line = to_line(preference).encode("utf-8") + b"\n"
            file.write(line)
            digest.update(line)
            offsets.append(file.tell())
            for tokens, positions in seen:
                read = [tokens.response_tokens[position] for position in positions]
                lengths.extend((tokens.prompt_tokens, tokens.media_tokens, tokens.video_tokens, sum(read), len(read)))
                responses.extend(read)
    np.save(directory / "offsets.npy", np.array(offsets, dtype=np.int64))
    np.save(directory / "lengths.npy", np.array(lengths, dtype=np.int32).reshape(-1, seen_as, len(COLUMNS)))
    np.save(directory / "responses.npy", np.array(responses, dtype=np.int32))
    return digest.hexdigest()[:32]


def _lend_answers(directory: Path, split: str, max_length: int | None) -> None:
    """Choose for every row the answer to another prompt, and count its tokens among those of the row's responses."""
    lengths, responses = np.load(directory / "lengths.npy"), np.load(directory / "responses.npy")
    counts = lengths[:, :, COLUMNS.index("responses")]
    own, ends = counts[:, 0], np.cumsum(counts).reshape(counts.shape)[:, 0]
    lender = lenders(len(lengths), split)
    place = np.arange(len(lengths)) % own[lender]
    room = room_for_answer(lengths[:, 0, COLUMNS.index("prompt_tokens")], max_length)
    borrowed = np.minimum(responses[ends[lender] - own[lender] + place], room)
    lengths[:, 0, COLUMNS.index("response_tokens")] += borrowed
    lengths[:, 0, COLUMNS.index("responses")] += 1
    np.save(directory / "lengths.npy", lengths)
    np.save(directory / "responses.npy", np.insert(responses, ends, borrowed))
    np.save(directory / "lenders.npy", np.stack([lender, place], 1).astype(np.int32))
