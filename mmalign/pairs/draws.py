"""Random draws that belong to a row: the same in every process, every epoch and every resumed run."""

from __future__ import annotations

import hashlib

import numpy as np


def draws_of(seed: int, row_id: str) -> np.random.RandomState:
    """Return the generator of one row.

    Args:
        seed: of the data set, 0 <= seed < 2^32.
        row_id: unique in the data set.
    """
    digest = hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).digest()
    # RandomState's streams are frozen by NumPy for ever; those of Generator may change between versions.
    return np.random.RandomState([seed, *np.frombuffer(digest[:16], dtype="<u4").tolist()])
