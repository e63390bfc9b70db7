"""For every row the answer of another row, behind whose prompt it says nothing: what KTO measures its baseline on.

In a tree such an answer costs its own tokens; the prompt with its media is computed anyhow. Which row lends it is drawn
once, as one round through all rows, so that every answer serves about equally often, and policy, reference, table,
epoch, rank and resumed run see the same.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mmalign.engine.tokenise import PromptTree
from mmalign.engine.tree import NOT_OF_THE_ROW
from mmalign.errors import DataError

_SEED = 2402_01306


def lenders(count: int, split: str) -> np.ndarray:
    """Return for each of `count` rows the row whose answer it borrows, never itself, int64 [count].

    Args:
        split: "train" or "eval", for the message.

    Raises:
        DataError: there are fewer than two rows.
    """
    if count < 2:
        raise DataError(
            f"the objective sets every prompt beside an answer to another one, and data.{split} has {count} row; it "
            f"needs two: add rows{', or leave out data.eval' if split == 'eval' else ''}"
        )
    # RandomState's streams are frozen by NumPy for ever.
    round_trip = np.random.RandomState(_SEED).permutation(count)
    lender = np.empty(count, dtype=np.int64)
    lender[round_trip] = np.roll(round_trip, -1)
    return lender


def room_for_answer(prompt_tokens: np.ndarray, max_length: int | None) -> np.ndarray:
    """Return how many tokens of a borrowed answer fit behind each prompt: its end may be cut, unlike a row's own."""
    if max_length is None:
        return np.full_like(prompt_tokens, np.iinfo(prompt_tokens.dtype).max)
    return max_length - prompt_tokens


def with_answer_of_another(tree: PromptTree, answer: Tensor, max_length: int | None) -> PromptTree:
    """Return the tree with `answer` behind its responses, marked as none of the row.

    Args:
        answer: int64 [R], tokens of a response of another row.
        max_length: bound on prompt and answer together.
    """
    room = None if max_length is None else max_length - len(tree.prompt_ids)
    answer = answer[:room]
    weights = tree.response_weights
    return replace(
        tree,
        response_ids=(*tree.response_ids, answer),
        response_weights=None if weights is None else (*weights, torch.ones(len(answer))),
        levels=(*tree.levels, NOT_OF_THE_ROW),
        scores=(*tree.scores, math.nan) if tree.scores else (),
        numbers={name: (*values, math.nan) for name, values in tree.numbers.items()},
    )
