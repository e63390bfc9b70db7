"""The table of published formats, and the way from a file to preferences.

A format is recognised by its columns; the table stands most specific first and the first match reads the row. A new
format is one module with `EXAMPLES`, `NEEDS`, `matches`, `parse`, and one line here.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mmalign.errors import DataError, RowError
from mmalign.formats.preference import Preference
from mmalign.sources import (
    align_anything,
    alpaca,
    layout,
    layout_tokens,
    llava,
    llava_hound,
    mdpo,
    mm_rlhf,
    mm_rlhf_ranked,
    ours,
    ranked,
    rlhf_v,
    scene,
    sharegpt,
    swift,
    trl,
    vistadpo,
)
from mmalign.sources.meaning import Watched, require_meaning_read, with_common_columns
from mmalign.sources.quarantine import Refusal, RefusedRow
from mmalign.sources.read import RawRow, read_raw
from mmalign.sources.soundness import require_readable_columns, require_sound

Parse = Callable[[RawRow, str | None], Preference]
"""Makes a preference of a raw row; the format is recognised where it is None."""


class Source(NamedTuple):
    """One published format: how to know it, how to read it, and what it looks like."""

    name: str
    says: str
    needs: tuple[str, ...]
    matches: Callable[[Mapping[str, Any]], bool]
    parse: Callable[[Mapping[str, Any]], Preference]
    examples: Mapping[str, dict[str, Any]]


def _source(name: str, says: str, module: Any) -> Source:
    return Source(name, says, module.NEEDS, module.matches, module.parse, module.EXAMPLES)


SOURCES: tuple[Source, ...] = (
    _source("mmalign", "our own rows, with an id and everything a record can say", ours),
    _source("swift", "ms-swift: messages with rejected_response or rejected_messages", swift),
    _source("scene", "furnished rooms: a scene whose last object is asked for, or edits of scenes compared", scene),
    _source("llava", "LLaVA-style: conversations with rejected_conversations", llava),
    _source("rlhf_v", "RLHF-V and RLAIF-V: question, chosen, rejected, image", rlhf_v),
    _source("mdpo", "mDPO: a rendered prompt with USER: and ASSISTANT:, img_path", mdpo),
    _source(
        "mm_rlhf_ranked", "MM-RLHF data.jsonl: outputs of several models with scores and a ranking", mm_rlhf_ranked
    ),
    _source("align_anything", "align-anything: two numbered answers and the number of the better one", align_anything),
    _source("ranked", "N candidates: a prompt, a list of answers, and scores, ranks or an order", ranked),
    _source("vistadpo", "VistaDPO: a video, a pair, and a second rejected answer", vistadpo),
    _source("mm_rlhf", "MM-RLHF dpo_pairs.jsonl: a pair with a critique of each answer", mm_rlhf),
    _source("llava_hound", "LLaVA-Hound, TPO, MIA-DPO: a pair about a video, or about several pictures", llava_hound),
    _source("alpaca", "LLaMA-Factory alpaca: instruction with output, or with chosen and rejected", alpaca),
    _source(
        "sharegpt", "LLaMA-Factory sharegpt: conversations or messages, with chosen and rejected or alone", sharegpt
    ),
    _source("layout_tokens", "graphic layouts, their boxes told as position tokens", layout_tokens),
    _source("layout", "graphic layouts: our JSON, Crello, WebUI; their boxes told as JSON on a grid", layout),
    _source("trl", "TRL: chosen and rejected, the prompt explicit or implicit", trl),
)
_MOST_COLUMNS = 64
"""An object with more members, all of them lists or objects, is a file keyed by something, not a row."""

_REJECTED = ("rejected", "rejected_response", "rejected_messages", "rejected_conversations")


def detect(values: Mapping[str, Any]) -> Source:
    """Return the format of a row.

    Raises:
        RowError: no format fits, or the row says in two ways what was rejected; the message names the columns and the
            nearest format.
    """
    rejected = [name for name in _REJECTED if values.get(name) not in (None, [], "")]
    if len(rejected) > 1:
        raise RowError("format is ambiguous", field="columns", value=rejected, hint="keep one of these columns")
    for source in SOURCES:
        if source.matches(values):
            return source
    raise RowError("format is unknown", field="columns", value=sorted(map(str, values)), hint=_way_out(values))


def _way_out(values: Mapping[str, Any]) -> str:
    if len(values) > _MOST_COLUMNS and all(isinstance(value, Mapping | list) for value in values.values()):
        return f"these are {len(values):,} entries under one object, no row; write one row a line, or an array of rows"
    nearest = max(SOURCES, key=lambda source: _likeness(source, values))
    if not _likeness(nearest, values):
        return "a row of preferences has a prompt and answers; docs/formats.md shows what is read"
    return f"the nearest known format is {nearest.name} with the columns {', '.join(nearest.needs)}"


def named(name: str) -> Source:
    """Return the format called `name`.

    Raises:
        DataError: there is none; the message lists them.
    """
    known = {source.name: source for source in SOURCES}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"format {name!r} is unknown; {meant}known are {', '.join(known)}")
    return known[name]


def parse(raw: RawRow, format: str | None = None) -> Preference:
    """Return the preference that a raw row holds, with an id and its provenance.

    Args:
        raw: the row; when its values are `Watched`, they remember which columns were read.
        format: name of its format; None recognises it.

    Raises:
        RowError: the row is refused.
        DataError: `format` names no format.
    """
    watched = raw.values if isinstance(raw.values, Watched) else Watched(raw.values)
    values = dict(watched)  # what only the rules look at was not read
    source = named(format) if format else None
    require_readable_columns(values)
    source = source or detect(values)
    preference = _parsed(source, watched)
    require_meaning_read(values, watched.asked, source.name)
    require_sound(preference)
    own_id = preference.id or _own_id(watched)
    provenance = {"source": source.name} | dict(preference.provenance) | {"file": raw.file, "row": str(raw.row)}
    return dataclasses.replace(preference, id=own_id or f"{raw.file}:{raw.row}", provenance=provenance)


def _parsed(source: Source, watched: Watched) -> Preference:
    try:
        return with_common_columns(source.parse(watched), watched)
    except RowError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        reason = f"row does not have the shape of the format {source.name}"
        hint = f"it has the columns {', '.join(source.needs)}"
        raise RowError(reason, value=f"{type(error).__name__}: {error}", hint=hint) from error


def read(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    on_refused: Callable[[Refusal], None],
    allow_network: bool = False,
    parse: Parse = parse,
) -> Iterator[Preference]:
    """Yield the preferences of a file, folder or hub id in their order; what is refused goes to `on_refused`.

    An id that was seen before gets the place of its row added, so that ids name rows.

    Args:
        path: see `mmalign.sources.read.read_raw`.
        format: name of a format; None recognises it row by row.
        on_refused: called once for every refused row.
        allow_network: whether a hub id may be fetched.
        parse: makes a preference of a raw row.

    Raises:
        DataError: the file cannot be read any further, or `format` names no format.
    """
    for row in every_row(path, format=format, allow_network=allow_network, parse=parse):
        if isinstance(row, RefusedRow):
            on_refused(row.refusal)
        else:
            yield row


def every_row(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    allow_network: bool = False,
    parse: Parse = parse,
) -> Iterator[Preference | RefusedRow]:
    """Yield what stands at every place of a file, folder or hub id, in order: the preference, or why there is none.

    Arguments, ids and errors as those of `read`.
    """
    if format:
        named(format)
    broken: list[RefusedRow] = []

    def on_broken(file: str, row: int, error: RowError) -> None:
        broken.append(RefusedRow(Refusal.of(file, row, error), {}))

    seen: set[int] = set()
    try:
        for raw in read_raw(path, on_broken=on_broken, allow_network=allow_network):
            yield from broken
            broken.clear()
            yield _row(raw, format, seen, parse)
    except DataError:  # what was broken before the file ended is known all the same
        yield from broken
        raise
    yield from broken


def _row(raw: RawRow, format: str | None, seen: set[int], parse: Parse) -> Preference | RefusedRow:
    """Return what a raw row is, its id made to differ from those that were seen."""
    try:
        preference = parse(raw, format)
    except RowError as error:
        return RefusedRow(Refusal.of(raw.file, raw.row, error), raw.values)
    while hash(preference.id) in seen:
        preference = dataclasses.replace(preference, id=f"{preference.id} ({raw.file}:{raw.row})")
    seen.add(hash(preference.id))
    return preference


def _own_id(values: Mapping[str, Any]) -> str:
    own = values.get("id", values.get("idx"))
    return str(own) if isinstance(own, str | int) and not isinstance(own, bool) else ""


def _likeness(source: Source, values: Mapping[str, Any]) -> float:
    near = sum(bool(difflib.get_close_matches(need, map(str, values), n=1, cutoff=0.75)) for need in source.needs)
    return near / len(source.needs)
