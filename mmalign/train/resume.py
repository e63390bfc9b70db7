"""A run into a checkpoint and back: weights, optimiser, random states and position, together.

One process, or several under DDP, write files that anybody can read (`checkpoint.py`, `state.py`). Where the model or
its optimiser is spread over ranks (FSDP2, DeepSpeed), accelerate's own sharded format takes their place below
`sharded/`; it is read back by as many ranks as wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmalign.engine.policy import Policy
from mmalign.errors import ConfigError
from mmalign.train import checkpoint, state
from mmalign.train.checkpoint import Position
from mmalign.train.runtime import is_sharded
from mmalign.train.step import Learner


def save_checkpoint(
    learner: Learner, root: Path, position: Position, identity: Mapping[str, Any], keep: int | None
) -> Path:
    """Write the checkpoint of `position`; all ranks call it together.

    Args:
        root: the run's `checkpoints/`.
        identity: facts that a continuation must share.
        keep: number of newest checkpoints to keep, None for all.

    Raises:
        CheckpointError: it could not be written; earlier ones are whole.
    """
    accelerator = learner.accelerator
    with ExitStack() as stack:
        if accelerator.is_main_process:
            directory = stack.enter_context(checkpoint.writing(root, position, identity))
        else:
            directory = checkpoint.unfinished_place(root, position)
        accelerator.wait_for_everyone()
        _write(learner, directory)
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        checkpoint.prune(root, keep)
    accelerator.wait_for_everyone()
    return checkpoint.place_of(root, position)


def load_checkpoint(learner: Learner, path: Path, identity: Mapping[str, Any]) -> Position:
    """Bring learner and generators to where they were; all ranks call it together.

    Raises:
        CheckpointError: the checkpoint belongs to another run, or does not fit the model.
    """
    position = checkpoint.read_position(path, identity)
    accelerator = learner.accelerator
    if is_sharded(accelerator):
        accelerator.load_state(str(path / "sharded"))
    else:
        policy: Policy = accelerator.unwrap_model(learner.policy)
        state.load_model(policy.model, path / "model")
        state.load_optimizer(learner.optimizer, policy, path / "optimizer.safetensors")
    if learner.memory:
        learner.memory.update(state.load_memory(path / "memory.safetensors"))
    if learner.following is not None:
        state.load_reference(learner.following.weights, path / "reference.safetensors")
    random_states = path / f"rng-{accelerator.process_index}.safetensors"
    if random_states.exists():
        state.load_random_states(random_states)
    return position


def begin_with_optimizer(learner: Learner, path: Path) -> None:
    """Give the optimiser the state (moments, step counts) of another run's checkpoint; its settings stay this run's.

    Raises:
        CheckpointError: the checkpoint's optimiser moved other weights.
        ConfigError: the optimiser is spread over ranks.
    """
    accelerator, optimizer = learner.accelerator, learner.optimizer
    if is_sharded(accelerator):
        raise ConfigError(
            f"{accelerator.distributed_type.value} spreads the optimiser over ranks, whose state cannot be taken from "
            "another run; leave out train.optimizer_from (optimizer: kept in a stage)"
        )
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    state.load_optimizer(optimizer, accelerator.unwrap_model(learner.policy), path / "optimizer.safetensors")
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def _write(learner: Learner, directory: Path) -> None:
    accelerator = learner.accelerator
    state.save_random_states(directory / f"rng-{accelerator.process_index}.safetensors")
    if learner.memory and accelerator.is_main_process:
        state.save_memory(learner.memory, directory / "memory.safetensors")
    if learner.following is not None and accelerator.is_main_process:
        state.save_reference(learner.following.weights, directory / "reference.safetensors")
    if is_sharded(accelerator):
        accelerator.save_state(str(directory / "sharded"))
    elif accelerator.is_main_process:
        policy: Policy = accelerator.unwrap_model(learner.policy)
        state.save_model(policy.model, directory / "model")
        state.save_optimizer(learner.optimizer, policy, directory / "optimizer.safetensors")
