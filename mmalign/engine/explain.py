"""What becomes of one row, for people: `mmalign data show` prints this."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmalign.engine import media_tokens
from mmalign.formats.preference import Preference
from mmalign.modalities import fetch, image

if TYPE_CHECKING:
    from mmalign.engine.tokenise import PromptTree, Tokeniser


def explain(tokeniser: Tokeniser, preference: Preference) -> dict[str, Any]:
    """Return what `tokeniser` makes of a row, ready for JSON.

    Keys: "id"; "prompt": list of {"text", "id", "role" ("prompt" or "media"), "count"}, runs of one media token taken
    together; "responses": list of {"level", "text", "tokens": [{"text", "id", "weight"}]}, every token of which is
    scored; "media": list of {"name", "width", "height", "media_key"...}; "inputs": shapes of the processor's tensors;
    "lengths"; "ends_turn".

    Raises:
        RowError: the row would be refused.
    """
    tree, lengths = tokeniser(preference), tokeniser.lengths(preference)
    return {
        "id": tree.id,
        "prompt": _prompt_tokens(tokeniser, tree),
        "responses": [_response(tokeniser, tree, k) for k in range(len(tree.response_ids))],
        "media": [_medium(tokeniser, ref, f"images[{i}]") for i, ref in enumerate(preference.media)],
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
    return {tokeniser.tokenizer.convert_tokens_to_ids(media_tokens.soft_token(tokeniser.processor))}


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


def _medium(tokeniser: Tokeniser, ref: Any, field: str) -> dict[str, Any]:
    width, height = image.check(ref, tokeniser.limits, field=field)
    name = fetch.shown(ref)
    return {"field": field, "name": name[:120], "width": width, "height": height}
