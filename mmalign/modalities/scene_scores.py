"""What an added object is compared with: the words that asked for it, and the object that stood there.

Of ReSpace (arXiv:2506.02459): PMS, the share of the prompt's words that occur in the description; the relative error of
sizes, sqrt(Σ_d ((s_d - t_d) / (t_d + 1e-6))²); DSS, the cosine of two descriptions in the space of an encoder (SigLIP
there), which the caller brings along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mmalign.formats.scene import SceneObject

Encoder = Callable[[Sequence[str]], np.ndarray]
"""Texts -> [N, D], of any length."""


def prompt_match(prompt: str, desc: str) -> float:
    """Return the share of the words of a prompt that are parts of a description, 0 to 1 (PMS)."""
    words, lowered = prompt.lower().split(), desc.lower()
    return sum(word in lowered for word in words) / len(words) if words else 0.0


def size_error(item: SceneObject, truth: SceneObject) -> float:
    """Return the length of the vector of relative errors of an object's size."""
    return math.hypot(*((side - true) / (true + 1e-6) for side, true in zip(item.size, truth.size, strict=True)))


def same_words(texts: Sequence[str]) -> np.ndarray:
    """Return one column a word and one row a text: an encoder for places without a model. [N, words]."""
    split = [set("".join(sign if sign.isalnum() else " " for sign in text.lower()).split()) for text in texts]
    known = sorted(set().union(*split))
    return np.array([[float(word in words) for word in known] for words in split]).reshape(len(texts), len(known))


def similarity(first: str, second: str, encode: Encoder) -> float:
    """Return the cosine of two descriptions (DSS), 0 where one has no length."""
    one, other = encode([first, second])
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length else 0.0
