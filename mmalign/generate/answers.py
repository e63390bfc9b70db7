"""What a sampler gives back: a prompt and its samples, whoever made them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from mmalign.errors import RowError
from mmalign.formats.preference import Preference, Response
from mmalign.formats.prompt import Prompt
from mmalign.generate.sampling import GREEDY, Sampling

Finish = Literal["end", "stop", "length", "endless", "filtered", "not_finite"]
"""Why an answer ended: by itself, at a stop text, cut at `max_new_tokens`, given up because it repeats itself, withheld
by a server, or because the model's probabilities were no numbers."""

OnRefused = Callable[[Prompt, RowError], None]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer.

    Args:
        text: without stop text, special tokens, and space at its ends.
        finish: why it ended.
        seed: of its draws.
        ids: its tokens, the one that ended it included; empty where a server keeps them to itself.
        logps: log-prob of every token in nats under the model's own distribution (temperature 1, no filter); empty
            where unknown.
    """

    text: str
    finish: Finish
    seed: int
    ids: tuple[int, ...] = ()
    logps: tuple[float, ...] = ()

    def problem(self, number: int) -> RowError | None:
        """Return why this answer, the `number`-th of its row, is of no use, None for a good one."""
        field = f"responses[{number}]"
        if self.finish == "endless":
            hint = "raise temperature, or sampling.endless_after_tokens where lists may be long"
            return RowError("answer repeats itself without end", field=field, value=self.text[-60:], hint=hint)
        if self.finish == "filtered":
            return RowError("server withheld the answer", field=field, hint="its content filter took offence")
        if self.finish == "not_finite":
            hint = "its weights may be broken, or its type too narrow; try model.dtype: float32"
            return RowError("model gives probabilities that are no numbers", field=field, hint=hint)
        if not self.text:
            return RowError("answer is empty", field=field, value=self.finish, hint="the model ended it at once")
        return None


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A prompt and its samples, in the order of their numbers.

    Args:
        prompt: what was asked.
        samples: n answers, useless ones included.
        model: who answered.
        seed: of the run.
    """

    prompt: Prompt
    samples: tuple[Sample, ...]
    model: str
    seed: int

    @property
    def texts(self) -> tuple[str, ...]:
        """The answers as texts."""
        return tuple(sample.text for sample in self.samples)

    def problems(self) -> list[RowError]:
        """Return why some samples are of no use."""
        found = (sample.problem(number) for number, sample in enumerate(self.samples))
        return [problem for problem in found if problem is not None]

    def row(self) -> Preference | None:
        """Return the row with the samples that are of use, all tied; None when there is none."""
        useful = [(number, sample) for number, sample in enumerate(self.samples) if sample.problem(number) is None]
        if not useful:
            return None
        responses = tuple(_response(sample, number, self.model) for number, sample in useful)
        finish = " ".join(sample.finish for _, sample in useful)
        return self.prompt.answered(responses, {"model": self.model, "seed": str(self.seed), "finish": finish})


class Sampler(Protocol):
    """Answers prompts: `generate.hf.LocalSampler` with a model in memory, `generate.server.ServerSampler` elsewhere."""

    def sample(
        self,
        prompts: Iterable[Prompt | Preference],
        *,
        n: int = 1,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        on_refused: OnRefused | None = None,
    ) -> Iterator[Generated]:
        """Yield n answers for every prompt, in the order of the prompts; responses of rows are not shown to the model.

        Args:
            prompts: read as they are needed, a batch ahead at most.
            n: answers for each prompt.
            sampling: how they are drawn.
            seed: an answer depends on it, the row's id and the answer's number: not on n, the batch, or the process.
            on_refused: told of prompts that cannot be answered; without it they raise.

        Raises:
            RowError: a prompt cannot be answered and `on_refused` is None.
            ModelError: the model or the server cannot do what is asked of it.
        """
        ...


def _response(sample: Sample, number: int, model: str) -> Response:
    scores: dict[str, float] = {"sample": number, "seed": sample.seed, "finished": float(sample.finish != "length")}
    if sample.logps:
        total = math.fsum(sample.logps)
        scores |= {"tokens": len(sample.logps), "logp": total, "logp_per_token": total / len(sample.logps)}
    return Response.of(sample.text, model=model, scores=scores)
