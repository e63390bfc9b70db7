"""Devices, precision, ranks and seeds of a run: the one place that sets up accelerate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, set_seed
from torch import nn
from transformers.utils.logging import disable_progress_bar

from mmalign.config.schema import TrainConfig
from mmalign.errors import ConfigError

_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


def start(config: TrainConfig) -> Accelerator:
    """Return the accelerator of a new run in this process, with threads and seeds set.

    How many processes there are, and whether they run DDP, FSDP2 or DeepSpeed, is what `accelerate launch` says.
    Precision is what the recipe says.

    Raises:
        ConfigError: a tracker of train.report_to is not installed.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # accelerate keeps one state per process; a second run in it may want another precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision="bf16" if config.bf16 else "no",
        log_with=list(config.report_to) or None,
        project_dir=config.output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )
    missing = set(config.report_to) - {tracker.value for tracker in accelerator.log_with}
    if missing:
        names = ", ".join(sorted(missing))
        raise ConfigError(f"train.report_to names {names}, which is not installed; pip install it, or remove it")
    set_seed(config.seed)
    disable_progress_bar()  # transformers draws one for every file it writes, checkpoints included
    if not accelerator.is_main_process:
        logging.getLogger("mmalign").setLevel(logging.WARNING)
    return accelerator


def start_trackers(accelerator: Accelerator, facts: Mapping[str, Any], name: str) -> None:
    """Open the trackers of train.report_to.

    Args:
        facts: flat settings of the run, shown beside its curves.
        name: of the run.
    """
    plain = {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in facts.items()}
    if accelerator.log_with:
        accelerator.init_trackers("mmalign", config=plain, init_kwargs={"wandb": {"name": name}})


def finish_trackers(accelerator: Accelerator) -> None:
    """Close the trackers of a run. Ranks stay together: another run may follow in the same processes."""
    for tracker in accelerator.trackers:
        tracker.finish()


def part() -> None:
    """Take the ranks apart, once no run follows."""
    PartialState().destroy_process_group()


def prepare(
    accelerator: Accelerator, policy: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return policy and optimiser as the ranks run them."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            train_micro_batch_size_per_gpu=config.per_device_train_batch_size,
            gradient_accumulation_steps=1,  # a step says itself which backward pass is its last
            gradient_clipping=config.max_grad_norm or 0.0,
        )
    return accelerator.prepare(policy, optimizer)


def is_sharded(accelerator: Accelerator) -> bool:
    """Say whether no rank holds the whole model (FSDP) or its optimiser (DeepSpeed)."""
    return accelerator.distributed_type in _SHARDED
