"""A teacher's likeliest tokens, on disk before the policy is loaded: then no two large models stand in memory together.

The teacher reads the very tokens that the policy reads, so it must be of the policy's family and tokenizer; it may be
larger. A killed run goes on with the rows that are missing, and a later run in the same directory finds the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from mmalign.config.schema import RecipeConfig, TeacherConfig
from mmalign.engine import fingerprint
from mmalign.engine.distributions import chosen_logps, most_probable
from mmalign.engine.load import load_config, load_model
from mmalign.engine.policy import Policy
from mmalign.engine.teacher_table import LikeliestTokens, TeacherTable
from mmalign.engine.token_terms import States, cells
from mmalign.engine.tokenise import Tokeniser, load_processor
from mmalign.engine.tree import TreeBatch
from mmalign.errors import ConfigError, ModelError
from mmalign.objectives.compose import Objective
from mmalign.recipes.tables import Filling, fill, missing_rows
from mmalign.recipes.training import Rows, reader_of, scoring_sampler
from mmalign.train.loader import BatchReader, LoadedBatch
from mmalign.train.loop import Course, Split
from mmalign.train.rows import PreparedRows
from mmalign.train.rundir import RunDirectory


@dataclass(frozen=True, kw_only=True)
class Taught:
    """Tables of the splits, and the rows that each left out because they could not be loaded."""

    train: TeacherTable | None = None
    train_left_out: frozenset[int] = frozenset()
    held_out: TeacherTable | None = None
    held_out_left_out: frozenset[int] = frozenset()


def ask_teacher(
    config: RecipeConfig, run: RunDirectory, rows: Rows, objective: Objective, start: str, accelerator: Accelerator
) -> Taught:
    """Return tables of what the recipe's teacher predicts for the rows; all ranks call it together.

    Args:
        start: directory or hub id of the policy.

    Raises:
        ConfigError: the teacher is not to be had here, or keeps more tokens than there are.
        ModelError: teacher and policy do not read the same tokens.
        CheckpointError: a table there was made with another teacher, other rows or another processor.
        DataError: too many rows could not be loaded.
    """
    teacher = config.model.teacher
    if teacher is None:
        return Taught()
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ConfigError("DeepSpeed spreads every model over ranks, a teacher too; run under DDP or FSDP")
    vocabulary = shared_vocabulary(config, teacher, start, rows.train_tokeniser)
    asking = _Asking(config, run, objective, accelerator, vocabulary)
    train, train_left_out = asking.table_of("train", rows.train, rows.train_tokeniser)
    if rows.held_out is None:
        return Taught(train=train, train_left_out=train_left_out)
    held_out, held_out_left_out = asking.table_of("eval", rows.held_out, rows.held_out_tokeniser)
    return Taught(train=train, train_left_out=train_left_out, held_out=held_out, held_out_left_out=held_out_left_out)


def with_teacher(course: Course, taught: Taught) -> Course:
    """Return the course with the teacher's tables beside policy and reference."""
    if taught.train is None:
        return course
    train = _with_table(course.train, taught.train, taught.train_left_out)
    if course.held_out is None:
        return replace(course, train=train)
    return replace(
        course, train=train, held_out=_with_table(course.held_out, taught.held_out, taught.held_out_left_out)
    )


def shared_vocabulary(config: RecipeConfig, teacher: TeacherConfig, start: str, tokeniser: Tokeniser) -> int:
    """Return how many tokens policy, teacher and contrast model have in common: all that a tokenizer makes.

    Raises:
        ModelError: they do not read the same tokens.
        ConfigError: `top_k` leaves no other token.
    """
    remote = config.model.trust_remote_code
    policy = load_config(start, remote)
    vocabulary = min(len(tokeniser.tokenizer), policy.get_text_config().vocab_size)
    for key, path in (("path", teacher.path), ("contrast", teacher.contrast)):
        if path is None:
            continue
        theirs = load_config(path, remote)
        if theirs.model_type != policy.model_type:
            raise ModelError(
                f"model.teacher.{key} is a {theirs.model_type}, the policy a {policy.model_type}; they do not read "
                "the same tokens"
            )
        processor = load_processor(path, trust_remote_code=remote)
        if getattr(processor, "tokenizer", processor).get_vocab() != tokeniser.tokenizer.get_vocab():
            raise ModelError(
                f"the tokenizer of model.teacher.{key} {path!r} has other tokens than the policy's; use models of one "
                "tokenizer"
            )
        vocabulary = min(vocabulary, theirs.get_text_config().vocab_size)
    if teacher.top_k >= vocabulary:
        raise ConfigError(
            f"model.teacher.top_k: {teacher.top_k} leaves no other token of a vocabulary of {vocabulary}; lower it"
        )
    return vocabulary


class _Asking:
    """Fills tables; models are loaded when the first row is missing, and let go with this object."""

    def __init__(
        self,
        config: RecipeConfig,
        run: RunDirectory,
        objective: Objective,
        accelerator: Accelerator,
        vocabulary: int,
    ) -> None:
        self.config, self.run, self.objective, self.accelerator = config, run, objective, accelerator
        self.vocabulary, self.teacher = vocabulary, config.model.teacher
        self._models: tuple[Policy, Policy | None] | None = None

    def table_of(self, split: str, rows: PreparedRows, tokeniser: Tokeniser) -> tuple[TeacherTable, frozenset[int]]:
        """Return the table of one split, filled, and the rows that it left out."""
        contrast = self.teacher.contrast
        table = TeacherTable.open(
            self.run.data / f"teacher-{split}",
            rows=list(rows.table_rows()),
            made_with={
                "teacher": fingerprint.of_model(self.teacher.path),
                "contrast": "none" if contrast is None else fingerprint.of_model(contrast),
                "rows": rows.fingerprint,
                "processor": rows.facts["fingerprint"],
                "precision": self.accelerator.mixed_precision,
            },
            top_k=self.teacher.top_k,
            contrasted=contrast is not None,
        )
        missing = missing_rows(table, rows)
        self.accelerator.wait_for_everyone()
        reader = self._filled(table, missing, split, rows, tokeniser)
        return table, reader.left_out

    def _filled(
        self, table: TeacherTable, missing: list[int], split: str, rows: PreparedRows, tokeniser: Tokeniser
    ) -> BatchReader:
        reader = reader_of(rows, tokeniser, self.objective, read_again=False)
        engine = "tree" if not missing else self._loaded()[0].engine
        how = Filling(
            accelerator=self.accelerator,
            reader=reader,
            sampler=scoring_sampler(self.config, rows, engine, self.accelerator.num_processes),
            data=self.config.data,
            quarantine=self.run.quarantine,
            name=f"teacher's likeliest tokens of {split} rows",
        )
        return fill(table, missing, how, partial(self._write, table))

    def _write(self, table: TeacherTable, loaded: LoadedBatch) -> None:
        if loaded.is_filler:
            return
        batch = loaded.batch.to(self.accelerator.device)
        teacher, contrast = self._loaded()
        table.write(batch, likeliest_tokens(teacher, contrast, batch, self.teacher.top_k, self.vocabulary))

    def _loaded(self) -> tuple[Policy, Policy | None]:
        if self._models is None:
            contrast = self.teacher.contrast
            self._models = self._load(self.teacher.path), None if contrast is None else self._load(contrast)
        return self._models

    def _load(self, path: str) -> Policy:
        model = self.config.model
        options: dict[str, Any] = {"quantize": model.quantize, "trust_remote_code": model.trust_remote_code}
        options |= {"dtype": dtype_of_teacher(self.config), "attn_implementation": model.attn_implementation}
        policy = Policy(load_model(path, **options), engine=self.config.engine).requires_grad_(False).eval()
        return policy if model.quantize is not None else policy.to(self.accelerator.device)


def dtype_of_teacher(config: RecipeConfig) -> str:
    """Return what its weights are held in. It does not move, so it need not be wider than what is computed in."""
    if config.model.dtype != "auto":
        return config.model.dtype
    return "bfloat16" if config.train.bf16 else "float32"


@torch.no_grad()
def likeliest_tokens(
    teacher: Policy, contrast: Policy | None, batch: TreeBatch, top_k: int, vocabulary: int
) -> LikeliestTokens:
    """Return the teacher's `top_k` likeliest tokens at every response token of a batch, and what both make of them.

    Args:
        vocabulary: ids from here on belong to no token.
    """
    _, found = teacher(batch, also=(States(),))
    own = teacher.distributions(found["states"])
    ids = most_probable(own, top_k, vocabulary)
    logps, other = chosen_logps(own, ids), None
    if contrast is not None:
        _, found = contrast(batch, also=(States(),))
        other = cells(batch, chosen_logps(contrast.distributions(found["states"]), ids)).float()
    return LikeliestTokens(cells(batch, ids), cells(batch, logps).float(), other)


def _with_table(split: Split, table: TeacherTable, left_out: frozenset[int]) -> Split:
    reader = replace(split.reader, left_out=split.reader.left_out | left_out)
    sources = replace(split.learner.sources, teacher=table)
    return Split(reader, split.sampler, replace(split.learner, sources=sources))
