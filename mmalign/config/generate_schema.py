"""The schema of recipes that generate: prompts go in, rows with N answers of a model come out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Strict, model_validator

from mmalign.config.problems import Problem
from mmalign.config.rules import pixels_are_ordered, require_possible, video_settings_are_read
from mmalign.config.schema import Count, NotNegative, Positive, RowsConfig, Section

if TYPE_CHECKING:
    from mmalign.config.temporal_schema import TemporalConfig

Text = Annotated[str, Field(min_length=1)]


class AnsweringModelConfig(Section):
    """A model that answers from memory."""

    path: Text
    """Directory of a model or adapter, a hub id, or `miniature/<family>` for a built-in tiny model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type the weights are held in and computed with."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] | None = None
    """Attention kernel. Default: what the model family does best with."""
    quantize: Literal["4bit", "8bit"] | None = None
    """Load weights in 4 or 8 bits (needs CUDA and the extra `qlora`)."""
    trust_remote_code: bool = False
    """Permit code that comes with the model directory to run."""
    answers_at_once: Count = 16
    """Answers that grow together on one device."""


class ServerConfig(Section):
    """A server that answers chat-completions requests. Nothing else is ever contacted."""

    url: Text
    """Address up to and without /chat/completions, e.g. http://localhost:8000/v1."""
    model: Text
    """Name by which the server knows the model."""
    api_key_env: Text | None = None
    """Environment variable that holds the key. Default: no key is sent."""
    length_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the server calls the bound on new tokens."""
    logprobs: bool = False
    """Ask for the log-prob of every token."""
    concurrency: Count = 8
    """Requests under way at a time."""
    timeout_s: Positive = 300.0
    """Longest time one answer may take."""
    attempts: Count = 6
    """Times a request is made before its row is refused, with longer and longer waits between."""
    max_request_mb: Positive = 20.0
    """Longest request in 10^6 bytes, pictures included."""
    cache_dir: str | None = None
    """Directory that keeps answers by the content of their request, for all runs. Default: this run's log alone."""


class PromptsConfig(RowsConfig):
    """What is asked."""

    prompts: Text
    """Rows in any format that is read, with answers (which the model does not see) or without."""
    max_length: Count | None = None
    """Most tokens of a prompt, media included: media shrink and old turns are dropped to fit. Default: no limit."""


class SamplingConfig(Section):
    """How answers are drawn, and when they end."""

    max_new_tokens: Count = 256
    """An answer that does not end by then is cut."""
    temperature: NotNegative = 1.0
    """0 takes the most probable token; 1 samples from the model's own distribution."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the smallest set of tokens that has this probability."""
    top_k: Count | None = None
    """Sample from so many most probable tokens. Default: from all."""
    repetition_penalty: Positive = 1.0
    """Above 1, tokens that the prompt or the answer holds already become less probable. 1: no effect."""
    stop: Annotated[tuple[Text, ...], Strict(False)] = ()
    """Texts that end an answer; they and what follows do not belong to it."""
    endless_after_tokens: Annotated[int, Field(ge=4)] | None = 128
    """An answer is given up when so many last tokens (of a server's answer: words) repeat one piece. null: never."""


class GenerationConfig(Section):
    """How much is generated, and where it goes."""

    output_dir: Text
    """Directory of the run; made when missing."""
    n: Count = 1
    """Answers for each prompt."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of all answers: each depends on it, the row's id and its own number, and on nothing else."""
    threads: Count | None = None
    """CPU threads torch uses. Default: torch's own."""


class GenerateConfig(Section):
    """One run of `mmalign generate`."""

    recipe: Literal["generate"]
    """`generate` answers prompts."""
    model: AnsweringModelConfig | None = None
    """The model that answers, in memory."""
    server: ServerConfig | None = None
    """The server that answers, instead of a model in memory."""
    data: PromptsConfig
    """What is asked."""
    sampling: SamplingConfig = SamplingConfig()
    """How answers are drawn."""
    generate: GenerationConfig
    """How many, and where to."""

    @model_validator(mode="after")
    def _refuse_impossible_combinations(self) -> GenerateConfig:
        require_possible(self, RULES)
        return self

    @property
    def answering(self) -> str:
        """How rows call the model."""
        return self.model.path if self.server is None else self.server.model


def one_answers(recipe: GenerateConfig | TemporalConfig) -> Iterator[Problem]:
    """Either a model in memory or a server answers."""
    if (recipe.model is None) == (recipe.server is None):
        number = "neither" if recipe.model is None else "both"
        yield Problem(path=("recipe",), text=f"{recipe.recipe!r} needs one of model and server and has {number}")


def answers_differ(recipe: GenerateConfig) -> Iterator[Problem]:
    """At temperature 0 all answers to a prompt are the same."""
    if recipe.generate.n > 1 and recipe.sampling.temperature == 0:
        text = f"{recipe.generate.n} answers at sampling.temperature 0 are all the same; raise it, or set n: 1"
        yield Problem(path=("generate", "n"), text=text)


def settings_reach_the_server(recipe: GenerateConfig | TemporalConfig) -> Iterator[Problem]:
    """A server counts tokens itself."""
    if recipe.server is not None and recipe.data.max_length is not None:
        yield Problem(
            path=("data", "max_length"),
            text="is not read with a server, whose tokens are not known here; remove it, or bound data.max_pixels",
        )


def threads_are_used(recipe: GenerateConfig) -> Iterator[Problem]:
    """A server uses no threads of ours."""
    if recipe.server is not None and recipe.generate.threads is not None:
        yield Problem(path=("generate", "threads"), text="is not read with a server; remove it")


RULES = (
    one_answers,
    answers_differ,
    settings_reach_the_server,
    threads_are_used,
    pixels_are_ordered,
    video_settings_are_read,
)
