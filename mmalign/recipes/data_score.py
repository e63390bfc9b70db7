"""`mmalign data score`: what a model thinks of every response of a file of rows, written into the rows as numbers.

The numbers are those that objectives with sources read (`mmalign.objectives.numbers`): the sum of a response's token
log-probs, each times the weight that spans give it, and the number of its tokens. The model has its own processor and
chat template, so models of other families and vocabularies can stand beside each other in one row.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from mmalign.engine import fingerprint
from mmalign.engine.load import load_model
from mmalign.engine.logps import GroupLogps
from mmalign.engine.policy import Policy
from mmalign.engine.tokenise import PromptTree, Tokeniser, load_processor
from mmalign.engine.tree import collate
from mmalign.errors import ConfigError, DataError, RowError
from mmalign.formats.media import MediaKind
from mmalign.formats.preference import Preference, Response
from mmalign.miniature import models as miniature
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.table import limits_below
from mmalign.objectives.numbers import require_numbers
from mmalign.recipes.terminal import safe
from mmalign.recipes.unfinished_rows import UnfinishedRows
from mmalign.sources.detect import named, read
from mmalign.sources.places import rows_or_media
from mmalign.sources.quarantine import Quarantine, recorded
from mmalign.train.progress import Counting

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What `score` did.

    Args:
        path: file with the scored rows.
        rows: number of rows in it.
        found: rows of the source that an earlier start had dealt with.
        refused: rows refused, by reason.
        quarantine: where the refused rows are listed; there is no such file when none was refused.
        names: numbers that every response now has.
    """

    path: Path
    rows: int
    found: int
    refused: Counter[str]
    quarantine: Path
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model that scores rows.

    Args:
        policy: the model, without gradient.
        tokeniser: of the same model.
        name: the numbers are called `logp/<name>` and `tokens/<name>`.
        against: name of earlier numbers; `reward/<name>` is then the gap of the two sums.
    """

    policy: Policy
    tokeniser: Tokeniser
    name: str
    against: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Numbers that a response gets."""
        made = (f"logp/{self.name}", f"tokens/{self.name}")
        return made if self.against is None else (*made, f"reward/{self.name}")

    def tree(self, row: Preference) -> PromptTree:
        """Return a row as the model reads it.

        Raises:
            RowError: it has such numbers already, lacks those it is held against, or the model cannot read it.
        """
        for position, response in enumerate(row.responses):
            if taken := [name for name in self.names if name in response.scores]:
                reason, field = "response has such a number already", f"responses[{position}].scores.{taken[0]}"
                raise RowError(reason, field=field, value=response.scores[taken[0]], hint="give another name with --as")
        if self.against is not None:
            require_numbers(row, [f"logp/{self.against}"], range(len(row.responses)))
        return self.tokeniser(row)

    @torch.no_grad()
    def measure(self, trees: Sequence[PromptTree]) -> list[tuple[list[float], list[int]]]:
        """Return sum and number of tokens of every response of each tree, at least as many as it has; one forward."""
        batch = collate(trees, self.policy.family, self.tokeniser.pad_id).to(self.policy.device)
        logps = GroupLogps(self.policy(batch).double(), batch.response_mask, batch.token_weights)
        return list(zip(logps.sums().tolist(), logps.lengths().tolist(), strict=True))

    def with_numbers(self, row: Preference, sums: Sequence[float], tokens: Sequence[int]) -> Preference:
        """Return the row with the numbers of its responses.

        Raises:
            RowError: one is not finite.
        """
        numbered = zip(row.responses, sums, tokens, strict=False)  # a batch is as wide as its longest list
        return replace(row, responses=tuple(self._response(*numbers) for numbers in numbered))

    def _response(self, response: Response, total: float, tokens: int) -> Response:
        numbers = {f"logp/{self.name}": total, f"tokens/{self.name}": tokens}
        if self.against is not None:
            numbers[f"reward/{self.name}"] = total - response.scores[f"logp/{self.against}"]
        return replace(response, scores={**response.scores, **numbers})


def score(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    name: str,
    against: str | None = None,
    root: str | os.PathLike[str] | None = None,
    format: str | None = None,
    batch_size: int = 8,
    dtype: str | None = None,
    max_pixels: int | None = None,
    max_length: int | None = None,
    sampling: Sampling | None = None,
    max_refused_share: float = 0.05,
    overwrite: bool = False,
    allow_network: bool = False,
) -> Scoring:
    """Score every response of a file of rows with a model, and write the rows with the numbers.

    A start that was interrupted is gone on with by the same call. Rows that the model cannot read are left out and
    listed in `<out>.quarantine.jsonl`.

    Args:
        path: file, folder, or hub id with `allow_network`.
        out: .jsonl to write.
        model: directory, hub id or miniature/<family>; an adapter is put on the model it names.
        name: of the source, in the names of the numbers.
        against: an earlier source; see `Scorer`.
        root: directory below which media are; None takes that of `path`.
        format: name of the format of `path`; None recognises it.
        batch_size: rows of one forward.
        dtype: of the weights; None takes bfloat16 on a GPU and float32 elsewhere.
        max_pixels, max_length, sampling: as `data.max_pixels`, `data.max_length` and `data.video` of a recipe.
        max_refused_share: more refused rows than this share is an error.
        overwrite: whether a file at `out`, and what an earlier start made of it, may be replaced.

    Raises:
        DataError: nothing can be read or written, or too many rows are refused.
        ModelError: the model cannot be loaded.
        ConfigError: a name is no name.
    """
    out = Path(out)
    _require_possible(Path(path), out, name, against, format, overwrite)
    if overwrite:
        UnfinishedRows.remove(out)
    dtype = dtype or ("bfloat16" if torch.cuda.is_available() else "float32")
    settings = {"max_pixels": max_pixels, "max_length": max_length, "sampling": str(sampling), "dtype": dtype}
    limits = limits_below(
        rows_or_media(path, root).root, own={"video": {"sampling": sampling or Sampling()}}, max_pixels=max_pixels
    )
    with _directory_of(str(model)) as directory:
        unfinished = UnfinishedRows(out, _made_with(path, directory, {"name": name, "against": against, **settings}))
        scorer = _scorer(directory, dtype, limits, max_length, name, against)
    quarantine_path, found = out.with_name(out.name + ".quarantine.jsonl"), unfinished.rows_read
    if not found:
        quarantine_path.unlink(missing_ok=True)
    quarantine = Quarantine(quarantine_path, max_refused_share, limit_name="--max-refused-share")
    rows = read(path, format=format, on_refused=quarantine.take, allow_network=allow_network)
    with closing(quarantine), Counting("rows scored") as counting:
        _pass_over(rows, found, quarantine)
        for read_rows in _batches(counting.each(rows), batch_size):
            unfinished.add(_scored(read_rows, scorer, quarantine), len(read_rows))
        quarantine.check()
    count = unfinished.finish()
    return Scoring(
        path=out, rows=count, found=found, refused=quarantine.counts, quarantine=quarantine_path, names=scorer.names
    )


def report(done: Scoring, console: Console | None = None) -> None:
    """Print what was scored, and what was refused."""
    console = console or Console()
    going_on = f", {done.found:,} of them read by an earlier start" if done.found else ""
    console.print(f"[bold green]{done.rows:,}[/] rows written to [bold]{safe(str(done.path))}[/]{going_on}")
    console.print(f"every response has {', '.join(safe(name) for name in done.names)}")
    if done.refused:
        table = Table("rows", f"refused, listed in {safe(str(done.quarantine))}", box=None, header_style="yellow")
        for what, count in done.refused.most_common():
            table.add_row(f"{count:,}", what)
        console.print(table)


def _require_possible(
    path: Path, out: Path, name: str, against: str | None, format: str | None, overwrite: bool
) -> None:
    """Check what needs neither rows nor a model."""
    for option, value in (("--as", name), ("--against", against)):
        if value is not None and (not value or any(sign.isspace() or sign == "/" for sign in value)):
            raise ConfigError(f"{option} must be a name without spaces and slashes, e.g. qwen (got {value!r})")
    if name == against:
        raise ConfigError(f"--as and --against are both {name!r}; hold the model against another")
    if format:
        named(format)
    if out.suffix != ".jsonl":
        raise DataError(f"scored rows go into a .jsonl, not {out.name!r}; mmalign data convert makes others of it")
    if out.exists() and path.exists() and out.samefile(path):
        raise DataError(f"{out} cannot be read and written at once; give another place")
    if path.is_dir() and path.resolve() in out.resolve().parents:
        raise DataError(f"{out} lies in the folder {path} that is read; give a place outside of it")
    if out.exists() and not overwrite:
        raise DataError(f"{out} exists; give another place, or --overwrite")


@contextmanager
def _directory_of(model: str) -> Iterator[str]:
    """Give the directory or hub id of a model; a built-in one is written to a directory of its own, for as long."""
    if not model.startswith(miniature.BUILT_IN) or Path(model).is_dir():
        yield model
        return
    with tempfile.TemporaryDirectory() as directory:
        yield str(miniature.save(model.removeprefix(miniature.BUILT_IN), Path(directory) / "model"))


def _made_with(
    path: str | os.PathLike[str], model: str | os.PathLike[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what decides the numbers, ready for JSON."""
    place = Path(path)
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    rows = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return {"model": fingerprint.of_model(model), "rows": fingerprint.of_settings({"rows": rows}), **settings}


def _scorer(
    model: str,
    dtype: str,
    limits: Mapping[MediaKind, MediaLimits],
    max_length: int | None,
    name: str,
    against: str | None,
) -> Scorer:
    policy = Policy(load_model(model, dtype=dtype)).requires_grad_(False).eval()
    policy.to("cuda" if torch.cuda.is_available() else "cpu")
    tokeniser = Tokeniser(load_processor(model), policy.family, limits, max_length=max_length)
    return Scorer(policy=policy, tokeniser=tokeniser, name=name, against=against)


def _pass_over(rows: Iterator[Preference], count: int, quarantine: Quarantine) -> None:
    """Read the rows that an earlier start dealt with, and count them as it did."""
    refused = {(refusal.file, refusal.row): refusal for refusal in recorded(quarantine.path)}
    for row in itertools.islice(rows, count):
        place = row.provenance["file"], int(row.provenance["row"])
        if place in refused:
            quarantine.take(refused[place])
        else:
            quarantine.kept()


def _batches(rows: Iterable[Preference], size: int) -> Iterator[list[Preference]]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _scored(rows: Sequence[Preference], scorer: Scorer, quarantine: Quarantine) -> list[Preference]:
    """Return the rows that can be scored, with their numbers; the others go to quarantine."""
    readable = _each_or_quarantine(rows, lambda row: (row, scorer.tree(row)), quarantine)
    measured = scorer.measure([tree for _, tree in readable]) if readable else []
    numbers = {id(row): found for (row, _), found in zip(readable, measured, strict=True)}
    done = _each_or_quarantine(
        [row for row, _ in readable], lambda row: scorer.with_numbers(row, *numbers[id(row)]), quarantine
    )
    for _ in done:
        quarantine.kept()
    return done


def _each_or_quarantine(
    rows: Iterable[Preference], make: Callable[[Preference], Made], quarantine: Quarantine
) -> list[Made]:
    """Return what `make` makes of each row that it does not refuse."""
    made = []
    for row in rows:
        try:
            made.append(make(row))
        except RowError as error:
            quarantine.refuse(row.provenance["file"], int(row.provenance["row"]), error)
    return made
