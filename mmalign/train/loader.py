"""Micro-batches, read and tokenised ahead of the step that wants them.

A row whose media cannot be read any more (a file was deleted, a picture is cut short) is left out of its micro-batch
and named in `refused`; nothing takes its place, so the other rows of the step stay what they were. A micro-batch that
is left with no row becomes a filler: a few text tokens that keep ranks in step and count for nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmalign.engine.families import Family
from mmalign.engine.tokenise import PromptTree
from mmalign.engine.tree import TreeBatch, collate
from mmalign.engine.views import View, id_in_view
from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.train.mismatch import with_answer_of_another
from mmalign.train.rows import PreparedRows
from mmalign.train.sampler import MicroBatch
from mmalign.train.vanished import RefusedAtLoading

FILLER_ID = "(filler)"


@dataclass(frozen=True, kw_only=True)
class LoadedBatch:
    """One micro-batch.

    Args:
        batch: its trees.
        is_filler: whether it only keeps ranks in step.
        refused: rows left out.
    """

    batch: TreeBatch
    is_filler: bool = False
    refused: tuple[RefusedAtLoading, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BatchReader(Dataset):
    """Row numbers -> `LoadedBatch`; runs in the loader's processes.

    Args:
        rows: the prepared rows.
        tokenise: one row and views -> its tree, and its tree in each view; raises RowError for what cannot be loaded.
        responses_read: levels of a row -> positions of the responses that the objective reads.
        views: in which the objective reads rows beside their own.
        read_in: a view, levels -> positions that are read in it.
        answers: one row -> the tokens of its responses, where the objective reads beside each row's responses one
            answer to another prompt; None where it does not.
        max_length: bound on a prompt and such an answer together.
        family: of the model.
        pad_id: an id to pad with.
        left_out: rows that are passed over because they were refused before and are on record.
        kept: trees of rows that were read before.
    """

    rows: PreparedRows
    tokenise: Callable[[Preference, Sequence[View]], Sequence[PromptTree]]
    responses_read: Callable[[Sequence[int]], Sequence[int]]
    views: tuple[View, ...] = ()
    read_in: Callable[[View, Sequence[int]], Sequence[int]] | None = None
    family: Family
    pad_id: int
    answers: Callable[[Preference], Sequence[Tensor]] | None = None
    max_length: int | None = None
    left_out: frozenset[int] = frozenset()
    kept: KeptTrees = field(default_factory=lambda: KeptTrees(0))

    def __getitem__(self, rows: MicroBatch) -> LoadedBatch:
        read = [self.kept.get(row) or self._read(row) for row in rows if row not in self.left_out]
        refused = tuple(one for one in read if isinstance(one, RefusedAtLoading))
        groups = [one for one in read if not isinstance(one, RefusedAtLoading)]
        is_filler = not groups
        seen = zip(*(groups or [[filler_tree(self.pad_id)] * (1 + len(self.views))]), strict=True)
        batch = collate([tree for trees in seen for tree in trees], self.family, self.pad_id, self.views)
        return LoadedBatch(batch=batch, is_filler=is_filler, refused=refused)

    def _read(self, row: int) -> Sequence[PromptTree] | RefusedAtLoading:
        stored = self.rows.stored(row)
        try:
            preference = self.rows.with_bytes(stored)
            tree, *others = self.tokenise(preference, self.views)
            borrowed = None if self.answers is None else self._borrowed(row)
        except RowError as error:
            return RefusedAtLoading.of(stored, error)
        levels = preference.levels()
        read = self.responses_read(levels)
        seen = [
            replace(keep_responses(other, read, self.read_in(view, levels)), id=id_in_view(other.id, view.name))
            for view, other in zip(self.views, others, strict=True)
        ]
        own = keep_responses(tree, read)
        trees = [own if borrowed is None else with_answer_of_another(own, borrowed, self.max_length), *seen]
        self.kept.put(row, trees)
        return trees

    def _borrowed(self, row: int) -> Tensor:
        """Return the answer to another prompt that stands beside the responses of `row`."""
        lender, place = self.rows.lender(row)
        preference = self.rows.stored(lender)
        return self.answers(preference)[self.responses_read(preference.levels())[place]]


class KeptTrees:
    """Trees of a small data set stay in memory from one epoch to the next, so that pictures are decoded once.

    The first to come stay; nothing is thrown out, because in a shuffled epoch every row is as good as any other.

    Args:
        max_bytes: of all tensors together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes_left = max_bytes
        self._trees: dict[int, Sequence[PromptTree]] = {}

    def get(self, row: int) -> Sequence[PromptTree] | None:
        """Return the trees of a row, or None."""
        return self._trees.get(row)

    def put(self, row: int, trees: Sequence[PromptTree]) -> None:
        """Keep the trees of a row, one and one for each view, if there is room."""
        tensors = [tensor for tree in trees for tensor in (tree.prompt_ids, *tree.response_ids, *tree.media.values())]
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self.bytes_left:
            self.bytes_left -= size
            self._trees[row] = trees


def keep_responses(tree: PromptTree, positions: Sequence[int], read: Sequence[int] | None = None) -> PromptTree:
    """Return the tree with these responses only; nobody computes what no objective reads.

    Args:
        read: those of `positions` that are computed, the others leaving an empty place; all where None.
    """
    read = positions if read is None else read
    if len(positions) == len(read) == len(tree.response_ids):
        return tree
    weights = tree.response_weights

    def kept(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return tuple(tensors[k] if k in read else tensors[k][:0] for k in positions)

    return replace(
        tree,
        response_ids=kept(tree.response_ids),
        response_weights=None if weights is None else kept(weights),
        levels=tuple(tree.levels[k] for k in positions),
        scores=tuple(tree.scores[k] for k in positions) if tree.scores else (),
        numbers={name: tuple(values[k] for k in positions) for name, values in tree.numbers.items()},
    )


def filler_tree(token_id: int) -> PromptTree:
    """Return the smallest tree: two tokens of prompt, one response of one token, weight 0."""
    return PromptTree(
        id=FILLER_ID,
        prompt_ids=torch.tensor([token_id, token_id]),
        media={},
        response_ids=(torch.tensor([token_id]),),
        response_weights=None,
        levels=(0,),
        margin=None,
        weight=0.0,
        tags={},
        media_key=None,
    )


def load_ahead(reader: BatchReader, plan: Iterable[MicroBatch], num_workers: int) -> Generator[LoadedBatch, None, None]:
    """Yield what `reader` makes of each entry of `plan`, in order; `num_workers` processes work ahead.

    Close the generator when leaving early: that sends the workers home. They ignore SIGTERM, so a worker that is still
    there when Python exits would be waited for without end.
    """
    if num_workers == 0:
        yield from (reader[rows] for rows in plan)
        return
    # Tokenizers' own threads do not survive the fork into loader processes.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    loader = DataLoader(
        reader,
        sampler=plan,
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=4,
        worker_init_fn=_stay_until_told,
    )
    batches = iter(loader)
    try:
        yield from batches
    finally:
        del batches  # the last reference: its workers are told to finish, and joined


def _stay_until_told(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the training process: it needs its batches to finish the step, then ends us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
