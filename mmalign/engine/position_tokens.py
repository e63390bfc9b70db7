"""Giving a model the position tokens of layouts: one token a bin, with rows of the embedding that make sense at once.

A new row that is drawn at random has the wrong size and knows nothing of its neighbours. Here a bin's row is the mean
of the rows there are (Hewitt, Initializing new word embeddings for pretrained language models, 2021), plus a smooth
curve over the bins: cosines of low frequency with random directions, scaled so that the new rows spread per dimension
as the old ones do. Neighbouring bins begin alike, far ones apart, so a model need not learn first that 12 stands beside
13. How AesthetiQ begins is not known here; this is ours.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from mmalign.errors import ModelError
from mmalign.formats.layout_text import Grid, position_token

FREQUENCIES = 8


def add_position_tokens(model: nn.Module, tokenizer: Any, bins: int, *, seed: int = 0) -> list[int]:
    """Add the tokens of `bins` bins to a tokenizer and rows for them to a model, both in place.

    Args:
        model: transformers model with input embeddings; its head is given rows too, tied or not.
        tokenizer: of the model (`processor.tokenizer` where there is a processor). The tokens are ordinary ones, so
            that decoding keeps them when it skips special tokens.
        bins: K of the `Grid` that is written.
        seed: of the directions.

    Returns:
        The ids of the bins, in order.

    Raises:
        ModelError: the tokenizer has some of the tokens already, or does not keep them whole.
        ConfigError: `bins` is out of bounds.
    """
    tokens = [position_token(number) for number in range(Grid(bins=bins).bins)]
    vocabulary = tokenizer.get_vocab()
    known = [token for token in tokens if token in vocabulary]
    if known:
        raise ModelError(
            f"the tokenizer has {len(known)} of {bins} position tokens already, e.g. {known[0]!r}; they are "
            "added once, to a model that has none"
        )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in tokens])
    ids = tokenizer.convert_tokens_to_ids(tokens)
    found = tokenizer("".join(tokens), add_special_tokens=False)["input_ids"]
    if list(found) != ids:
        raise ModelError("the tokenizer does not keep position tokens whole; it cannot write layouts as tokens")
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < len(tokenizer):  # some models have rows to spare, which must not be cut off
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    tables = [embeddings.weight] + ([] if head is None or head.weight is embeddings.weight else [head.weight])
    for number, table in enumerate(tables):
        _fill(table, ids, seed + number)
    return ids


@torch.no_grad()
def _fill(table: Tensor, ids: list[int], seed: int) -> None:
    """Write the rows of the bins into an embedding table [V, D], by the rows before the first of them."""
    before = table[: ids[0]].float()
    mean, spread = before.mean(dim=0), before.std(dim=0)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(FREQUENCIES, table.shape[1], generator=generator).to(table.device)
    curve = smooth_code(len(ids)).to(table.device) @ directions
    table[ids] = (mean + spread * curve).to(table.dtype)


def smooth_code(bins: int) -> Tensor:
    """Return [bins, 8]: cosines of 1 to 8 half waves over the bins, of mean square 1 for every bin together.

    With random directions of unit variance a row varies by 1 in every dimension, on average over the bins.
    """
    place = (torch.arange(bins, dtype=torch.float32) + 0.5) / bins
    frequencies = torch.arange(1, FREQUENCIES + 1)
    return math.sqrt(2 / FREQUENCIES) * torch.cos(math.pi * place[:, None] * frequencies[None])
