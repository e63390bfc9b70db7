"""A row as a model sees it, in the terminal: its tokens, and which of them are scored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from transformers import AutoConfig

from mmalign.engine.families import family_of
from mmalign.engine.tokenise import Tokeniser, load_processor
from mmalign.formats.media import MediaKind
from mmalign.formats.preference import Preference
from mmalign.modalities.fetch import MediaLimits
from mmalign.recipes.terminal import visible

_TOKEN_STYLES = ("black on green3", "black on dark_sea_green2")
_UNSCORED_STYLES = ("black on grey70", "black on grey82")


def token_panels(
    preference: Preference,
    model: str | os.PathLike[str],
    limits: Mapping[MediaKind, MediaLimits],
    max_length: int | None,
) -> RenderableType:
    """Return panels with the prompt's tokens, those of each answer, and their numbers.

    Args:
        preference: the row.
        model: directory or hub id; its processor and chat template make the tokens.
        limits: of every kind of media.
        max_length: bound on tokens; None leaves the row as long as it is.

    Raises:
        RowError: the row cannot be rendered or a medium cannot be read.
        ModelError: the model has no processor, or its family is not known.
    """
    processor = load_processor(model)
    family = family_of(AutoConfig.from_pretrained(model))
    explained = Tokeniser(processor, family, limits, max_length=max_length).explain(preference)
    answers = [
        Panel(_answer_tokens(answer["tokens"]), title=f"answer {k + 1}", title_align="left", border_style="dim")
        for k, answer in enumerate(explained["responses"])
    ]
    legend = Text.assemble(
        ("prompt", "dim"), "  ", (" media ", "black on yellow"), "  ", (" scored ", _TOKEN_STYLES[0]),
        "  ", (" weight 0 ", _UNSCORED_STYLES[0]),
    )  # fmt: skip
    return Group(
        legend,
        Panel(_prompt_tokens(explained["prompt"]), title="prompt", title_align="left", border_style="dim"),
        *answers,
        _counts(explained, family.name),
    )


def _prompt_tokens(tokens: list[dict[str, Any]]) -> Text:
    text = Text()
    for token in tokens:
        if token["role"] == "media":
            text.append(f" {token['text']} x {token['count']} ", style="black on yellow")
        else:
            text.append(_visible(token["text"]), style="dim")
    return text


def _answer_tokens(tokens: list[dict[str, Any]]) -> Text:
    """Return the tokens in alternating shades, so that one sees where each ends."""
    text = Text()
    for k, token in enumerate(tokens):
        styles = _TOKEN_STYLES if token["weight"] else _UNSCORED_STYLES
        text.append(_visible(token["text"]), style=styles[k % 2])
    return text


def _visible(text: str) -> str:
    return visible(text).replace("\n", "\u21b5\n")


def _counts(explained: dict[str, Any], family: str) -> RenderableType:
    lengths = explained["lengths"]
    separate = sum(lengths["prompt_tokens"] + count for count in lengths["response_tokens"])
    table = Table.grid(padding=(0, 2))
    table.add_row("[dim]prompt[/]", f"{lengths['prompt_tokens']} tokens, {lengths['media_tokens']} of them media")
    table.add_row("[dim]answers[/]", f"{' + '.join(map(str, lengths['response_tokens']))} tokens, all scored")
    table.add_row("[dim]tree[/]", f"{lengths['tree_tokens']} tokens, instead of {separate} in separate rows")
    if lengths["turns_dropped"] or lengths["shrunk_to_pixels"]:
        fitted = f"{lengths['turns_dropped']} turn(s) dropped, media within {lengths['shrunk_to_pixels']} pixels"
        table.add_row("[dim]made to fit[/]", f"[yellow]{fitted}[/]")
    if explained["inputs"]:
        shapes = ", ".join(f"{name} {shape}" for name, shape in explained["inputs"].items())
        table.add_row("[dim]tensors[/]", escape(shapes))
    ends = "yes" if explained["ends_turn"] else "[yellow]no: the chat template adds none[/]"
    table.add_row("[dim]ends its turn[/]", ends)
    return Columns([Panel(table, title=f"as {family} sees it", title_align="left", border_style="blue")])
