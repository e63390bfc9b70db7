"""The parts that training recipes share, in the order in which a recipe calls them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from mmalign.config.media import media_limits
from mmalign.config.schema import RecipeConfig
from mmalign.engine.families import family_of
from mmalign.engine.load import load_config
from mmalign.engine.moving_reference import MovingReference
from mmalign.engine.policy import Policy, load_policy
from mmalign.engine.reference import Reference
from mmalign.engine.tokenise import Tokeniser, load_processor
from mmalign.engine.vision_memo import VisionMemo
from mmalign.objectives.compose import Objective
from mmalign.recipes import built_in
from mmalign.recipes.identity import identity_of, optimizer_checkpoint
from mmalign.train import rundir, runtime
from mmalign.train.beside import NO_SOURCES, Sources
from mmalign.train.checkpoint import Position, latest, prune
from mmalign.train.loader import BatchReader, KeptTrees
from mmalign.train.loop import Course, Split
from mmalign.train.optim import build_optimizer, build_schedule
from mmalign.train.prepare import Preparation, prepare
from mmalign.train.reliance import Looking, looking
from mmalign.train.resume import begin_with_optimizer, load_checkpoint
from mmalign.train.row_change import row_change
from mmalign.train.rows import PreparedRows
from mmalign.train.rundir import RunDirectory
from mmalign.train.runtime import is_sharded
from mmalign.train.sampler import StepSampler
from mmalign.train.step import Learner

_KEPT_TREES_BYTES = 256 * 2**20
"""Memory for rows that stay tokenised between epochs, for each process that loads."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Prepared rows of a run and their tokenisers; `held_out` may be missing."""

    train: PreparedRows
    train_tokeniser: Tokeniser
    held_out: PreparedRows | None = None
    held_out_tokeniser: Tokeniser | None = None

    def fingerprints(self) -> dict[str, str]:
        """Return short texts that stand for the content of the rows."""
        held_out = {} if self.held_out is None else {"held_out_rows": self.held_out.fingerprint}
        return {"rows": self.train.fingerprint, **held_out}


def open_directory(config: RecipeConfig, accelerator: Accelerator, *, resume: bool) -> RunDirectory:
    """Make or find the run directory on the main process; see `rundir.open_run`."""
    if accelerator.is_main_process:
        rundir.open_run(config, resume=resume)
    accelerator.wait_for_everyone()
    return RunDirectory(Path(config.train.output_dir))


def start_path(config: RecipeConfig, run: RunDirectory, accelerator: Accelerator) -> str:
    """Return the directory or hub id of the model as it starts; a built-in one is written to the run directory."""
    return built_in.start_of(config.model.path, run, accelerator, seed=config.train.seed)


def with_companions(config: RecipeConfig, run: RunDirectory, accelerator: Accelerator) -> RecipeConfig:
    """Return the recipe with the built-in models beside its policy in the run directory; see `built_in`."""
    return built_in.with_built_in_companions(config, run, accelerator)


def prepare_rows(
    config: RecipeConfig, run: RunDirectory, start: str, objective: Objective, accelerator: Accelerator
) -> Rows:
    """Return the prepared rows of every split; made by the main process, awaited by the others."""
    family = family_of(load_config(start, config.model.trust_remote_code))
    processor = load_processor(start, trust_remote_code=config.model.trust_remote_code)

    def split(name: str, source: str) -> tuple[PreparedRows, Tokeniser]:
        limits = media_limits(config.data, source)
        tokeniser = Tokeniser(processor, family, limits, max_length=config.data.max_length)
        how = Preparation(
            config=config.data,
            tokeniser=tokeniser,
            responses_read=objective.responses_read,
            views=objective.views,
            read_in=objective.read_in,
            require=objective.require_row,
            borrows=objective.needs_mismatch,
            reads=objective.description,
            directory=run.data,
            quarantine=run.quarantine,
            change=row_change(config.data, held_out=name == "eval"),
        )
        return prepare(name, source, how, writes=accelerator.is_main_process), tokeniser

    train, train_tokeniser = split("train", config.data.train)
    if config.data.eval is None:
        return Rows(train=train, train_tokeniser=train_tokeniser)
    held_out, held_out_tokeniser = split("eval", config.data.eval)
    return Rows(train=train, train_tokeniser=train_tokeniser, held_out=held_out, held_out_tokeniser=held_out_tokeniser)


def load_start(config: RecipeConfig, start: str, accelerator: Accelerator) -> Policy:
    """Return the model as it starts, on its device, with adapters and frozen parts as the recipe says."""
    policy = load_policy(
        start,
        engine=config.engine,
        dtype=config.weights_dtype(),
        attn_implementation=config.model.attn_implementation,
        quantize=config.model.quantize,
        trust_remote_code=config.model.trust_remote_code,
        lora=config.model.lora,
        adapter=config.model.adapter,
        freeze=config.model.freeze,
        gradient_checkpointing=config.train.gradient_checkpointing,
    )
    # Sharded models find their devices in `accelerator.prepare`, quantised ones have theirs.
    movable = not is_sharded(accelerator) and config.model.quantize is None
    return policy.to(accelerator.device) if movable else policy


def reader_of(rows: PreparedRows, tokeniser: Tokeniser, objective: Objective, *, read_again: bool) -> BatchReader:
    """Return what turns row numbers into micro-batches; rows that are read more than once stay tokenised."""
    return BatchReader(
        rows=rows,
        tokenise=tokeniser.trees,
        responses_read=objective.responses_read,
        views=objective.views,
        read_in=objective.read_in,
        family=tokeniser.family,
        pad_id=tokeniser.pad_id,
        answers=tokeniser.answers if objective.needs_mismatch else None,
        max_length=tokeniser.max_length,
        kept=KeptTrees(_KEPT_TREES_BYTES if read_again else 0),
    )


def build_learner(
    config: RecipeConfig,
    policy: Policy,
    reference: Reference,
    objective: Objective,
    accelerator: Accelerator,
    sources: Sources = NO_SOURCES,
) -> Learner:
    """Return policy and optimiser ready for one process or many, with reference, objective and shared vision."""
    references = () if config.model.precompute_reference else reference.models
    asked = [policy.base, *references, *sources.token_reward.models]
    models = asked if config.vision.share == "auto" else []
    cache_gb = config.vision.cache_max_gb or 20.0
    vision = VisionMemo(
        models,
        policy.family,
        cache_dir=config.vision.cache_dir,
        cache_max_bytes=int(cache_gb * 10**9),
        autocast=accelerator.autocast,
    )
    prepared, optimizer = runtime.prepare(accelerator, policy, build_optimizer(policy, config.train), config.train)
    return Learner(
        accelerator=accelerator,
        policy=prepared,
        reference=reference,
        vision=vision,
        objective=objective,
        sources=sources,
        optimizer=optimizer,
        max_grad_norm=config.train.max_grad_norm,
        memory=objective.first_memory(),
        following=reference if isinstance(reference, MovingReference) else None,
    )


def build_course(config: RecipeConfig, run: RunDirectory, rows: Rows, learner: Learner, start: str) -> Course:
    """Return the plan of the run: order of rows, length, learning rates, and what a continuation must share."""
    ranks = learner.accelerator.num_processes
    engine = learner.accelerator.unwrap_model(learner.policy).engine
    sampler = train_sampler(config, rows, engine, ranks)
    total_steps = sampler.total_steps(epochs=config.train.num_train_epochs, max_steps=config.train.max_steps)
    read_again = total_steps > sampler.steps_per_epoch
    held_out = held_out_split(config, rows, learner, engine, rows_per_step=sampler.rows_per_step)
    return Course(
        train=Split(
            reader_of(rows.train, rows.train_tokeniser, learner.objective, read_again=read_again), sampler, learner
        ),
        held_out=held_out,
        looking=None if held_out is None else looked_at(config, held_out, rows.held_out_tokeniser),
        config=config.train,
        data=config.data,
        total_steps=total_steps,
        schedule=build_schedule(config.train, total_steps),
        run=run,
        identity=identity_of(config, rows.fingerprints(), start, sampler.rows_per_step),
    )


def train_sampler(config: RecipeConfig, rows: Rows, engine: str, ranks: int) -> StepSampler:
    """Return the order of the training rows."""
    train = config.train
    return StepSampler(
        lengths=rows.train.padded_tokens(engine),
        per_device_rows=train.per_device_train_batch_size,
        accumulation=train.gradient_accumulation_steps,
        world_size=ranks,
        seed=train.seed,
        shuffle=train.shuffle,
        max_tokens_per_batch=train.max_tokens_per_batch,
    )


def held_out_split(
    config: RecipeConfig, rows: Rows, learner: Learner, engine: str, *, rows_per_step: int
) -> Split | None:
    """Return held-out rows in file order, cut by length, or None.

    Args:
        rows_per_step: of training; an objective that compares across a step is told as much of held-out rows at a time,
            so that its loss there can be set beside that of training.
    """
    if rows.held_out is None:
        return None
    sampler = scoring_sampler(config, rows.held_out, engine, learner.accelerator.num_processes)
    if learner.objective.whole_step:
        sampler = replace(sampler, step_rows=rows_per_step)
    read_again = config.train.eval_steps is not None
    reader = reader_of(rows.held_out, rows.held_out_tokeniser, learner.objective, read_again=read_again)
    return Split(reader, sampler, learner)


def scoring_sampler(config: RecipeConfig, rows: PreparedRows, engine: str, ranks: int) -> StepSampler:
    """Return what deals rows that are scored, not learnt from: in file order, cut by length."""
    return StepSampler(
        lengths=rows.padded_tokens(engine),
        per_device_rows=config.train.per_device_eval_batch_size or config.train.per_device_train_batch_size,
        world_size=ranks,
        shuffle=False,
        max_tokens_per_batch=config.train.max_tokens_per_batch,
    )


def looked_at(config: RecipeConfig, held_out: Split, tokeniser: Tokeniser) -> Looking | None:
    """Return the held-out rows on which image reliance is measured, None where none has media."""
    keep_bytes = _KEPT_TREES_BYTES if config.train.eval_steps is not None else 0
    return looking(held_out.reader, held_out.sampler, tokeniser, keep_bytes=keep_bytes)


def continue_or_begin(course: Course, *, resume: bool) -> Position:
    """Bring the learner to the newest whole checkpoint, if there is one to resume, and say where the run begins."""
    accelerator, run = course.train.learner.accelerator, course.run
    if accelerator.is_main_process:
        prune(run.checkpoints, keep=None)
    accelerator.wait_for_everyone()
    path = latest(run.checkpoints) if resume else None
    if path is None:
        if resume:
            accelerator.print("no checkpoint was saved yet: beginning at step 1")
        if course.config.optimizer_from is not None:
            begin_with_optimizer(course.train.learner, optimizer_checkpoint(course.config.optimizer_from))
        return Position()
    position = load_checkpoint(course.train.learner, path, course.identity)
    accelerator.print(f"resuming after step {position.step} from {path}")
    return position
