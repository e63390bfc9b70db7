"""Miniature models: the real architecture and processor classes of a family, tiny, with random weights.

A saved directory is what `save_pretrained` leaves: `AutoProcessor` (or `AutoTokenizer`) and
`AutoModelForImageTextToText` (or `AutoModelForCausalLM`) load it, without network and without remote code.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from mmalign.errors import ModelError
from mmalign.miniature import architectures, families, sizes, tokenizers

FAMILIES: tuple[str, ...] = tuple(families.FAMILIES)
TEXT_FAMILIES: tuple[str, ...] = tuple(name for name, family in families.FAMILIES.items() if family.processor is None)
VISION_FAMILIES: tuple[str, ...] = tuple(name for name in FAMILIES if name not in TEXT_FAMILIES)

BUILT_IN = "miniature/"
"""What stands before the name of a family where a model is named, in recipes and on the command line."""


def save(
    name: str,
    directory: str | Path,
    *,
    seed: int = 0,
    scale: str = "tiny",
    words: Iterable[str] = (),
    **changes: Any,
) -> Path:
    """Write a miniature of the family `name` to `directory`.

    Args:
        name: one of `FAMILIES`.
        directory: created if missing.
        seed: of the weights; the same seed gives the same weights, 1-D parameters included.
        scale: "tiny" (tests), "shapes" (learns the world of corner shapes), "bench" (timing).
        words: words that the tokenizer keeps whole, e.g. `shapes.WORDS`.
        changes: fields of `Size` to differ from the scale, e.g. `hidden=64`.

    Returns:
        `directory` as a path.

    Raises:
        ModelError: the family, the scale or a field of the size is unknown, or the family's tokenizer keeps no words.
    """
    family = _look_up(name, families.FAMILIES, "miniature family")
    size = _look_up(scale, sizes.SIZES, "miniature scale")
    known_fields = {field.name: field for field in dataclasses.fields(sizes.Size)}
    for change in changes:
        _look_up(change, known_fields, "field of a miniature's size")
    size = dataclasses.replace(size, **changes)

    directory, words = Path(directory), tuple(words)
    tokenizer = tokenizers.byte_level(
        family.tokens, others=family.others, words=words, chat_template=family.chat_template(size)
    )
    processor = family.processor(tokenizer, size) if family.processor else tokenizer
    processor.save_pretrained(directory)
    _build(family, size, tokenizer, seed).save_pretrained(directory)
    _require_words_kept(directory, name, words)
    return directory


def _look_up(name: str, table: dict[str, Any], what: str) -> Any:
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ModelError(f"{what} {name!r} does not exist; {hint}known: {', '.join(table)}")


def _require_words_kept(directory: Path, name: str, words: tuple[str, ...]) -> None:
    """Refuse words where transformers loads a class of its own (text-only Qwen2), which spells them in bytes."""
    if words and len(AutoTokenizer.from_pretrained(directory).tokenize(words[0])) > 1:
        raise ModelError(f"the tokenizer of {name!r} keeps no whole words; leave out words= or take another family")


def _build(family: families.Family, size: sizes.Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    token_ids = tokenizer.get_vocab()
    common = architectures.decoder_fields(size, token_ids, family.tokens, len(tokenizer))
    text = {**common, **family.text(size)}
    if family.config is None:
        text.pop("model_type")
        config, auto_class = AutoConfig.for_model(family.model_type, **text), AutoModelForCausalLM
    else:
        fields = family.config(size, token_ids)
        config = AutoConfig.for_model(family.model_type, text_config=text, **fields)
        auto_class = AutoModelForImageTextToText

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto_class.from_config(config, dtype=torch.float32)
        if size.untrained:
            _move_vectors(model)
    ends = dict.fromkeys([family.tokens["eos_token"], family.turn_end or family.tokens["eos_token"]])
    model.generation_config.eos_token_id = [token_ids[end] for end in ends]
    model.generation_config.pad_token_id = token_ids[family.tokens["pad_token"]]
    return model.eval()


def _move_vectors(model: PreTrainedModel) -> None:
    """Add noise to norms and biases, which start at exactly 1 and 0, and to Gemma 3's projection, which starts at 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1 or not parameter.any():
                parameter.add_(0.1 * torch.randn_like(parameter))
