"""Answer prompts as a recipe says, with a model in memory or a server, in one process or many.

    mmalign generate configs/miniature/generate_qwen2_5_vl.yaml

A run leaves `rows.jsonl` (rows with their answers, ours, for any other verb), `samples.jsonl` (every answer with its
tokens and their log-probs), `quarantine.jsonl`, `config.yaml`, `manifest.json`, and `parts/`, from which it resumes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import PartialState
from transformers.utils.logging import disable_progress_bar

from mmalign.config.generate_schema import GenerateConfig
from mmalign.config.media import data_root, media_limits, what_is_seen
from mmalign.formats.prompt import Prompt
from mmalign.formats.store import completed, from_columns, write_jsonl
from mmalign.generate.answers import Sampler
from mmalign.generate.sampling import Sampling
from mmalign.recipes.answering import fingerprint_of, processes_of, sampler_of
from mmalign.recipes.generate_parts import Parts, part_of, refused_part
from mmalign.recipes.resumable import open_or_resume
from mmalign.sources.prompt_rows import read_prompts
from mmalign.sources.quarantine import Quarantine, Refusal
from mmalign.train import rundir
from mmalign.train.prepare import facts_of_files
from mmalign.train.progress import Counting
from mmalign.train.rundir import RunDirectory


@dataclass(frozen=True, kw_only=True)
class GenerateResult:
    """What a run left behind.

    Args:
        rows: file of rows with their answers.
        samples: file of all answers with tokens and log-probs.
        quarantine: file of prompts and answers that are of no use.
        summary: how many answers were kept and refused, in words.
    """

    rows: Path
    samples: Path
    quarantine: Path
    summary: str


def run(config: GenerateConfig, *, resume: bool = False) -> GenerateResult | None:
    """Generate, and return what the run left behind; None on processes other than the main one.

    Raises:
        ConfigError, CheckpointError: the directory holds something else, or nothing to resume.
        DataError: rows cannot be read, or too many are refused; what was generated is kept for --resume.
        ModelError: the model cannot be loaded, or the server refuses every request.
    """
    disable_progress_bar()  # of transformers, which draws one for weights beside ours for prompts
    processes = processes_of(config.generate.threads)
    place = RunDirectory(Path(config.generate.output_dir))
    if processes.is_main_process:
        open_or_resume(place, config, _identity(config), key="generate.output_dir", made="answers", resume=resume)
    processes.wait_for_everyone()
    parts = Parts(place.root / "parts")
    settled = parts.settled()
    processes.wait_for_everyone()  # nobody writes before all have read
    refused: list[Refusal] = []
    _answer(config, place, processes, parts, settled, refused)
    processes.wait_for_everyone()
    return _finish(config, place, parts, refused) if processes.is_main_process else None


def _identity(config: GenerateConfig) -> dict:
    """Return what decides the answers, by the sections of the recipe."""
    answering = config.server or config.model
    decides = {"path", "dtype", "quantize", "url", "model", "logprobs"}
    return {
        "model": answering.model_dump(include=decides),
        "data": {**what_is_seen(config.data), "prompts": config.data.prompts},
        "rows": facts_of_files(config.data.prompts),
        "sampling": config.sampling.model_dump(mode="json"),
        "generate": config.generate.model_dump(include={"n", "seed"}),
    }


def _answer(
    config: GenerateConfig,
    place: RunDirectory,
    processes: PartialState,
    parts: Parts,
    settled: set[int],
    refused: list[Refusal],
) -> None:
    """Answer this process's share of the prompts that are not settled, and write each as soon as it is done."""
    numbers: dict[str, int] = {}

    def mine() -> Iterator[Prompt]:
        how = {"format": config.data.format, "on_refused": refused.append, "allow_network": True}
        waiting = 0
        for number, prompt in enumerate(read_prompts(config.data.prompts, **how)):
            if number in settled:
                continue
            if waiting % processes.num_processes == processes.process_index:
                numbers[prompt.id] = number
                yield prompt
            waiting += 1

    began = time.monotonic()
    how = {"n": config.generate.n, "sampling": Sampling(**config.sampling.model_dump()), "seed": config.generate.seed}

    def refuse(prompt: Prompt, error: Exception) -> None:
        writer.write(asdict(refused_part(numbers.pop(prompt.id), prompt, error)))

    def rate() -> str:
        return f"{sampler.tokens_made / (time.monotonic() - began):,.0f} tokens/s"

    with ExitStack() as opened, Counting("prompts answered", rate) as counting:
        sampler = _sampler(config, place, processes, opened)
        writer = opened.enter_context(closing(parts.writer(processes.process_index)))
        for generated in counting.each(sampler.sample(mine(), on_refused=refuse, **how)):
            writer.write(asdict(part_of(numbers.pop(generated.prompt.id), generated)))


def _sampler(config: GenerateConfig, place: RunDirectory, processes: PartialState, opened: ExitStack) -> Sampler:
    limits = media_limits(config.data, config.data.prompts)
    how = {"seed": config.generate.seed, "max_length": config.data.max_length}
    return sampler_of(config.model, config.server, limits, place, processes, opened, **how)


def _finish(config: GenerateConfig, place: RunDirectory, parts: Parts, refused: list[Refusal]) -> GenerateResult:
    """Put the parts together in the order of the prompts; count what was refused, answer by answer."""
    place.quarantine.unlink(missing_ok=True)
    quarantine = Quarantine(place.quarantine, config.data.max_refused_share, counted="answers")
    samples, rows = place.root / "samples.jsonl", place.root / "rows.jsonl"
    try:
        for refusal in refused:
            quarantine.take(refusal)
        for part in parts.each():
            for refusal in part.refused:
                quarantine.take(Refusal(**refusal))
            for _ in part.row and (part.row.get("responses") or [part.row["chosen"]]) or ():
                quarantine.kept()
        quarantine.check()
    finally:
        quarantine.close()
    place.quarantine.touch()
    with completed(samples) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        for part in parts.each():
            file.write(json.dumps({"id": part.id, "samples": part.samples}, ensure_ascii=False) + "\n")
    count = write_jsonl(rows, (from_columns(part.row) for part in parts.each() if part.row is not None))
    manifest = {"identity": _identity(config), "rows": count, "refused": dict(quarantine.counts)}
    if config.model is not None:
        manifest["model"] = fingerprint_of(config.model, place)
    rundir.write_manifest(place, manifest)
    summary = f"{count} rows; {quarantine.summary()}"
    look = (
        f"mmalign data view {rows} -o {place.root / 'rows.html'} --root {data_root(config.data, config.data.prompts)}"
    )
    print(f"{summary}\nrows: {rows}\nlook at them: {look}", flush=True)
    return GenerateResult(rows=rows, samples=samples, quarantine=place.quarantine, summary=summary)
