"""AdamW over the weights that move, and the learning rate as a pure function of the step.

A schedule without state needs no place in a checkpoint: step n has the same learning rate whether the run came to it in
one go or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import get_scheduler

from mmalign.config.schema import TrainConfig
from mmalign.errors import ModelError

Schedule = Callable[[int], float]


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW over the parameters of `model` that require gradients.

    Matrices decay by `weight_decay`; vectors and scalars (biases, norm scales) do not.

    Raises:
        ModelError: no parameter requires a gradient.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ModelError("no weight of the model is trained; free a part in model.freeze, or add model.lora")
    decayed = [parameter for parameter in trained if parameter.ndim >= 2]
    others = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in ((decayed, config.weight_decay), (others, 0.0))
        if parameters
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=all(parameter.device.type in ("cpu", "cuda") for parameter in trained),
    )


def fill_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Give weights that no row of the step reached a gradient of 0, before the step is taken.

    AdamW passes over a weight that has no gradient. Ranks that exchange gradients have zeros there (the vision tower in
    a step of text alone), and momentum and decay go on with those; one process must do the same.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


def build_schedule(config: TrainConfig, total_steps: int) -> Schedule:
    """Return the function from step (counted from 0) to the learning rate that step uses.

    The shapes are those of `transformers.get_scheduler`.
    """
    probe = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(
        config.lr_scheduler_type,
        probe,
        num_warmup_steps=warmup_steps(config, total_steps),
        num_training_steps=total_steps,
    )
    (factor,) = schedule.lr_lambdas
    return lambda step: config.learning_rate * float(factor(step))


def warmup_steps(config: TrainConfig, total_steps: int) -> int:
    """Return over how many steps the learning rate rises."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return math.ceil((config.warmup_ratio or 0.0) * total_steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
