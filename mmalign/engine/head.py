"""The language-model head, applied to the hidden states of response tokens only."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PretrainedConfig

from mmalign.engine.distributions import Distributions, plain_logps
from mmalign.engine.families import Family, backbone_of
from mmalign.engine.logps import response_log_purity, response_logps


def distributions_of(base: nn.Module, family: Family, hidden: Tensor, *, bare: bool = False) -> Distributions:
    """Return the next-token distributions that the head makes of hidden states, without computing them.

    Args:
        base: the transformers model with its head (not the PEFT wrapper).
        hidden: [N, D], what the inner model gives at the predicting columns; logits [N, V] of an unknown model.
        bare: leave adapters and trained copies of the head out, also while they are switched on.
    """
    if not family.known:
        return Distributions(hidden, None)
    text, backbone = base.config.get_text_config(), backbone_of(base.config)
    if backbone.logit_factor is not None:
        hidden = hidden * getattr(text, backbone.logit_factor)
    if backbone.logit_divisor is not None:
        hidden = hidden / getattr(text, backbone.logit_divisor)
    weight, bias = head_weight(base.get_output_embeddings(), bare=bare)
    return Distributions(hidden, weight, bias, softcap_of(base.config, family))


def softcap_of(config: PretrainedConfig, family: Family) -> float | None:
    """Return what a model caps its logits at, None where it leaves them as they are."""
    return getattr(config.get_text_config(), "final_logit_softcapping", None) if family.softcap else None


def head_logps(own: Distributions, targets: Tensor) -> Tensor:
    """Return log p(target) of each token, fp32 [N].

    Args:
        own: distributions of N tokens.
        targets: int64 [N].
    """
    if own.weight is None:
        return plain_logps(own).gather(1, targets[:, None]).squeeze(1)
    return response_logps(own.hidden, own.weight, own.bias, targets, own.softcap)


def head_log_purity(own: Distributions) -> Tensor:
    """Return log sum_v p(v)^2 of the distribution of each token, fp32 [N], without gradient."""
    if own.weight is None:
        return (2 * plain_logps(own.detach())).logsumexp(-1)
    return response_log_purity(own.hidden.detach(), own.weight, own.bias, own.softcap)


def head_weight(head: nn.Module, *, bare: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return weight [V, D] and bias of a head that may be a copy in training or carry LoRA (then W + s B A).

    Args:
        bare: as it is while adapters are switched off.
    """
    if hasattr(head, "modules_to_save"):
        off = bare or head.disable_adapters
        head = head.original_module if off else head.modules_to_save[head.active_adapters[0]]
    if not hasattr(head, "get_delta_weight"):
        return head.weight, head.bias
    base = head.get_base_layer()
    weight = base.weight
    if not bare and not head.disable_adapters and not head.merged:
        for adapter in head.active_adapters:
            if adapter in head.lora_A:
                weight = weight + head.get_delta_weight(adapter)
    return weight, base.bias
