"""What a policy is compared with, as the recipe says: nothing, another model, the start of the run, or a table."""

from __future__ import annotations

from dataclasses import replace

from accelerate import Accelerator
from torch import nn

from mmalign.config.schema import TRL_MIXUP_ALPHA, RecipeConfig
from mmalign.engine import fingerprint
from mmalign.engine.families import family_of
from mmalign.engine.head import softcap_of
from mmalign.engine.load import load_config, load_model
from mmalign.engine.moving_reference import EarlierAdapter, MovingReference
from mmalign.engine.policy import Policy
from mmalign.engine.reference import AdapterOff, FrozenCopy, NoReference, Precomputed, Reference
from mmalign.engine.reference_table import ReferenceTable
from mmalign.engine.token_terms import require_uncapped
from mmalign.errors import ConfigError
from mmalign.objectives.compose import Objective
from mmalign.objectives.dense import GAINED_LOGPS, REFERENCE_KL, TOKEN_REWARD
from mmalign.recipes.tables import Filling, fill, missing_rows
from mmalign.train.beside import Sources
from mmalign.train.loader import LoadedBatch
from mmalign.train.loop import Course, Split
from mmalign.train.runtime import is_sharded
from mmalign.train.step import Learner


def require_possible(config: RecipeConfig, objective: Objective, start: str, accelerator: Accelerator) -> None:
    """Check what is known to be impossible before rows are prepared and models are loaded.

    Args:
        start: directory or hub id of the model as it starts; its config alone is read.

    Raises:
        ConfigError: no rank holds the weights that the reference would follow.
        ModelError: the model caps its logits, and the objective takes differences of them.
    """
    if is_sharded(accelerator) and config.model.reference_update is not None:
        raise ConfigError(
            f"{accelerator.distributed_type.value} spreads the policy over ranks, and no rank holds the weights that "
            "model.reference_update would copy; leave it out, or run with DDP"
        )
    if GAINED_LOGPS in objective.dense:
        model = load_config(start, config.model.trust_remote_code)
        require_uncapped(softcap_of(model, family_of(model)))


def build_reference(config: RecipeConfig, policy: Policy, objective: Objective, accelerator: Accelerator) -> Reference:
    """Return what the policy is compared with: nothing, another model, or the start of the run.

    Call it before the policy moves and before it is wrapped.

    Raises:
        ConfigError: a second whole model would be needed where none fits on one rank.
    """
    reference = _at_start(config, policy, objective, accelerator)
    update = config.model.reference_update
    if update is None or isinstance(reference, NoReference):
        return reference
    share = 1.0 if update.kind == "sync" else update.mixup_alpha or TRL_MIXUP_ALPHA
    return MovingReference(reference, policy, every_steps=update.every_steps, share=share)


def _at_start(config: RecipeConfig, policy: Policy, objective: Objective, accelerator: Accelerator) -> Reference:
    if not objective.needs_reference:
        return NoReference()
    # What an adapter starts from is the bare model, unless it goes on with weights that it had before.
    adapter_off = config.model.lora is not None and config.model.adapter is None
    named = config.model.reference
    if named == config.model.path and config.model.lora is not None:
        adapter_off, named = True, None
    needs_second_model = named is not None or (not adapter_off and not config.model.precompute_reference)
    if is_sharded(accelerator) and needs_second_model:
        table = "" if REFERENCE_KL in objective.dense else "set model.precompute_reference: true or "
        raise ConfigError(
            f"{accelerator.distributed_type.value} spreads the policy over ranks, but a second model stands whole "
            f"on each; leave out model.reference, and {table}train with model.lora"
        )
    if named is not None:
        return FrozenCopy.of_model(_frozen_model(config, named), policy)
    if adapter_off:
        return AdapterOff(policy) if config.model.reference_update is None else EarlierAdapter(policy)
    # A table is filled before the first step, while the policy itself still is the start.
    return FrozenCopy(policy) if config.model.precompute_reference else FrozenCopy.of_start(policy)


def build_sources(config: RecipeConfig, policy: Policy, objective: Objective, accelerator: Accelerator) -> Sources:
    """Return what is asked beside policy and reference; a teacher's tables are added by `teaching.py`.

    Raises:
        ConfigError: a second whole model would be needed where none fits on one rank.
    """
    if TOKEN_REWARD not in objective.dense:
        return Sources()
    if is_sharded(accelerator):
        raise ConfigError(
            f"{accelerator.distributed_type.value} spreads the policy over ranks, but model.token_reward stands whole "
            "on each; run on several ranks without sharding, with model.lora"
        )
    return Sources(token_reward=FrozenCopy.of_model(_frozen_model(config, config.model.token_reward), policy))


def _frozen_model(config: RecipeConfig, path: str) -> nn.Module:
    return load_model(
        path,
        dtype=config.weights_dtype(),
        attn_implementation=config.model.attn_implementation,
        quantize=config.model.quantize,
        trust_remote_code=config.model.trust_remote_code,
    )


def version_for_table(config: RecipeConfig, reference: Reference) -> str | None:
    """Return what a table of this reference is marked with, None when the recipe wants no table.

    Call it while every rank still holds the whole model.
    """
    if not config.model.precompute_reference or isinstance(reference, NoReference):
        return None
    return fingerprint.of_weights(reference.models[0])


def with_precomputed_reference(course: Course, version: str | None) -> Course:
    """Return the course with tables in place of the reference model, filled where rows are missing.

    Call it before the policy moves; a killed run goes on with the rows that are missing.

    Args:
        version: from `version_for_table`; None leaves the course as it is.

    Raises:
        CheckpointError: a table there was made with another model, other rows or another processor.
        DataError: too many rows could not be loaded.
    """
    if version is None:
        return course
    train = _with_table(course.train, course, version, "train")
    held_out = None if course.held_out is None else _with_table(course.held_out, course, version, "eval")
    return replace(course, train=train, held_out=held_out)


def _with_table(split: Split, course: Course, version: str, name: str) -> Split:
    accelerator, rows = split.learner.accelerator, split.reader.rows
    table = ReferenceTable.open(
        course.run.data / f"reference-{name}",
        rows=list(rows.table_rows()),
        made_with={
            "model": version,
            "rows": rows.fingerprint,
            "processor": rows.facts["fingerprint"],
            "precision": accelerator.mixed_precision,
        },
    )
    missing = missing_rows(table, rows)
    accelerator.wait_for_everyone()
    how = Filling(
        accelerator=accelerator,
        reader=split.reader,
        sampler=split.sampler,
        data=course.data,
        quarantine=course.run.quarantine,
        name=f"reference log-probs of {name} rows",
    )
    reader = fill(table, missing, how, lambda loaded: _write_reference(table, split.learner, loaded))
    return Split(reader, split.sampler, replace(split.learner, reference=Precomputed(table)))


def _write_reference(table: ReferenceTable, learner: Learner, loaded: LoadedBatch) -> None:
    batch = loaded.batch.to(learner.accelerator.device)
    with learner.vision.batch(batch):  # features cached here are there for the first epoch
        logps = learner.reference(batch)
    if not loaded.is_filler:
        table.write(batch.ids, logps, batch.response_lengths)
