"""What becomes of one row, for people: `mmalign data show` prints this."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmalign.engine.arriving import field_of
from mmalign.engine.media_tokens import soft_tokens
from mmalign.formats.preference import Preference
from mmalign.modalities import fetch
from mmalign.modalities.table import MODALITIES

if TYPE_CHECKING:
    from mmalign.engine.tokenise import PromptTree, Tokeniser


def explain(tokeniser: Tokeniser, preference: Preference) -> dict[str, Any]:
    """Return what `tokeniser` makes of a row, ready for JSON.

    Keys: "id"; "prompt": list of {"text", "id", "role" ("prompt" or "media"), "count"}, runs of one media token taken
    together; "responses": list of {"level", "text", "tokens": [{"text", "id", "weight"}]}, every token of which is
    scored; "media": list of {"field", "kind", "name", "width", "height", and of a video "frames", "duration_s"...};
    "inputs": shapes of the processor's tensors; "lengths"; "ends_turn".

    Raises:
        RowError: the row would be refused.
    """
    tree, lengths = tokeniser(preference), tokeniser.lengths(preference)
    return {
        "id": tree.id,
        "prompt": _prompt_tokens(tokeniser, tree),
        "responses": [_response(tokeniser, tree, k) for k in range(len(tree.response_ids))],
        "media": [_medium(tokeniser, preference, i) for i in range(len(preference.media))],
        "media_key": tree.media_key,
        "inputs": {name: list(tensor.shape) for name, tensor in tree.media.items()},
        "lengths": {
            "prompt_tokens": lengths.prompt_tokens,
            "media_tokens": lengths.media_tokens,
            "response_tokens": list(lengths.response_tokens),
            "longest_branch": lengths.longest_branch,
            "tree_tokens": lengths.tree_tokens,
            "max_length": tokeniser.max_length,
            "turns_dropped": lengths.turns_dropped,
            "shrunk_to_pixels": lengths.max_pixels,
        },
        "ends_turn": tokeniser.ends_turn,
    }


def _prompt_tokens(tokeniser: Tokeniser, tree: PromptTree) -> list[dict[str, Any]]:
    """Return the prompt's tokens in order; neighbouring equal media tokens are one entry with their number."""
    soft_ids = _soft_ids(tokeniser)
    shown: list[dict[str, Any]] = []
    for token, run in groupby(tree.prompt_ids.tolist()):
        count, is_media = len(list(run)), token in soft_ids
        entry = {"text": _text(tokeniser, token), "id": token, "role": "media" if is_media else "prompt"}
        shown += [{**entry, "count": count}] if is_media else [{**entry, "count": 1}] * count
    return shown


def _soft_ids(tokeniser: Tokeniser) -> set[int]:
    if getattr(tokeniser.processor, "image_processor", None) is None:
        return set()
    return set(tokeniser.tokenizer.convert_tokens_to_ids(list(soft_tokens(tokeniser.processor))))


def _response(tokeniser: Tokeniser, tree: PromptTree, k: int) -> dict[str, Any]:
    ids: Tensor = tree.response_ids[k]
    weights = [1.0] * len(ids) if tree.response_weights is None else tree.response_weights[k].tolist()
    tokens = [
        {"text": _text(tokeniser, token), "id": token, "weight": weight}
        for token, weight in zip(ids.tolist(), weights, strict=True)
    ]
    return {"level": tree.levels[k], "text": tokeniser.tokenizer.decode(ids), "tokens": tokens}


def _text(tokeniser: Tokeniser, token: int) -> str:
    """Return a token as text; pieces of one character, which have none of their own, as the vocabulary names them."""
    text = tokeniser.tokenizer.decode([token])
    return text if text and "\ufffd" not in text else str(tokeniser.tokenizer.convert_ids_to_tokens(token))


def _medium(tokeniser: Tokeniser, preference: Preference, index: int) -> dict[str, Any]:
    """Return what is known of a medium from its header, as its modality names it; a pair is width and height."""
    ref, field = preference.media[index], field_of(preference, index)
    shape = MODALITIES[ref.kind].check(ref, tokeniser.limits[ref.kind], field=field)
    known = asdict(shape) if is_dataclass(shape) else dict(zip(("width", "height"), shape, strict=True))
    return {"field": field, "kind": ref.kind, "name": fetch.shown(ref)[:120], **known}
