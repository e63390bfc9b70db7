"""The schema of recipes that make temporal preference pairs of a folder of videos (TEMPLE, arXiv 2503.16929).

Defaults are the constants of its released code, but for the two models, which it hard-codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from mmalign.config.generate_schema import (
    AnsweringModelConfig,
    SamplingConfig,
    ServerConfig,
    Text,
    one_answers,
    settings_reach_the_server,
)
from mmalign.config.problems import Problem
from mmalign.config.rules import require_possible
from mmalign.config.schema import Count, NotNegative, Positive, Section, Share

How = Literal["drop", "drop_groups", "reverse", "shuffle", "repeat", "freeze", "speed"]
Told = Literal["captions", "clips", "frames"]
Factor = Annotated[int, Field(ge=2)]


class VideosConfig(Section):
    """Which videos, and how large the model sees them."""

    videos: Text
    """Directory; every file below it is taken for a video, except hidden ones."""
    min_pixels: Count | None = None
    """Fewest pixels a frame may have after resizing. Default: the processor's own."""
    max_pixels: Count | None = 28 * 28 * 512
    """Most pixels of a frame. null: the processor's own."""
    max_length: Count | None = None
    """Most tokens of a prompt, media included: media shrink to fit. Default: no limit."""
    decode_timeout_s: Positive = 60.0
    """A video that takes longer to decode is refused."""
    decode_memory_gb: Annotated[float, Field(ge=0.5)] = 4.0
    """Memory of the process that decodes, in units of 10^9 bytes."""
    max_refused_share: Share = 0.05
    """The run ends without rows when more than this share of videos and generated texts is refused."""


class ShotsConfig(Section):
    """Which shots count, and which videos have shots enough."""

    least_frames: Count = 8
    """Shots of fewer frames are dropped."""
    least_s: NotNegative = 0.2
    """Shorter shots are dropped, in seconds."""
    least_grey_range: Annotated[int, Field(ge=0, le=255)] = 10
    """Shots whose darkest and brightest grey are closer than this are dropped."""
    split_longer_than_s: Positive | None = None
    """Cut longer shots into equal pieces of at most so many seconds, for videos without cuts. Default: never."""
    fewest: Count = 4
    """Videos with fewer shots are left out."""
    most: Count = 32
    """Videos with more shots are left out."""
    longest_s: Positive = 16.0
    """Videos with a longer shot are left out."""


class ClipsConfig(Section):
    """How shots become clips, and which videos have clips whose order can be seen."""

    model: Text
    """CLIP that compares shots: directory in open_clip's layout, hub id, or `miniature/clip`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type that it computes in."""
    batch_size: Count = 32
    """Pictures of one of its forwards."""
    alike_above: Annotated[float, Field(ge=-1, le=1)] = 0.8
    """Shots are of one group while their cosine is larger; neighbours of one group are one clip."""
    fewest: Annotated[int, Field(ge=2)] = 4
    """Videos with fewer clips are left out."""
    most_share_of_a_group: Share = 1 / 3
    """Videos are left out when more than this share of the clips, rounded down, is of one group."""
    most_of_a_group: Count = 3
    """Videos are left out when more clips than this are of one group."""
    frames: Count = 2
    """Frames of a clip that the model sees, the sharpest near evenly spread places."""


class CaptionSampling(SamplingConfig):
    """How captions of clips are drawn."""

    max_new_tokens: Count = 2048
    """An answer that does not end by then is cut."""
    temperature: NotNegative = 0.0
    """0 takes the most probable token; 1 samples from the model's own distribution."""
    repetition_penalty: Positive = 1.05
    """Above 1, tokens that the prompt or the answer holds already become less probable. 1: no effect."""


class TellingSampling(SamplingConfig):
    """How whole videos are told, rightly and wrongly alike."""

    max_new_tokens: Count = 8192
    """An answer that does not end by then is cut."""
    temperature: NotNegative = 0.7
    """0 takes the most probable token; 1 samples from the model's own distribution."""
    repetition_penalty: Positive = 1.05
    """Above 1, tokens that the prompt or the answer holds already become less probable. 1: no effect."""


class PerturbationsConfig(Section):
    """How videos are told wrongly."""

    of: Annotated[tuple[Told, ...], Strict(False), Field(min_length=1)] = ("captions",)
    """What changes place: `captions` tells from the list of captions, `clips` and `frames` from the frames."""
    how: Annotated[tuple[How, ...], Strict(False), Field(min_length=1)] = ("drop", "reverse", "shuffle")
    """Perturbations (`mmalign/pairs/perturbation.py`)."""
    factors: Annotated[tuple[Factor, ...], Strict(False), Field(min_length=1)] = (16, 8, 4, 2)
    """How strong: N items are cut into blocks of N / factor, or so many are kept. Larger is easier."""


class PairsConfig(Section):
    """Which pairs are kept."""

    most_length_ratio: Annotated[float, Field(ge=1)] = 1.5
    """Pairs whose longer text has more times the characters of the shorter are left out, unless items were dropped."""


class TemporalRunConfig(Section):
    """Where pairs go, and what they are drawn from."""

    output_dir: Text
    """Directory of the run; made when missing."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of texts, orders and requests: each depends on it and the video's path below data.videos alone."""
    threads: Count | None = None
    """CPU threads torch uses. Default: torch's own."""


class TemporalConfig(Section):
    """One run of `mmalign pairs temporal`."""

    recipe: Literal["temporal"]
    """`temporal` makes preference pairs about the order of events."""
    model: AnsweringModelConfig | None = None
    """The model that is to be aligned, in memory: it tells the videos itself."""
    server: ServerConfig | None = None
    """The server that tells them, instead of a model in memory."""
    data: VideosConfig
    """Which videos."""
    shots: ShotsConfig = ShotsConfig()
    """Which shots count."""
    clips: ClipsConfig
    """How shots become clips."""
    captions: CaptionSampling = CaptionSampling()
    """How captions of clips are drawn."""
    tellings: TellingSampling = TellingSampling()
    """How whole videos are told."""
    perturbations: PerturbationsConfig = PerturbationsConfig()
    """How they are told wrongly."""
    pairs: PairsConfig = PairsConfig()
    """Which pairs are kept."""
    temporal: TemporalRunConfig
    """Where to, and from which seed."""

    @model_validator(mode="after")
    def _refuse_impossible_combinations(self) -> TemporalConfig:
        require_possible(self, RULES)
        return self


def bounds_are_ordered(recipe: TemporalConfig) -> Iterator[Problem]:
    """No lower bound lies above its upper one."""
    shots, data = recipe.shots, recipe.data
    if shots.fewest > shots.most:
        yield Problem(path=("shots", "most"), text=f"{shots.most} is less than shots.fewest {shots.fewest}; raise it")
    if shots.split_longer_than_s is not None and shots.split_longer_than_s > shots.longest_s:
        text = f"{shots.split_longer_than_s:g} is more than shots.longest_s {shots.longest_s:g}, which leaves such out"
        yield Problem(path=("shots", "split_longer_than_s"), text=f"{text}; lower it")
    if data.min_pixels is not None and data.max_pixels is not None and data.max_pixels < data.min_pixels:
        text = f"{data.max_pixels} is less than data.min_pixels {data.min_pixels}; raise it"
        yield Problem(path=("data", "max_pixels"), text=text)


RULES = (one_answers, settings_reach_the_server, bounds_are_ordered)
