"""What a policy is compared with, as the recipe says: nothing, another model, the start of the run, or a table."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from accelerate import Accelerator

from mmalign.config.schema import TRL_MIXUP_ALPHA, RecipeConfig
from mmalign.engine import fingerprint
from mmalign.engine.load import load_model
from mmalign.engine.moving_reference import EarlierAdapter, MovingReference
from mmalign.engine.policy import Policy
from mmalign.engine.reference import AdapterOff, FrozenCopy, NoReference, Precomputed, Reference
from mmalign.engine.reference_table import ReferenceTable
from mmalign.errors import ConfigError
from mmalign.objectives.compose import Objective
from mmalign.sources.quarantine import Quarantine
from mmalign.train.loader import LoadedBatch, load_ahead
from mmalign.train.loop import Course, Split
from mmalign.train.progress import Counting
from mmalign.train.rows import PreparedRows
from mmalign.train.runtime import is_sharded
from mmalign.train.step import Learner
from mmalign.train.vanished import record, require_few


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
    if is_sharded(accelerator) and config.model.reference_update is not None:
        raise ConfigError(
            f"{accelerator.distributed_type.value} spreads the policy over ranks, and no rank holds the weights that "
            "model.reference_update would copy; leave it out, or run with DDP"
        )
    # What an adapter starts from is the bare model, unless it goes on with weights that it had before.
    adapter_off = config.model.lora is not None and config.model.adapter is None
    named = config.model.reference
    if named == config.model.path and config.model.lora is not None:
        adapter_off, named = True, None
    needs_second_model = named is not None or (not adapter_off and not config.model.precompute_reference)
    if is_sharded(accelerator) and needs_second_model:
        raise ConfigError(
            f"{accelerator.distributed_type.value} spreads the policy over ranks, but a second model stands whole "
            "on each; leave out model.reference, and set model.precompute_reference: true or train with model.lora"
        )
    if named is not None:
        model = load_model(
            named,
            dtype=config.weights_dtype(),
            attn_implementation=config.model.attn_implementation,
            quantize=config.model.quantize,
            trust_remote_code=config.model.trust_remote_code,
        )
        return FrozenCopy.of_model(model, policy)
    if adapter_off:
        return AdapterOff(policy) if config.model.reference_update is None else EarlierAdapter(policy)
    # A table is filled before the first step, while the policy itself still is the start.
    return FrozenCopy(policy) if config.model.precompute_reference else FrozenCopy.of_start(policy)


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
    # Nobody writes before everybody has asked: ranks share out the rows that they found missing.
    missing = _rows_missing(table, rows)
    accelerator.wait_for_everyone()
    if missing:
        sampler = replace(split.sampler, lengths=[split.sampler.lengths[row] for row in missing], shuffle=False)
        plan = (
            tuple(missing[row] for row in rows)
            for step in range(sampler.steps_per_epoch)
            for rows in sampler.micro_batches(step, accelerator.process_index)
        )
        counting = Counting(f"reference log-probs of {name} rows, batches")
        loading = closing(load_ahead(split.reader, plan, course.data.num_workers))
        refused = Quarantine(course.run.quarantine, max_share=1.0)
        with loading as batches, closing(refused), counting, accelerator.autocast():
            for loaded in counting.each(batches):
                record(loaded.refused, refused)
                _write_reference(table, split.learner, loaded)
        accelerator.wait_for_everyone()
    left_out = frozenset(_rows_missing(table, rows))
    require_few(
        f"reference log-probs of {name} rows",
        len(left_out),
        rows=len(rows),
        max_share=course.data.max_refused_share,
        quarantine=course.run.quarantine,
    )
    reader = replace(split.reader, left_out=left_out)
    return Split(reader, split.sampler, replace(split.learner, reference=Precomputed(table)))


def _rows_missing(table: ReferenceTable, rows: PreparedRows) -> list[int]:
    """Return the numbers of the rows that the table misses in some view, in ascending order."""
    return sorted({number // (1 + len(rows.views)) for number in table.missing()})


def _write_reference(table: ReferenceTable, learner: Learner, loaded: LoadedBatch) -> None:
    batch = loaded.batch.to(learner.accelerator.device)
    with learner.vision.batch(batch):  # features cached here are there for the first epoch
        logps = learner.reference(batch)
    if not loaded.is_filler:
        table.write(batch.ids, logps, batch.response_lengths)
