"""Make temporal preference pairs of a folder of videos, told by the model that is to be aligned (TEMPLE, 2503.16929).

    mmalign pairs temporal configs/miniature/temporal_qwen2_5_vl.yaml

    shots       of every file                   a file that is no whole video is refused
    enough      shots                           others are left out
    similarity  of their middle frames          by CLIP
    clips       of neighbouring shots           videos whose clips look alike are left out
    frames      of every clip                   the sharpest
    captions    of every clip                   by the model, which sees the clip and the one before
    tellings    of every video, right and wrong by the model, from captions or frames in the right or a wrong order
    pairs       of a right and a wrong telling  those that differ in other ways are left out

A run leaves `rows.jsonl`, `left_out.jsonl`, `quarantine.jsonl`, `config.yaml`, `manifest.json`, and `stages/<stage>/`,
from which it resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from mmalign.config.temporal_schema import TemporalConfig
from mmalign.errors import ConfigError, DataError
from mmalign.formats.store import completed, json_line, write_jsonl
from mmalign.generate.answers import Sampler
from mmalign.generate.sampling import Sampling
from mmalign.miniature import clip as miniature_clip
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.shots import Detector, hard_cuts
from mmalign.modalities.table import limits_below
from mmalign.recipes import temporal_videos as videos
from mmalign.recipes.answering import fingerprint_of, processes_of, sampler_of
from mmalign.recipes.resumable import open_or_resume
from mmalign.recipes.temporal_tellings import Tellings
from mmalign.recipes.temporal_work import Work
from mmalign.rewards.clip import ClipEncoder
from mmalign.sources.quarantine import Quarantine
from mmalign.train import rundir
from mmalign.train.prepare import facts_of_files
from mmalign.train.rundir import RunDirectory

_OF_A_VIDEO = ("shots", "enough", "similarity", "clips", "frames")


@dataclass(frozen=True, kw_only=True)
class TemporalResult:
    """What a run left behind.

    Args:
        rows: file of preference rows.
        left_out: file of videos and pairs that rules leave out.
        quarantine: file of videos and texts that are of no use.
        counts: what went on from each stage and what did not, by rule or reason.
    """

    rows: Path
    left_out: Path
    quarantine: Path
    counts: dict[str, dict[str, int]]


def run(config: TemporalConfig, *, resume: bool = False, detector: Detector = hard_cuts) -> TemporalResult | None:
    """Make the pairs, and return what the run left behind; None on processes other than the main one.

    Args:
        detector: what finds cuts (`modalities/shots.py`), such as TransNetV2; a run is resumed with the same.

    Raises:
        ConfigError, CheckpointError: folder or directory cannot be used, or there is nothing to resume.
        DataError: no pair is left, or too much is refused; what was made is kept for --resume.
        ModelError: a model cannot be loaded, or the server refuses every request.
    """
    processes, place = processes_of(config.temporal.threads), RunDirectory(Path(config.temporal.output_dir))
    names = _videos(config)
    if processes.is_main_process:
        open_or_resume(place, config, _identity(config), key="temporal.output_dir", made="pairs", resume=resume)
    processes.wait_for_everyone()
    work = Work(place.root / "stages", processes)
    limits = limits_below(config.data.videos, own={"video": _bounds(config)})
    _look(config, place, work, names, limits, detector)
    tellings = Tellings(config, work, (config.server.model if config.server else config.model.path))
    with ExitStack() as opened:
        _tell(config, place, work, tellings, limits, opened)
    pairs = tellings.pairs()
    work.each("pairs", list(pairs), lambda id: tellings.why_not(pairs[id]))
    return _finish(config, place, work, tellings) if processes.is_main_process else None


def _look(
    config: TemporalConfig,
    place: RunDirectory,
    work: Work,
    names: list[str],
    limits: dict[str, MediaLimits],
    detector: Detector,
) -> None:
    """Find out about every video what is known before a model tells it."""
    bounds, encoders = limits["video"], []

    def encoder() -> ClipEncoder:
        if not encoders:
            encoders.append(_encoder(config, place, work.processes))
        return encoders[0]

    found = work.each("shots", names, lambda name: videos.found_shots(name, bounds, config, detector))
    found = work.each("enough", list(found), lambda name: videos.enough_shots(work.known(name), config))
    found = work.each(
        "similarity", list(found), lambda name: videos.similarity(name, work.known(name), bounds, encoder())
    )
    found = work.each("clips", list(found), lambda name: videos.clips(work.known(name), config))
    work.each("frames", list(found), lambda name: videos.frames(name, work.known(name), bounds, config))


def _tell(
    config: TemporalConfig,
    place: RunDirectory,
    work: Work,
    tellings: Tellings,
    limits: dict[str, MediaLimits],
    opened: ExitStack,
) -> None:
    """Have the model write captions, and from them, or from frames, tell every video rightly and wrongly."""
    samplers: list[Sampler] = []

    def sampler() -> Sampler:
        if not samplers:
            how = {"seed": config.temporal.seed, "max_length": config.data.max_length}
            samplers.append(sampler_of(config.model, config.server, limits, place, work.processes, opened, **how))
        return samplers[0]

    def told(stage: str, items: dict[str, Any], prompt: Any, keep: Any, settings: Any) -> None:
        how = {"sampling": Sampling(**settings.model_dump()), "seed": config.temporal.seed}
        kept = {"prompt_of": lambda id: prompt(items[id]), "keep": lambda id, made: keep(items[id], made)}
        work.told(stage, list(items), **kept, sampler=sampler, **how)

    told("captions", tellings.captions(), tellings.caption_prompt, tellings.kept_caption, config.captions)
    told("tellings", tellings.tellings(), tellings.prompt, tellings.kept_telling, config.tellings)


def _videos(config: TemporalConfig) -> list[str]:
    """Return the files below the folder, by their paths from there, hidden ones left out.

    Raises:
        ConfigError: there is no such folder, or the run's own directory lies in it.
        DataError: it is empty.
    """
    folder = Path(config.data.videos)
    if not folder.is_dir():
        raise ConfigError(f"data.videos {config.data.videos!r} is no directory; name the one that holds the videos")
    if Path(config.temporal.output_dir).resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"temporal.output_dir {config.temporal.output_dir!r} lies in data.videos, whose files are all taken for "
            "videos; name a directory elsewhere"
        )
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [path.as_posix() for path in files if not any(part.startswith(".") for part in path.parts)]
    if not shown:
        raise DataError(f"data.videos {config.data.videos!r} holds no file")
    # A name that is no Unicode has no form in JSON; by this one no file is found, and so it is refused.
    return sorted(name.encode("utf-8", "backslashreplace").decode() for name in shown)


def _bounds(config: TemporalConfig) -> dict[str, Any]:
    data = config.data
    return {
        "min_pixels": data.min_pixels,
        "max_pixels": data.max_pixels,
        "decode_timeout_s": data.decode_timeout_s,
        "decode_memory_bytes": int(data.decode_memory_gb * 10**9),
    }


def _encoder(config: TemporalConfig, place: RunDirectory, processes: PartialState) -> ClipEncoder:
    """Load CLIP; a built-in one is written to the run directory first."""
    import torch

    path = config.clips.model
    if path == miniature_clip.BUILT_IN and not Path(path).is_dir():
        path = str(place.root / "start_clip")
        unfinished = place.root / f".start_clip.{processes.process_index}.unfinished"
        if not Path(path).is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
            miniature_clip.save(unfinished, seed=config.temporal.seed)
            _rename_first(unfinished, Path(path))
    how = {"dtype": getattr(torch, config.clips.dtype), "batch_size": config.clips.batch_size}
    return ClipEncoder.load(path, device=processes.device, **how)


def _rename_first(unfinished: Path, path: Path) -> None:
    """Give a directory its name, unless another process was faster with the same contents."""
    try:
        os.rename(unfinished, path)
    except OSError:
        shutil.rmtree(unfinished)


def _identity(config: TemporalConfig) -> dict[str, Any]:
    """Return what decides the pairs, by the sections of the recipe."""
    answering = config.server or config.model
    facts = json.dumps(facts_of_files(config.data.videos)).encode()
    return {
        "model": answering.model_dump(include={"path", "dtype", "quantize", "url", "model"}),
        "data": config.data.model_dump(include={"videos", "min_pixels", "max_pixels", "max_length"}),
        "videos": hashlib.sha256(facts).hexdigest(),
        **config.model_dump(mode="json", include={"shots", "captions", "tellings", "perturbations", "pairs"}),
        "clips": config.clips.model_dump(exclude={"batch_size"}),
        "seed": config.temporal.seed,
    }


def _finish(config: TemporalConfig, place: RunDirectory, work: Work, tellings: Tellings) -> TemporalResult:
    """Write the rows, and say what went on from each stage and what did not."""
    counts = {name: {"kept": len(records), **records.counts} for name, records in work.stages.items()}
    if missing := tellings.without_captions():
        counts["tellings"]["videos without all captions"] = len(missing)
    place.quarantine.unlink(missing_ok=True)
    quarantine = Quarantine(place.quarantine, config.data.max_refused_share)
    try:
        for records in work.stages.values():
            for _ in records:
                quarantine.kept()
            for refusal in records.refusals():
                quarantine.take(refusal)
        quarantine.check()
    finally:
        quarantine.close()
    place.quarantine.touch()
    left = place.root / "left_out.jsonl"
    _write_left_out(left, work)
    good, rows = work.stages["pairs"], place.root / "rows.jsonl"
    count = write_jsonl(rows, (tellings.row(one) for id, one in tellings.pairs().items() if id in good))
    manifest = {"identity": _identity(config), "rows": count, "stages": counts}
    if config.model is not None:
        manifest["model"] = fingerprint_of(config.model, place)
    rundir.write_manifest(place, manifest)
    print("\n".join(_lines(counts)), flush=True)
    if not count:
        raise DataError(f"no pair is left; {place.manifest} and the lines above say at which stage, by which rule")
    view = f"mmalign data view {rows} -o {place.root / 'rows.html'} --root {config.data.videos}"
    print(f"rows: {rows}\nlook at them: {view}", flush=True)
    return TemporalResult(rows=rows, left_out=left, quarantine=place.quarantine, counts=counts)


def _write_left_out(path: Path, work: Work) -> None:
    """Write which videos and pairs went no further, at which stage, and by which rule."""
    with completed(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        for stage, records in work.stages.items():
            for item, rule in records.left_out():
                file.write(json_line({"stage": stage, "id": item, "rule": rule}) + "\n")


def _lines(counts: dict[str, dict[str, int]]) -> list[str]:
    """Return a line for each stage."""
    lines = []
    for stage, numbers in counts.items():
        other = "; ".join(f"{reason}: {number}" for reason, number in numbers.items() if reason != "kept")
        lines.append(f"{stage:11} {numbers['kept']:6,} kept" + (f"; not kept: {other}" if other else ""))
    return lines
