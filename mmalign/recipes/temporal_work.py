"""How each stage of a pipeline is worked through: what is settled is passed over, the rest shared out and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from accelerate import PartialState

from mmalign.errors import RowError
from mmalign.formats.prompt import Prompt
from mmalign.generate.answers import Generated, Sampler
from mmalign.generate.sampling import Sampling
from mmalign.recipes.stage_records import LineWriter, Record, Records, refused
from mmalign.train.progress import Counting


class Work:
    """The stages of a run, by their names, and the processes that share them.

    Args:
        directory: of the stages.
        processes: that all call the same methods with the same items.
    """

    def __init__(self, directory: Path, processes: PartialState) -> None:
        self.directory, self.processes = directory, processes
        self.stages: dict[str, Records] = {}

    def known(self, item: str) -> Record:
        """Return everything that the stages so far found out about an item, later ones over earlier ones."""
        merged: Record = {}
        for records in self.stages.values():
            if item in records:
                merged |= records[item]
        return merged

    def each(self, stage: str, items: Sequence[str], make: Callable[[str], Record]) -> Records:
        """Make the record of every item that has none.

        Args:
            make: item -> record; a RowError refuses the item, and the run goes on.
        """

        def made(waiting: Iterator[str], writer: LineWriter) -> None:
            for item in waiting:
                try:
                    record = make(item)
                except RowError as error:
                    record = refused(item, error)
                writer.write({"id": item, **record})

        return self._worked(stage, items, made)

    def told(
        self,
        stage: str,
        items: Sequence[str],
        prompt_of: Callable[[str], Prompt],
        keep: Callable[[str, Generated], Record],
        sampler: Callable[[], Sampler],
        *,
        sampling: Sampling,
        seed: int,
    ) -> Records:
        """Have every item answered that has no answer.

        Args:
            prompt_of: item -> prompt, whose id is the item.
            keep: item and its useful answer -> record; a RowError refuses the item.
            sampler: loads the model, when there is something left to answer.
        """

        def made(waiting: Iterator[str], writer: LineWriter) -> None:
            def refuse(prompt: Prompt, error: RowError) -> None:
                writer.write({"id": prompt.id, **refused(prompt.id, error)})

            prompts = map(prompt_of, waiting)
            answered = sampler().sample(prompts, sampling=sampling, seed=seed, on_refused=refuse)
            for generated in answered:
                writer.write({"id": generated.prompt.id, **_kept(generated, keep)})

        return self._worked(stage, items, made)

    def _worked(self, stage: str, items: Sequence[str], made: Callable[[Iterator[str], LineWriter], None]) -> Records:
        records = self.stages[stage] = Records(self.directory / stage).read()
        self.processes.wait_for_everyone()  # nobody writes before all have read
        waiting = [item for item in items if not records.is_settled(item)]
        if waiting:
            rank, ranks = self.processes.process_index, self.processes.num_processes
            with closing(records.writer(rank)) as writer, Counting(stage) as counting:
                made(counting.each(waiting[rank::ranks]), writer)
        self.processes.wait_for_everyone()
        return records.read()


def _kept(generated: Generated, keep: Callable[[str, Generated], Record]) -> Record:
    """Return the record of an answer: what is kept of it, or why it is of no use."""
    item = generated.prompt.id
    if problems := generated.problems():
        return refused(item, *problems)
    try:
        return keep(item, generated)
    except RowError as error:
        return refused(item, error)
