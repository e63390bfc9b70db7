"""The language-model head, applied to the hidden states of response tokens only."""

from __future__ import annotations

from torch import Tensor, nn

from mmalign.engine.families import Family, backbone_of
from mmalign.engine.logps import response_log_purity, response_logps


def head_logps(base: nn.Module, family: Family, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return log p(target) of each token, fp32 [N].

    Args:
        base: the transformers model with its head (not the PEFT wrapper).
        hidden: [N, D], what the inner model gives at the predicting columns.
        targets: int64 [N].
    """
    hidden, weight, bias, softcap = _factors_of_logits(base, family, hidden)
    return response_logps(hidden, weight, bias, targets, softcap)


def head_log_purity(base: nn.Module, family: Family, hidden: Tensor) -> Tensor:
    """Return log sum_v p(v)^2 of the distribution of each token, fp32 [N], without gradient; see `head_logps`."""
    return response_log_purity(*_factors_of_logits(base, family, hidden))


def _factors_of_logits(
    base: nn.Module, family: Family, hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, float | None]:
    """Return scaled hidden states, weight and bias of the head, and its soft cap."""
    text, backbone = base.config.get_text_config(), backbone_of(base.config)
    if backbone.logit_factor is not None:
        hidden = hidden * getattr(text, backbone.logit_factor)
    if backbone.logit_divisor is not None:
        hidden = hidden / getattr(text, backbone.logit_divisor)
    weight, bias = head_weight(base.get_output_embeddings())
    softcap = getattr(text, "final_logit_softcapping", None) if family.softcap else None
    return hidden, weight, bias, softcap


def head_weight(head: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight [V, D] and bias of a head that may be a copy in training or carry LoRA (then W + s B A)."""
    if hasattr(head, "modules_to_save"):
        head = head.original_module if head.disable_adapters else head.modules_to_save[head.active_adapters[0]]
    if not hasattr(head, "get_delta_weight"):
        return head.weight, head.bias
    base = head.get_base_layer()
    weight = base.weight
    if not head.disable_adapters and not head.merged:
        for adapter in head.active_adapters:
            if adapter in head.lora_A:
                weight = weight + head.get_delta_weight(adapter)
    return weight, base.bias
