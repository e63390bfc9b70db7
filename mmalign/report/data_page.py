"""The page on which a person looks at rows: collected row by row, written as one file.

Rows stand in the page as JSON in chunks that the browser parses when it needs them, pictures as data URIs that it
decodes when they are looked at, so that a page of ten thousand rows opens at once. Texts of strangers reach the screen
as text only; besides, the page's policy runs no script but its own, by its hash, and fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from mmalign import __version__
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference
from mmalign.report import row_record
from mmalign.report.drawn_answers import drawn
from mmalign.report.media_shelf import MediaShelf
from mmalign.report.page import render, source
from mmalign.report.parts import Tile
from mmalign.report.refusals import KnownRefusals, reasons
from mmalign.report.svg import figure
from mmalign.sources.quarantine import Refusal

MOST_ROWS = 10_000
"""A page holds this many rows unless more are asked for."""
LARGEST_PAGE_ROWS = 200_000
"""Beyond, the list is higher than browsers let an element be: Firefox ends at 17.9 million pixels, Chromium later."""
ROWS_A_CHUNK = 200
MOST_TAGS = 200
"""A filter offers this many tags, the most frequent."""

_SCRIPTS = ("data_text.js", "data_rows.js", "data_list.js", "data_row.js", "data_page.js")


class DataPage:
    """Collects rows and writes their page.

    Args:
        shelf: where media go.
        refused_before: refusals known from elsewhere, such as the quarantine of a run.
        base: directory in which the files of the rows are.
    """

    def __init__(self, shelf: MediaShelf, refused_before: Iterable[Refusal] = (), base: Path = Path()) -> None:
        self._shelf = shelf
        self._before = KnownRefusals(refused_before, base)
        self._not_here: list[Refusal] = []
        self._chunks: list[str] = []
        self._waiting: list[dict[str, Any]] = []
        self._index: list[dict[str, Any]] = []
        self._refusals: list[Refusal] = []
        self._counts: dict[str, Counter[str]] = {"sources": Counter(), "tags": Counter(), "kinds": Counter()}
        self._lengths: list[int] = []
        self._answers: Counter[int] = Counter()
        self._judged: Counter[str] = Counter()
        self.refused_rows = 0

    def __len__(self) -> int:
        return len(self._index)

    def add(self, preference: Preference, number: int = 0) -> None:
        """Take a row; media that their modality refuses make it a refused one, with all that it says.

        Args:
            preference: the row.
            number: what the command and the address of the page call it; 0 takes its number in its file.
        """
        where = preference.provenance.get("file", ""), int(preference.provenance.get("row", 0))

        def record(place: row_record.Place) -> dict[str, Any]:
            return row_record.of_preference(
                preference,
                place,
                lambda row, k: drawn(row, k, self._shelf.limits, place, is_full=self._shelf.is_full),
            )

        self._take(record, *where, number)

    def add_medium(self, ref: MediaRef, number: int = 0) -> None:
        """Take a medium that stands alone; `number` as in `add`."""
        self._take(lambda place: row_record.of_medium(ref, place), str(ref.uri), 0, number)

    def refuse(self, refusal: Refusal, columns: Mapping[str, Any] | None = None, number: int = 0) -> None:
        """Take a row that is no preference, and what stands in its columns if it has any; `number` as in `add`."""
        record = row_record.of_refusal(refusal, columns or {})
        self._enter(record, [refusal, *self._before.take(refusal.file, refusal.row)], number)

    def name_rest(self) -> None:
        """Name the refusals known from elsewhere whose rows did not come, when all rows were given."""
        self._not_here = self._before.rest()

    def html(self, *, title: str, path: str, more_rows: bool = False, again: str = "") -> str:
        """Return the whole page.

        Args:
            title: what the page is about.
            path: what the rows were read from.
            more_rows: whether the file holds more rows than were taken.
            again: the command that writes this page, which the page names where something was left out.
        """
        self._close_chunk()
        script = program()
        shelf = self._shelf
        return render(
            "data.html.j2",
            title=title,
            version=__version__,
            path=path,
            rows=len(self),
            more_rows=more_rows,
            again=again,
            tiles=self._tiles(),
            reasons=reasons(self._refusals),
            refused=self.refused_rows,
            not_here=reasons(self._not_here),
            left_out=shelf.left_out,
            playable_left_out=shelf.playable_left_out,
            budget_mb=figure(shelf.budget_bytes / 1e6),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
            index=island(self._summary()),
            chunks=self._chunks,
            rows_a_chunk=ROWS_A_CHUNK,
            pictures=[island(uri) for uri in shelf.pictures],
        )

    def _take(self, record: Callable[[row_record.Place], dict[str, Any]], file: str, row: int, number: int) -> None:
        refusals = self._before.take(file, row)

        def place(ref: MediaRef, field: str) -> int:
            number, trouble = self._shelf.place(ref, field)
            if trouble is not None:
                # The medium may have been refused in another row, under another field.
                refusals.append(replace(Refusal.of(file, row, trouble), field=field))
            return number

        self._enter(record(place), refusals, number)

    def _enter(self, record: dict[str, Any], refusals: list[Refusal], number: int) -> None:
        """Add a row to the page and to its index; reasons that stand twice count once."""
        by_reason: dict[str, Refusal] = {}
        for refusal in refusals:
            by_reason.setdefault(refusal.reason, refusal)
        if by_reason:
            record["refused"] = [row_record.refused_for(refusal) for refusal in by_reason.values()]
        self._refusals += by_reason.values()
        self.refused_rows += bool(by_reason)
        entry = row_record.summary(record, self._shelf.entries, number)
        self._count(entry)
        self._index.append(entry)
        self._waiting.append(record)
        if len(self._waiting) == ROWS_A_CHUNK:
            self._close_chunk()

    def _count(self, entry: dict[str, Any]) -> None:
        self._counts["sources"].update([entry["source"]] if entry["source"] else [])
        self._counts["tags"].update(entry["tags"])
        self._counts["kinds"].update(entry["kinds"])
        if entry["answers"]:
            self._answers[entry["answers"]] += 1
            self._judged.update([entry["judged"]] if entry["judged"] else [])
            self._lengths.append(entry["length"])

    def _close_chunk(self) -> None:
        if self._waiting:
            self._chunks.append(island(self._waiting))
            self._waiting = []

    def _summary(self) -> dict[str, Any]:
        """Return what the page reads at once: a line a row, its columns named once, what filters offer, the media."""
        columns = list(self._index[0]) if self._index else []
        lines = [list(entry.values()) for entry in self._index]
        return {"columns": columns, "rows": lines, "facets": self._facets(), "media": self._shelf.entries}

    def _facets(self) -> dict[str, Any]:
        counts = {name: counter.most_common(MOST_TAGS) for name, counter in self._counts.items()}
        return counts | {"reasons": [[reason.text, reason.rows] for reason in reasons(self._refusals)]}

    def _tiles(self) -> list[Tile]:
        rows = len(self)
        tiles = [Tile(title="Rows", value=f"{rows:,}", beside=_listed(self._counts["sources"]))]
        if self._lengths:
            low, high = min(self._answers), max(self._answers)
            shapes: Counter[str] = Counter()
            for answers, many in self._answers.items():
                shapes[{1: "one answer", 2: "pairs"}.get(answers, "ranked lists")] += many
            many_answers = str(low) if low == high else f"{low} to {high}"
            beside = f"characters in the median row, {max(self._lengths):,} at most"
            tiles.append(Tile(title="Answers a row", value=many_answers, beside=_listed(shapes)))
            tiles.append(Tile(title="Longest answer", value=f"{median(self._lengths):,.0f}", beside=beside))
        if self._judged:
            good, bad = self._judged["good"], self._judged["bad"]
            tiles.append(Tile(title="Judged one by one", value=f"{good + bad:,}", beside=f"{good:,} good, {bad:,} bad"))
        for kind, many in self._counts["kinds"].most_common():
            tiles.append(Tile(title=f"With {kind}", value=f"{many:,}", beside=f"{100 * many / rows:.0f}% of rows"))
        share = f"{100 * self.refused_rows / rows:.1f}% of rows" if rows else ""
        return [*tiles, Tile(title="Refused", value=f"{self.refused_rows:,}", beside=share)]


def island(value: Any) -> str:
    """Return `value` as JSON that can stand in a script element: no "<" opens or closes anything in it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


@cache
def program() -> str:
    """Return the script of the page."""
    return "(() => {\n'use strict';\n" + "\n".join(source(name) for name in _SCRIPTS) + "})();\n"


def _listed(counts: Counter[str], most: int = 3) -> str:
    named = [f"{name} {many:,}" if len(counts) > 1 else name for name, many in counts.most_common(most) if many]
    return ", ".join(named) + (", ..." if len(counts) > most else "")
