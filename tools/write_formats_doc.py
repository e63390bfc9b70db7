"""Write docs/formats.md from the example rows that every module of mmalign/sources keeps.

    python tools/write_formats_doc.py          write the page
    python tools/write_formats_doc.py --check  say whether the page is as it would be written

tests/sources/test_formats_page.py holds the page to this program.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmalign.formats.media import HOW_SHOWN, MediaRef
from mmalign.formats.message import MediaPart, Message
from mmalign.formats.preference import Preference, Response
from mmalign.sources.detect import SOURCES, Source, parse
from mmalign.sources.json_values import ROW_LISTS
from mmalign.sources.meaning import MEANINGFUL
from mmalign.sources.read import ENDINGS, RawRow
from mmalign.sources.write import TARGETS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"

HEAD = """\
# Formats of rows

<!-- Written by tools/write_formats_doc.py from the example rows in mmalign/sources; change those. -->

`data.train` of a recipe, `mmalign data show` and `mmalign data convert` take files as they are published:
{endings} (JSON files also with `.gz`), a folder of such files, a folder written by
`save_to_disk` of the `datasets` library, or `owner/name[:split]` on the hub. Files are read a row at a time, whatever
their size. A `.json` file may be an array of rows, an object that holds the array under one of the names
{row_lists}, or one row a line.

The format is recognised by the columns of each row, in the order of this table; `data.format` names one instead.

{table}

Every row becomes the same record: a prompt, its media, and its answers, best first. `mmalign data show FILE --row N`
prints what a row became, and with `--model DIR` its tokens and which of them are scored.

## Rules for every row

- A row keeps its `id` (or `idx`); a row without one is called `file:row`, and to an id that comes again its place is
  added.
- Media are paths below the data root, bytes, `{{"bytes", "path"}}`, or `data:` URIs; a video may also be a folder of
  frames or a list of frame files. Pictures stand in `images` or `image`, videos in `videos` or `video` (there a list of
  pictures is one video, its frames, and a list of files of videos is several). Every medium has one placeholder in the
  prompt, and every placeholder a medium of its kind; an answer holds none.
- An object that is a medium, in a column or as a part of a turn, may name a clip of a video by `start` and `end`, or
  `video_start` and `video_end`, in seconds. How media are shown says the recipe; of such an object are not read
  {how_shown}.
  A row is refused when its object says anything else.
- A null column is an absent column in tables. Columns that a format does not know are left alone, and `data show` lists
  them. But some would change what the row means: rows with `audio`, `audios`, `tools` or `chat_template_kwargs` are
  refused, and so are rows with one of the following where nothing reads it:
  {meaningful}.
- In every format `system` is the first turn, `margin` the margin, `is_tie` makes the answers of a pair equally good,
  `label` or `kto_tag` (true or false) says whether an only answer is good or bad, for objectives such as kto,
  and `score_chosen` and `score_rejected` (or `chosen_score` and `rejected_score`) are the scores of a pair. Scores
  that contradict the labels stand as the named score `published`.
- Refused with a reason and listed in `quarantine.jsonl`: broken lines, unknown formats, unknown roles, answers that are
  empty or the same though one is called better, prompts that say nothing, numbers that are not finite, text that is not
  valid Unicode, judgements that are neither true nor false, and media that cannot be read.
- A demonstration (one answer) teaches its last answer; earlier answers of the conversation are prompt.
"""

TRL_LOADS = """\
TRL reads these files as they are:

```python
from datasets import Image, List, load_dataset

rows = load_dataset("parquet", data_files="rows.parquet", split="train")
rows = load_dataset("json", data_files="rows.jsonl", split="train").cast_column("images", List(Image()))
```

`datasets` knows `videos` of a Parquet file too, and leaves them encoded (`Video(decode=False)`); TRL 1.16 does not
read them.

"""


def page() -> str:
    """Return the whole page."""
    head = HEAD.format(
        endings=_quoted(ENDINGS),
        row_lists=_quoted(ROW_LISTS),
        table=_table(),
        how_shown=_folded(sorted(HOW_SHOWN)),
        meaningful=_folded(MEANINGFUL),
    )
    return "\n".join([head, *(_section(source) for source in SOURCES)])


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _folded(names: Iterable[str]) -> str:
    """Return names as lines of a point of a list."""
    return textwrap.fill(_quoted(names), 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _table() -> str:
    rows = ["| format | what | columns | written by `data convert` |", "|---|---|---|---|"]
    for source in SOURCES:
        endings = _quoted(TARGETS[source.name].endings) if source.name in TARGETS else ""
        rows.append(f"| [`{source.name}`](#{source.name}) | {source.says} | {_quoted(source.needs)} | {endings} |")
    return "\n".join(rows)


def _section(source: Source) -> str:
    said = sys.modules[source.parse.__module__].__doc__.strip()
    extra = TRL_LOADS if source.name == "mmalign" else ""
    examples = "\n".join(_example(title, row) for title, row in source.examples.items())
    return f"## {source.name}\n\n{said}\n\n{extra}{examples}"


def _example(title: str, row: dict[str, Any]) -> str:
    record = _record(parse(RawRow("rows.jsonl", 1, row)))
    return f"### {title}\n\n```json\n{_json(row)}\n```\n\nbecomes\n\n```text\n{record}\n```\n"


def _json(row: dict[str, Any]) -> str:
    """Return a row with a column a line; what is too long for a line is broken into its parts."""
    lines = [f"  {json.dumps(name)}: {_value(value, '  ', 90)}" for name, value in row.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _value(value: Any, indent: str, longest: int) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= longest or not isinstance(value, list | dict):
        return text
    deeper = indent + "  "
    if isinstance(value, dict):
        inner = [f"{json.dumps(name)}: {_value(part, deeper, 100)}" for name, part in value.items()]
    else:
        inner = [_value(part, deeper, 112) for part in value]
    lines = ",\n".join(deeper + line for line in inner)
    return f"{{\n{lines}\n{indent}}}" if isinstance(value, dict) else f"[\n{lines}\n{indent}]"


def _record(preference: Preference) -> str:
    """Return a record for people: a line a turn, then the answers with their rank."""
    lines = [("id", preference.id)]
    lines += [("media", f"{k + 1}: {_where(ref)}") for k, ref in enumerate(preference.media)]
    lines += [(message.role, _text(message, preference)) for message in preference.prompt]
    for k, (response, level) in enumerate(zip(preference.responses, preference.levels(), strict=True)):
        facts = _facts(response)
        name = f"answer {k + 1}" if len(preference.responses) > 1 else "answer"
        rank = f", rank {level + 1}" if len(preference.responses) > 1 else ""
        lines.append((name + rank, response.text + facts))
    if preference.label is not None:
        lines.append(("judged", "good" if preference.label else "bad"))
    for name in ("ties", "margin", "tags"):
        if getattr(preference, name):
            lines.append((name, str(getattr(preference, name))))
    return "\n".join(f"{name:17} {text}" for name, text in lines)


def _text(message: Message, preference: Preference) -> str:
    said = [
        f"[{preference.media[part.index].kind} {part.index + 1}]" if isinstance(part, MediaPart) else part.text
        for part in message.parts
    ]
    return " ".join(text.strip() for text in said)


def _facts(response: Response) -> str:
    """Return what is known about a response, each fact in brackets."""
    said = [f"score {response.score:g}"] if response.score is not None else []
    said += [f"{name} {score:g}" for name, score in response.scores.items()]
    said += [f"critique: {response.critique}"] if response.critique else []
    said += [f"{span.start}..{span.end} weighs {span.weight:g}" for span in response.spans]
    said += [f"saw {', '.join(_where(ref) for ref in response.media)}"] if response.media else []
    said += [f"by {response.model}"] if response.model else []
    return "".join(f"  ({fact})" for fact in said)


def _where(ref: MediaRef) -> str:
    place = ref.uri if ref.frames is None else f"frames {', '.join(ref.frames)}"
    return place if ref.span_s is None else f"{place}, {ref.span_s[0]:g} s to {ref.span_s[1]:g} s"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else f"{PAGE} is not up to date; run {sys.argv[0]}")
    PAGE.write_text(page(), encoding="utf-8")
