"""The model or server that a recipe names, as a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from mmalign.config.generate_schema import AnsweringModelConfig, ServerConfig
from mmalign.engine import fingerprint
from mmalign.errors import ConfigError
from mmalign.formats.media import MediaKind
from mmalign.generate.answers import Sampler
from mmalign.generate.chat_requests import RequestForm
from mmalign.generate.endpoint import Endpoint, Retries
from mmalign.generate.hf import LocalSampler
from mmalign.generate.paid_answers import Kept, Log, PaidAnswers
from mmalign.generate.server import ServerSampler
from mmalign.modalities.fetch import MediaLimits
from mmalign.recipes import built_in
from mmalign.train.rundir import RunDirectory

_LONGEST_RUN = timedelta(days=30)


def sampler_of(
    model: AnsweringModelConfig | None,
    server: ServerConfig | None,
    limits: Mapping[MediaKind, MediaLimits],
    place: RunDirectory,
    processes: PartialState,
    opened: ExitStack,
    *,
    seed: int,
    max_length: int | None,
) -> Sampler:
    """Return a sampler over the model, or over the server when there is one.

    Args:
        opened: closes the log of requests.
        seed: of a built-in model's weights.
        max_length: bound on prompts in tokens, of a model.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: several processes would ask the server.
    """
    if server is not None:
        return _asking(server, limits, place, processes, opened)
    sampler = LocalSampler.load(
        built_in.start_of(model.path, place, processes, seed=seed),
        limits,
        max_length=max_length,
        device=processes.device,
        answers_at_once=model.answers_at_once,
        dtype=model.dtype,
        attn_implementation=model.attn_implementation,
        quantize=model.quantize,
        trust_remote_code=model.trust_remote_code,
    )
    sampler.name = model.path
    return sampler


def _asking(
    server: ServerConfig,
    limits: Mapping[MediaKind, MediaLimits],
    place: RunDirectory,
    processes: PartialState,
    opened: ExitStack,
) -> Sampler:
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


def fingerprint_of(model: AnsweringModelConfig, place: RunDirectory) -> str:
    """Return what tells the weights of a run's model from others."""
    return fingerprint.of_model(str(place.start) if place.start.is_dir() else model.path)


def processes_of(threads: int | None) -> PartialState:
    """Return the processes of a run that only makes rows, and hold torch to a number of CPU threads.

    Those that are done wait for the others, however long that takes.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    uses_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=uses_cpu, timeout=_LONGEST_RUN)
