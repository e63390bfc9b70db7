"""The recipe schema: every key a YAML file may hold, its type, its default and what it means.

Names are those of `transformers.TrainingArguments` and `peft.LoraConfig` where one exists there. Values are checked as
they stand in the file (no text becomes a number), unknown keys are refused, and a recipe never changes after loading.
Rules between keys are in `rules.py`; options of one objective are checked where objectives live.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, Strict, model_validator

from mmalign.config.row_sections import RelabelSpec, SelectConfig
from mmalign.config.rules import require_possible
from mmalign.config.section import Section
from mmalign.config.stage_rules import require_stages_possible
from mmalign.config.stages import StageConfig

_TRL_SYNC = ("sync_ref_model", "ref_model_sync_steps", "ref_model_mixup_alpha")
TRL_SYNC_STEPS, TRL_MIXUP_ALPHA = 512, 0.6
"""TRL's defaults."""

Part = Literal["vision", "projector", "language"]
Tracker = Literal["tensorboard", "wandb", "trackio", "comet_ml", "mlflow", "clearml", "dvclive", "swanlab", "aim"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Parts = Annotated[tuple[Part, ...], Strict(False)]


class LoraConfig(Section):
    """Low-rank adapters (peft). The model without them is the reference."""

    rank: Count = 16
    """Rank of every adapter (`r` in peft)."""
    alpha: Positive = 32.0
    """The adapter's output is scaled by alpha / rank (`lora_alpha` in peft)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout inside the adapters. Anything but 0 makes policy and reference see different noise."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Strict(False)] = "all-linear"
    """Modules that get an adapter: `all-linear`, or a list of module-name endings such as [q_proj, v_proj]."""
    parts: Annotated[Parts, Field(min_length=1)] = ("language",)
    """Parts of the model whose modules may get an adapter."""


class TeacherConfig(Section):
    """Models whose next-token distributions are imitated. They run once, before the policy is loaded."""

    path: Annotated[str, Field(min_length=1)]
    """Aligned model, of the policy's family and tokenizer; it may be larger."""
    contrast: Annotated[str, Field(min_length=1)] | None = None
    """Second model that the teacher is contrasted with: before its alignment (adpa), or aligned the other way round."""
    top_k: Count = 64
    """Likeliest tokens kept of each distribution, on disk; the mass of the others is kept as one number."""


class ReferenceUpdateConfig(Section):
    """How the reference follows the policy while training (TR-DPO)."""

    kind: Literal["sync", "ema"]
    """`sync`: the reference becomes a copy of the policy. `ema`: it takes over a share of the policy's weights."""
    every_steps: Count
    """Optimiser steps between two moves (`ref_model_sync_steps` in TRL, where it is 512)."""
    mixup_alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share that `ema` takes over (`ref_model_mixup_alpha` in TRL). Default: 0.6 for `ema`; `sync` has none."""


class ModelConfig(Section):
    """Which model is trained, what it is compared with, and which of its weights move."""

    path: Annotated[str, Field(min_length=1)]
    """Directory written by `save_pretrained`, a hub id, or `miniature/<family>` for a built-in tiny model."""
    reference: Annotated[str, Field(min_length=1)] | None = None
    """Model to compare with. Default: the start of the run (adapter off with LoRA, a frozen copy without)."""
    precompute_reference: bool = False
    """Compute the reference's log-probs once before training and keep them on disk; no reference stays in memory."""
    token_reward: Annotated[str, Field(min_length=1)] | None = None
    """Frozen model whose log-probs against the reference's are rewards of single tokens (sail)."""
    teacher: TeacherConfig | None = None
    """Teacher of objectives that imitate one (dckd, adpa, aligndistil)."""
    reference_update: ReferenceUpdateConfig | None = None
    """Let the reference follow the policy; TRL's names (sync_ref_model, ...) are read too. Default: it stays."""
    lora: LoraConfig | None = None
    """Train adapters only. Leave out for full fine-tuning."""
    adapter: Annotated[str, Field(min_length=1)] | None = None
    """Adapter to go on with: directory that a run with the same model.lora on the same path left behind."""
    quantize: Literal["4bit", "8bit"] | None = None
    """Load frozen weights in 4 or 8 bits (QLoRA; needs LoRA, CUDA and the extra `qlora`)."""
    freeze: Parts = ()
    """Parts that keep their weights."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type the weights are held in. `auto`: bfloat16 for the frozen base of LoRA under train.bf16, else float32."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] | None = None
    """Attention kernel. Default: what the model family does best with."""
    trust_remote_code: bool = False
    """Permit code that comes with the model directory to run."""

    @model_validator(mode="before")
    @classmethod
    def _names_of_trl(cls, values: Any) -> Any:
        """Read TRL's three options of TR-DPO as the one key that they are here; alone they would say nothing."""
        if not isinstance(values, dict) or "reference_update" in values or values.get("sync_ref_model") is not True:
            return values
        rest = {key: value for key, value in values.items() if key not in _TRL_SYNC}
        steps = values.get("ref_model_sync_steps", TRL_SYNC_STEPS)
        alpha = values.get("ref_model_mixup_alpha", TRL_MIXUP_ALPHA)
        how = {"kind": "sync"} if alpha == 1 else {"kind": "ema", "mixup_alpha": alpha}
        return {**rest, "reference_update": {"every_steps": steps, **how}}


class VisionConfig(Section):
    """Reuse of vision features. Only a frozen vision tower can be shared or cached."""

    share: Literal["auto", "off"] = "auto"
    """`auto`: encode an image once for policy and reference when the tower is frozen. `off`: encode each time."""
    cache_dir: str | None = None
    """Directory that keeps vision features between epochs and runs. Default: no cache."""
    cache_max_gb: Positive | None = None
    """Size limit of the cache in 10^9 bytes; the features not used for longest go first. Default: 20 when cached."""


class VideoConfig(Section):
    """Which frames of a video a model sees, and how large: the same in training, scoring and evaluation."""

    sampling: Literal["fps", "uniform", "sharpness", "keyframes"] = "fps"
    """How frames are chosen; a row that lists its frame indices keeps them (`mmalign/modalities/sampling.py`)."""
    fps: Positive | None = None
    """Frames per second that sampling `fps` takes; other samplings read no rate. Default: 2."""
    frames: Count = 32
    """Number of frames; for sampling `fps` the most that are taken, spread evenly when there are more."""
    min_pixels: Count | None = None
    """Fewest pixels a frame may have after resizing. Default: the processor's own."""
    max_pixels: Count | None = None
    """Most pixels a frame may have. Default: the processor's own."""
    max_total_pixels: Count | None = None
    """Most pixels of all frames of one video together. Default: no limit but the two above."""
    decode_timeout_s: Positive = 60.0
    """A video that takes longer to decode is refused."""
    decode_memory_gb: Annotated[float, Field(ge=0.5)] = 4.0
    """Memory of one process that decodes, in units of 10^9 bytes; every loading process has one beside it."""
    cache_dir: str | None = None
    """Directory that keeps decoded frames between epochs and runs. Default: no cache."""
    cache_max_gb: Positive | None = None
    """Size limit of that cache in 10^9 bytes; the clips not used for longest go first. Default: 20 when cached."""


class RowsConfig(Section):
    """How rows are read, whatever they are for, and which of them are refused."""

    root: str | None = None
    """Directory that all media paths are below. Default: the directory of the rows file."""
    format: str | None = None
    """Row format by name (`mmalign data show` lists them). Default: detected from the columns."""
    min_pixels: Count | None = None
    """Fewest pixels an image may have after resizing. Default: the processor's own."""
    max_pixels: Count | None = None
    """Most pixels an image may have; larger ones are shrunk, keeping their shape. Default: the processor's own."""
    video: VideoConfig = VideoConfig()
    """Which frames of videos are taken, and their bounds."""
    max_refused_share: Share = 0.05
    """The run stops when more than this share of the rows is refused."""
    allow_http: bool = False
    """Permit rows to name media by http(s) address."""


class DataConfig(RowsConfig):
    """Where rows come from and which of them are refused."""

    train: Annotated[str, Field(min_length=1)]
    """Training rows: a .json, .jsonl or .parquet file, a `datasets` directory, or a hub id."""
    eval: Annotated[str, Field(min_length=1)] | None = None
    """Held-out rows, in any of the same forms."""
    select: SelectConfig | None = None
    """Which training rows are read. Default: all."""
    relabel: Annotated[tuple[RelabelSpec, ...], Strict(False)] = ()
    """What rows become before they are read, training and held-out rows alike."""
    max_length: Count | None = None
    """Most tokens of prompt plus longest response, media tokens included. Default: no limit."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Processes that load media ahead of the step; 0 loads in the training process."""


class ObjectiveSpec(Section):
    """One objective of a weighted sum. Its own options (beta, gamma, pairs, ...) stand beside name and weight."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(min_length=1)]
    """Preset, e.g. dpo, simpo, sft; `mmalign objectives` lists all with their options."""
    weight: float = 1.0
    """Factor in the sum."""

    def options(self) -> dict[str, Any]:
        """Return what was given beside name and weight."""
        return dict(self.model_extra or {})


class TrainConfig(Section):
    """Steps, batches, the optimiser, and what is written when."""

    output_dir: Annotated[str, Field(min_length=1)]
    """Run directory; made when missing."""
    per_device_train_batch_size: Count = 1
    """Rows (prompts with all their responses) per forward pass on one device."""
    per_device_eval_batch_size: Count | None = None
    """The same for evaluation. Default: per_device_train_batch_size."""
    gradient_accumulation_steps: Count = 1
    """Forward passes per optimiser step. A step is normalised over all its rows, however they are cut."""
    max_tokens_per_batch: Count | None = None
    """Cut micro-batches by tokens instead of rows; rows per step stay as the three sizes above say."""
    learning_rate: Positive
    """Peak learning rate. No default: SFT, DPO and LoRA want values decades apart."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Shape of the learning rate after warmup."""
    warmup_ratio: Share | None = None
    """Share of all steps over which the learning rate rises from 0."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """The same as a number of steps."""
    weight_decay: NotNegative = 0.0
    """AdamW's decay; not applied to biases and norms."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of the mean of gradients."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's decay of the mean of squared gradients."""
    adam_epsilon: Positive = 1e-8
    """Added to AdamW's denominator."""
    max_grad_norm: Positive | None = 1.0
    """Gradients longer than this are scaled down to it. null: never."""
    optimizer_from: Annotated[str, Field(min_length=1)] | None = None
    """Run directory whose newest checkpoint gives the optimiser's state (moments and step count) to begin with."""
    num_train_epochs: Positive | None = None
    """Passes over the rows; 0.5 is half of one. Default 1 when max_steps is not given either."""
    max_steps: Count | None = None
    """Optimiser steps, instead of num_train_epochs."""
    save_steps: Count | None = 500
    """Write a checkpoint every so many steps. null: only at an interruption and at the end."""
    save_total_limit: Count | None = None
    """Keep this many newest checkpoints. Default: all."""
    eval_steps: Count | None = None
    """Evaluate every so many steps. Default: once, at the end, when data.eval is given."""
    logging_steps: Count = 1
    """Send to trackers, and print where there is no terminal, every so many steps; metrics.jsonl gets every step."""
    shuffle: bool = True
    """Draw rows in a new seeded order every epoch; false keeps the file's order."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of everything random."""
    bf16: bool = False
    """Compute in bfloat16 (autocast); log-probs and losses stay float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    report_to: Annotated[tuple[Tracker, ...], Strict(False)] = ()
    """Trackers (through accelerate) that get the metrics besides metrics.jsonl."""
    threads: Count | None = None
    """CPU threads torch uses. Default: torch's own."""

    @model_validator(mode="before")
    @classmethod
    def _one_epoch_unless_told(cls, values: Any) -> Any:
        """Write the default length of a run where a reader of the resolved file looks for it."""
        if isinstance(values, dict) and values.get("num_train_epochs") is None and values.get("max_steps") is None:
            return {**values, "num_train_epochs": 1.0}
        return values


class RecipeConfig(Section):
    """One run: which recipe, on which model and rows, towards which objective."""

    recipe: Literal["preference", "sft"]
    """`preference` aligns to ranked responses; `sft` imitates the best response of each row."""
    model: ModelConfig
    """Which model is trained and how."""
    engine: Literal["auto", "tree", "flat"] = "auto"
    """`tree` computes a prompt once for all its responses, `flat` once per response; `auto` takes tree where it can."""
    vision: VisionConfig = VisionConfig()
    """Reuse of vision features."""
    data: DataConfig
    """Rows to train and evaluate on."""
    objective: Annotated[tuple[ObjectiveSpec, ...], Strict(False)] = ()
    """Weighted sum of objectives. Default for `sft`: the sft objective alone."""
    train: TrainConfig
    """How long, how fast, and what is written."""
    stages: Annotated[tuple[StageConfig, ...], Strict(False)] = ()
    """Runs one after the other, each this recipe with changes. Default: one run."""

    @model_validator(mode="before")
    @classmethod
    def _sft_imitates(cls, values: Any) -> Any:
        """Give the sft recipe its one objective when the file names none."""
        if isinstance(values, dict) and values.get("recipe") == "sft" and "objective" not in values:
            return {**values, "objective": [{"name": "sft"}]}
        return values

    @model_validator(mode="after")
    def _refuse_impossible_combinations(self) -> RecipeConfig:
        require_possible(self)
        require_stages_possible(self)
        return self

    def trains_vision(self) -> bool:
        """Say whether any weight of the vision tower moves."""
        if self.model.lora is not None:
            return "vision" in self.model.lora.parts
        return "vision" not in self.model.freeze

    def weights_dtype(self) -> Literal["float32", "bfloat16"]:
        """Return the type the model's weights are loaded in; see `model.dtype`."""
        if self.model.dtype != "auto":
            return self.model.dtype
        return "bfloat16" if self.train.bf16 and self.model.lora is not None else "float32"
