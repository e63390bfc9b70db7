"""`mmalign data show`: what one row of a file, or a lone medium, is, and what a model gets to see of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mmalign.errors import DataError, RowError
from mmalign.errors import show as shown
from mmalign.formats.media import MediaKind, MediaRef
from mmalign.formats.message import MediaPart, Message
from mmalign.formats.preference import Preference, Response
from mmalign.modalities import fetch
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.table import limits_below
from mmalign.recipes.media_panels import MOST_MEDIA, media_table
from mmalign.recipes.terminal import safe, visible
from mmalign.report.drawn_answers import told
from mmalign.sources.detect import Source, detect, named, parse
from mmalign.sources.meaning import Watched
from mmalign.sources.places import Place, refuse_options_for, rows_or_media
from mmalign.sources.read import RawRow, read_raw

_ROLE_STYLE = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow"}
_MOST_CHARACTERS = 1_500
_MOST_TURNS = 10
_MOST_COLUMNS = 20


def show(
    path: str | os.PathLike[str],
    *,
    row: int = 1,
    model: str | os.PathLike[str] | None = None,
    format: str | None = None,
    root: str | os.PathLike[str] | None = None,
    max_pixels: int | None = None,
    max_length: int | None = None,
    sampling: Sampling | None = None,
    allow_network: bool = False,
    console: Console | None = None,
) -> bool:
    """Print what a row becomes: format and why, messages, answers, media, and with a model its tokens and their mask.

    A path to a medium, or to a folder that holds media and no rows, prints what they are. Returns False when the row
    or one of the media is refused.

    Args:
        path: file, folder, or hub id with `allow_network`.
        row: number of the row from 1; the line number in JSONL.
        model: directory or hub id of a model; its processor makes the tokens.
        format: name of the format; None recognises it.
        root: directory below which media are; None takes the one of `path`.
        max_pixels: larger pictures, and frames of videos, are scaled down, as `data.max_pixels` does.
        max_length: bound on tokens, as `data.max_length`.
        sampling: which frames of videos are taken, as `data.video` does.
        allow_network: whether `path` may be fetched from the hub.

    Raises:
        DataError: the file cannot be read, or has no such row; an option would be ignored (a medium that stands alone
            has no format and no tokens, a picture no frames, and without a model there are no tokens to bound).
        ModelError: the model has no processor.
    """
    console = console or Console()
    place = rows_or_media(path, root)
    limits = limits_below(place.root, own={"video": {"sampling": sampling or Sampling()}}, max_pixels=max_pixels)
    if place.media:
        _require_options_used(place, row, model, format, max_length, sampling)
        count = len(place.media)
        what = f"{count:,} media, no rows" if count > 1 else f"one {place.media[0].kind}, no row"
        console.print(f"[bold]{safe(place.path)}[/]: {what}")
        return _show_media([(ref.kind, ref) for ref in place.media], limits, console)
    if max_length is not None and model is None:
        raise DataError("--max-length bounds tokens, and only a model makes tokens: add --model DIR, or leave it out")
    raw = _find(path, row, allow_network)
    if isinstance(raw, RowError):
        console.print(_refusal(raw))
        return False
    watched = Watched(raw.values)
    try:
        source = named(format) if format else detect(raw.values)
        preference = parse(RawRow(raw.file, raw.row, watched), format)
    except RowError as error:
        console.print(_refusal(error), _raw_columns(raw.values))
        return False
    console.print(_heading(raw, source, preference, watched))
    console.print(Rule("messages", style="dim"), *_turns(preference))
    console.print(Rule("answers, best first", style="dim"), *_answers(preference))
    readable = _show_media(_named_media(preference), limits, console) if preference.media else True
    return _show_tokens(preference, model, limits, max_length, console) and readable


def _show_media(
    named: Iterable[tuple[str, MediaRef]], limits: Mapping[MediaKind, MediaLimits], console: Console
) -> bool:
    """Print what media are; return whether all of them can be read."""
    first = list(itertools.islice(named, MOST_MEDIA + 1))
    table, refused = media_table(first[:MOST_MEDIA], limits)
    console.print(Rule("media", style="dim"), table)
    if len(first) > MOST_MEDIA:
        console.print(f"[dim]these are the first {MOST_MEDIA}[/]")
    if refused:
        console.print(f"[red]{refused:,} cannot be read: a row with such a medium goes to quarantine for it[/]")
    return not refused


def _show_tokens(
    preference: Preference,
    model: str | os.PathLike[str] | None,
    limits: Mapping[MediaKind, MediaLimits],
    max_length: int | None,
    console: Console,
) -> bool:
    """Print the tokens that a model gets; return whether it takes the row."""
    console.print(Rule("tokens", style="dim"))
    if model is None:
        console.print("[dim]add [bold]--model DIR[/bold] to see the tokens and which of them are scored[/dim]")
        return True
    from mmalign.recipes.token_panels import token_panels  # torch and transformers, only when asked for

    try:
        console.print(token_panels(preference, model, limits, max_length))
    except RowError as error:
        console.print(_refusal(error))
        return False
    return True


def _require_options_used(
    place: Place,
    row: int,
    model: str | os.PathLike[str] | None,
    format: str | None,
    max_length: int | None,
    sampling: Sampling | None,
) -> None:
    """Refuse options that the media of this place would leave without effect."""
    of_rows = {"row": row != 1, "model": model is not None, "format": format is not None}
    refuse_options_for(place, "rows", **of_rows, max_length=max_length is not None)
    if sampling is not None and not any(ref.kind == "video" for ref in place.media):
        named = {"sampling": "policy", "fps": "fps", "frames": "frames"}
        usual = Sampling()
        given = {option: getattr(sampling, name) != getattr(usual, name) for option, name in named.items()}
        refuse_options_for(place, "videos", **given)


def _find(path: str | os.PathLike[str], row: int, allow_network: bool) -> RawRow | RowError:
    """Return the row with this number (in a folder of files: the row at this place), or why it cannot be read."""
    broken: dict[int, RowError] = {}
    is_folder, last = Path(path).is_dir(), 0
    rows = read_raw(path, on_broken=lambda _, at, error: broken.setdefault(at, error), allow_network=allow_network)
    for count, raw in enumerate(rows, start=1):
        last = count if is_folder else raw.row
        if last == row:
            return raw
        if last > row:
            break
    if row in broken:
        return broken[row]
    raise DataError(f"{path} has no row {row}" + (f"; its last is {last}" if last < row else "; that line is empty"))


# ---- panels ----------------------------------------------------------------------------------------------------


def _heading(raw: RawRow, source: Source, preference: Preference, watched: Watched) -> RenderableType:
    count = len(preference.responses)
    alone = {None: "a demonstration", True: "an answer judged good", False: "an answer judged bad"}[preference.label]
    kind = {1: alone, 2: "a pair"}.get(count, f"a list of {count} answers")
    facts = Table.grid(padding=(0, 2))
    facts.add_row("[dim]format[/]", f"[bold]{source.name}[/]  {safe(source.says)}")
    filled = [name for name, value in raw.values.items() if value not in (None, [], "")]
    facts.add_row("[dim]because of[/]", safe(", ".join(name for name in filled if name in watched.asked)))
    if not watched.asked.issuperset(filled):
        unread = ", ".join(name for name in filled if name not in watched.asked)
        facts.add_row("[dim]not read[/]", f"[yellow]{safe(unread)}[/]")
    facts.add_row("[dim]id[/]", safe(preference.id))
    for name in ("margin", "difficulty", "ties", "tags"):
        value = getattr(preference, name)
        if value not in (None, (), {}):
            facts.add_row(f"[dim]{name}[/]", safe(str(value)))
    if preference.weight != 1.0:
        facts.add_row("[dim]weight[/]", str(preference.weight))
    title = f"[bold]{safe(raw.file)}[/], row {raw.row}: {kind}"
    return Panel(facts, title=title, title_align="left", border_style="blue")


def _turns(preference: Preference) -> Iterator[RenderableType]:
    """Yield a panel a turn; of a very long conversation its beginning and its end."""
    prompt = preference.prompt
    left_out = len(prompt) - 2 * _MOST_TURNS
    for message in prompt[:_MOST_TURNS]:
        yield _turn(message, preference)
    if left_out > 0:
        yield Text(f"... {left_out:,} turns between ...", style="dim", justify="center")
    for message in prompt[max(_MOST_TURNS, len(prompt) - _MOST_TURNS) :]:
        yield _turn(message, preference)


def _turn(message: Message, preference: Preference) -> RenderableType:
    text = Text()
    for part in message.parts:
        if isinstance(part, MediaPart):
            ref = preference.media[part.index]
            text.append(
                f"[{ref.kind} {part.index + 1}: {visible(fetch.shown(ref))[:60]}]", style="bold black on yellow"
            )
            text.append(" ")
        else:
            text.append(_cut(part.text))
    style = _ROLE_STYLE[message.role]
    return Panel(text, title=message.role, title_align="left", border_style=style)


def _answers(preference: Preference) -> Iterator[RenderableType]:
    for k, (response, level) in enumerate(zip(preference.responses, preference.levels(), strict=True)):
        style = "green" if level == 0 else "red"
        name = "answer" if len(preference.responses) == 1 else f"answer {k + 1}, rank {level + 1}"
        text = _answer_text(response)
        text.append_text(_as_kind(preference, response))
        yield Panel(text, title=name, title_align="left", border_style=style, subtitle=_facts(response))


def _as_kind(preference: Preference, response: Response) -> Text:
    """Return what an answer is that is more than text, or why it is none; `mmalign data view` draws it."""
    known = told(preference, response)
    if known is None:
        return Text()
    name, facts, error = known
    if error is None:
        return Text(f"\n{name}: {facts}", style="cyan")
    return Text(f"\nno {name}: {visible(str(error))}", style="red")


def _answer_text(response: Response) -> Text:
    """Return the words, passages with a weight of their own marked, and below them what an annotator wrote."""
    text, said = Text(), response.text[:_MOST_CHARACTERS]
    cuts = sorted({0, len(said), *(place for span in response.spans for place in (span.start, span.end))})
    for start, end in itertools.pairwise(cuts):
        weight = next((span.weight for span in response.spans if span.start <= start and end <= span.end), 1.0)
        style = "" if weight == 1 else "bold red" if weight < 1 else "bold underline"
        text.append(visible(said[start:end]), style=style)
    text.append(_how_much_more(response.text))
    if response.critique:
        text.append(f"\n{_cut(response.critique)}", style="italic dim")
    return text


def _facts(response: Response) -> str | None:
    said = [] if response.score is None else [f"score {response.score}"]
    by_name = ", ".join(f"{name} {value}" for name, value in response.scores.items())
    said += [f"scores by name: {by_name}"] if by_name else []  # one may be called score, as after relabelling
    said += [f"{span.start}..{span.end} weighs {span.weight:g}" for span in response.spans]
    said += [f"saw {', '.join(fetch.shown(ref)[:40] for ref in response.media)}"] if response.media else []
    said += [f"by {response.model}"] if response.model else []
    said += [f"judged by {response.annotator}"] if response.annotator else []
    return safe(", ".join(said)) or None


def _named_media(preference: Preference) -> Iterator[tuple[str, MediaRef]]:
    for k, ref in enumerate(preference.media):
        yield f"{ref.kind} {k + 1}", ref
    for k, response in enumerate(preference.responses):
        for m, ref in enumerate(response.media or ()):
            yield f"{ref.kind} {m + 1} of answer {k + 1}", ref


def _refusal(error: RowError) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_row("[dim]rule[/]", f"[bold red]{safe(error.reason)}[/]")
    for name, value in (("field", error.field), ("value", error.value), ("way out", error.hint)):
        if value not in (None, ""):
            facts.add_row(f"[dim]{name}[/]", safe(value if isinstance(value, str) else shown(value)))
    return Panel(facts, title="this row is refused", title_align="left", border_style="red")


def _raw_columns(values: Mapping[str, Any]) -> RenderableType:
    table = Table("column", "value", box=None, header_style="dim", pad_edge=False)
    for name, value in itertools.islice(values.items(), _MOST_COLUMNS):
        table.add_row(safe(str(name)), safe(shown(value)))
    if len(values) > _MOST_COLUMNS:
        table.add_row(f"... and {len(values) - _MOST_COLUMNS:,} more", "")
    return table


def _cut(text: str) -> str:
    return visible(text[:_MOST_CHARACTERS]) + _how_much_more(text)


def _how_much_more(text: str) -> str:
    more = len(text) - _MOST_CHARACTERS
    return f" ... ({more:,} characters more)" if more > 0 else ""
