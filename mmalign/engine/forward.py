"""One call of the model: what goes in, and where in its hidden states the response tokens are predicted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmalign.engine.families import Family
from mmalign.engine.masks import tree_attention_mask, tree_positions
from mmalign.engine.ragged_videos import ragged_videos
from mmalign.engine.shortcuts import shortcuts
from mmalign.engine.tree import TreeBatch


@dataclass(frozen=True, kw_only=True)
class ModelCall:
    """Inputs of one forward of the model, and the N places to read.

    Args:
        inputs: token ids, attention mask, positions when they are not the model's own, token types.
        media: what the vision side reads.
        rows, columns: int64 [N]; the hidden state at (rows[n], columns[n]) predicts the n-th response token.
    """

    inputs: dict[str, Any]
    media: dict[str, Tensor] = field(default_factory=dict)
    rows: Tensor
    columns: Tensor


def tree_call(batch: TreeBatch, family: Family, inner: nn.Module) -> ModelCall:
    """Return the call that computes every prompt once.

    Args:
        inner: the transformers model without its language-model head.
    """
    config = inner.config
    eager = config.get_text_config()._attn_implementation == "eager"
    mask = tree_attention_mask(batch, family, config, additive_dtype=inner.dtype if eager else None)
    return ModelCall(
        inputs={
            "input_ids": batch.input_ids,
            "attention_mask": mask,
            "position_ids": tree_positions(batch, family, inner),
        },
        media=batch.media,
        rows=batch.target_rows,
        columns=batch.predicting_columns,
    )


def hidden_states(inner: nn.Module, call: ModelCall) -> Tensor:
    """Run the model without its head and return the N hidden states that predict the response tokens, [N, D]."""
    with shortcuts(inner, call.rows, call.columns, call.inputs["input_ids"].shape), ragged_videos(inner):
        output = inner(**call.inputs, **call.media, use_cache=False)
    return output.last_hidden_state[call.rows, call.columns]
