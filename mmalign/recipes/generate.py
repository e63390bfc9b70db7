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
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from mmalign.config.generate_schema import GenerateConfig
from mmalign.config.media import data_root, media_limits, what_is_seen
from mmalign.engine import fingerprint
from mmalign.errors import CheckpointError, ConfigError
from mmalign.formats.prompt import Prompt
from mmalign.formats.store import completed, from_columns, write_jsonl
from mmalign.generate.answers import Sampler
from mmalign.generate.chat_requests import RequestForm
from mmalign.generate.endpoint import Endpoint, Retries
from mmalign.generate.hf import LocalSampler
from mmalign.generate.paid_answers import Kept, Log, PaidAnswers
from mmalign.generate.sampling import Sampling
from mmalign.generate.server import ServerSampler
from mmalign.recipes import built_in
from mmalign.recipes.generate_parts import Parts, part_of, refused_part
from mmalign.sources.prompt_rows import read_prompts
from mmalign.sources.quarantine import Quarantine, Refusal
from mmalign.train import rundir
from mmalign.train.prepare import facts_of_files
from mmalign.train.progress import Counting
from mmalign.train.rundir import RunDirectory

_LONGEST_RUN = timedelta(days=30)
"""How long processes that are done wait for the others."""


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
    uses_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    processes = PartialState(cpu=uses_cpu, timeout=_LONGEST_RUN)
    place = RunDirectory(Path(config.generate.output_dir))
    if processes.is_main_process:
        _open(config, place, resume=resume)
    processes.wait_for_everyone()
    parts = Parts(place.root / "parts")
    settled = parts.settled()
    processes.wait_for_everyone()  # nobody writes before all have read
    refused: list[Refusal] = []
    _answer(config, place, processes, parts, settled, refused)
    processes.wait_for_everyone()
    return _finish(config, place, parts, refused) if processes.is_main_process else None


def _open(config: GenerateConfig, place: RunDirectory, *, resume: bool) -> None:
    """Make the run directory or find it again, and hold a continuation to the settings of its beginning."""
    present = sorted(path.name for path in place.root.iterdir()) if place.root.is_dir() else []
    if present and not resume:
        raise ConfigError(
            f"generate.output_dir {str(place.root)!r} is not empty (it holds {', '.join(present[:4])}); continue that "
            "run with --resume, name another directory, or delete it"
        )
    if resume and not place.manifest.is_file():
        raise CheckpointError(f"there is no run to resume in {place.root}; start it without --resume")
    identity = json.loads(json.dumps(_identity(config)))
    if resume:
        before = json.loads(place.manifest.read_text(encoding="utf-8"))["identity"]
        changed = sorted(name for name in identity if identity[name] != before.get(name))
        if changed:
            raise CheckpointError(
                f"the run in {place.root} was begun with other {', '.join(changed)}; its answers would not belong "
                "together: go on with what it was begun with, or name another directory"
            )
    place.root.mkdir(parents=True, exist_ok=True)
    rundir.write_config(place, config)
    rundir.write_manifest(place, {"identity": identity})


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
        writer.write(refused_part(numbers.pop(prompt.id), prompt, error))

    def rate() -> str:
        return f"{sampler.tokens_made / (time.monotonic() - began):,.0f} tokens/s"

    with ExitStack() as opened, Counting("prompts answered", rate) as counting:
        sampler = _sampler(config, place, processes, opened)
        writer = opened.enter_context(closing(parts.writer(processes.process_index)))
        for generated in counting.each(sampler.sample(mine(), on_refused=refuse, **how)):
            writer.write(part_of(numbers.pop(generated.prompt.id), generated))


def _sampler(config: GenerateConfig, place: RunDirectory, processes: PartialState, opened: ExitStack) -> Sampler:
    limits = media_limits(config.data, config.data.prompts)
    if config.server is None:
        if config.generate.threads is not None:
            torch.set_num_threads(config.generate.threads)
        model = config.model
        sampler = LocalSampler.load(
            built_in.start_of(model.path, place, processes, seed=config.generate.seed),
            limits,
            max_length=config.data.max_length,
            device=processes.device,
            answers_at_once=model.answers_at_once,
            dtype=model.dtype,
            attn_implementation=model.attn_implementation,
            quantize=model.quantize,
            trust_remote_code=model.trust_remote_code,
        )
        sampler.name = model.path
        return sampler
    server = config.server
    if processes.num_processes > 1:
        raise ConfigError("server: one process asks it; start without accelerate launch, and raise server.concurrency")
    retries = Retries(attempts=server.attempts)
    endpoint = Endpoint(server.url, key_name=server.api_key_env, timeout_s=server.timeout_s, retries=retries)
    log = opened.enter_context(closing(Log(place.root / "requests.jsonl")))
    if log.in_doubt:
        print(f"{log.in_doubt} requests of the run before have no answer and are made again", flush=True)
    kept = None if server.cache_dir is None else Kept(server.cache_dir)
    form = RequestForm(
        model=server.model,
        max_request_bytes=int(server.max_request_mb * 10**6),
        length_name=server.length_name,
        logprobs=server.logprobs,
    )
    answers = PaidAnswers(endpoint, log=log, kept=kept)
    return ServerSampler(answers, form, limits, concurrency=server.concurrency)


def _finish(config: GenerateConfig, place: RunDirectory, parts: Parts, refused: list[Refusal]) -> GenerateResult:
    """Put the parts together in the order of the prompts; count what was refused, answer by answer."""
    place.quarantine.unlink(missing_ok=True)
    quarantine = Quarantine(place.quarantine, config.data.max_refused_share)
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
    if config.model is not None and place.start.is_dir():
        manifest["model"] = fingerprint.of_model(str(place.start))
    elif config.model is not None:
        manifest["model"] = fingerprint.of_model(config.model.path)
    rundir.write_manifest(place, manifest)
    summary = f"{count} rows; answers: {quarantine.summary()}"
    look = (
        f"mmalign data view {rows} -o {place.root / 'rows.html'} --root {data_root(config.data, config.data.prompts)}"
    )
    print(f"{summary}\nrows: {rows}\nlook at them: {look}", flush=True)
    return GenerateResult(rows=rows, samples=samples, quarantine=place.quarantine, summary=summary)
