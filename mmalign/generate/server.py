"""Answers of any OpenAI-compatible server: vLLM's, SGLang's, llama.cpp's, a provider's."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mmalign.errors import ModelError, RowError
from mmalign.formats.media import MediaKind
from mmalign.formats.preference import Preference
from mmalign.formats.prompt import Prompt
from mmalign.generate.answers import Finish, Generated, OnRefused, Sample
from mmalign.generate.chat_requests import RequestForm, request_of, turns_of
from mmalign.generate.endpoint import NO_ANSWER
from mmalign.generate.paid_answers import Answering
from mmalign.generate.sampling import GREEDY, Sampling, is_endless, seed_of
from mmalign.modalities.fetch import MediaLimits

_FINISHES: dict[Any, Finish] = {"stop": "end", "length": "length", "content_filter": "filtered"}
_SILENCES_BEFORE_GIVING_UP = 8


class ServerSampler:
    """A `Sampler` over a server.

    Every answer is a request of its own, with its own seed: servers that share prefixes compute the prompt once anyway,
    and an answer is then paid for, cached and resumed by itself.

    Args:
        server: an `Endpoint`, or `PaidAnswers` around one.
        form: what all requests share.
        limits: of every kind of media: they say how large pictures are sent, and which frames of videos.
        concurrency: requests under way at a time.
    """

    def __init__(
        self,
        server: Answering,
        form: RequestForm,
        limits: Mapping[MediaKind, MediaLimits],
        *,
        concurrency: int = 8,
    ) -> None:
        self._server, self._form, self._limits, self._concurrency = server, form, limits, concurrency
        self.name, self.tokens_made = form.model, 0

    def sample(
        self,
        prompts: Iterable[Prompt | Preference],
        *,
        n: int = 1,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        on_refused: OnRefused | None = None,
    ) -> Iterator[Generated]:
        """Yield n answers for every prompt; see `answers.Sampler`.

        Raises:
            ModelError: the server refuses every request, or does not answer any more.
        """
        silences = 0
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="mmalign-server") as pool:
            under_way: deque[tuple[Prompt, list[Future[Sample]]]] = deque()
            waiting = iter(map(Prompt.of, prompts))
            try:
                while True:
                    for prompt in itertools.islice(waiting, self._prompts_ahead(n) - len(under_way)):
                        under_way.append((prompt, self._ask(pool, prompt, n, sampling, seed)))
                    if not under_way:
                        return
                    prompt, futures = under_way.popleft()
                    try:
                        samples = tuple(future.result() for future in futures)
                    except RowError as error:
                        silences = silences + 1 if error.reason == NO_ANSWER else 0
                        self._require_alive(silences, error)
                        if on_refused is None:
                            raise
                        on_refused(prompt, error)
                        continue
                    silences = 0
                    self.tokens_made += sum(len(sample.logps) for sample in samples)
                    yield Generated(prompt=prompt, samples=samples, model=self.name, seed=seed)
            finally:
                for future in itertools.chain.from_iterable(futures for _, futures in under_way):
                    future.cancel()

    def _prompts_ahead(self, n: int) -> int:
        """Return how many prompts are under way: enough that no request waits for the answers of one prompt."""
        return 2 * math.ceil(self._concurrency / n)

    def _ask(
        self, pool: ThreadPoolExecutor, prompt: Prompt, n: int, sampling: Sampling, seed: int
    ) -> list[Future[Sample]]:
        """Send the requests of one prompt on their way; media are read in the pool, once for all of them."""
        turns = pool.submit(turns_of, prompt, self._limits)
        seeds = [seed_of(seed, prompt.id, number) for number in range(n)]
        return [pool.submit(self._answer, turns, sampling, own) for own in seeds]

    def _answer(self, turns: Future[list[dict[str, Any]]], sampling: Sampling, seed: int) -> Sample:
        body = request_of(turns.result(), self._form, sampling, seed)
        return sample_of(self._server.complete(body), sampling, seed)

    def _require_alive(self, silences: int, error: RowError) -> None:
        if silences >= _SILENCES_BEFORE_GIVING_UP:
            raise ModelError(
                f"{self._server.url} gave no answer to {silences} prompts on end: {error.hint}; see that it runs, then "
                "go on with --resume, which asks again"
            )


def sample_of(answer: Mapping[str, Any], sampling: Sampling, seed: int) -> Sample:
    """Return what a chat-completions answer says; whether it is without end is seen by its words.

    Raises:
        RowError: it is no such answer.
    """
    try:
        choice = answer["choices"][0]
        text = choice["message"].get("content") or ""
        listed = (choice.get("logprobs") or {}).get("content") or ()
        logps = tuple(float(token["logprob"]) for token in listed)
        if not isinstance(text, str) or not all(map(math.isfinite, logps)):
            raise TypeError("its text is no text, or a log-prob is no number")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        hint = f"choices[0].message.content is read ({type(error).__name__}: {error})"
        raise RowError("server's answer is no chat completion", field="server", value=answer, hint=hint) from error
    finish = _FINISHES.get(choice.get("finish_reason"), "end")
    if is_endless(text.split(), sampling.endless_after_tokens):
        finish = "endless"
    return Sample(text=text.strip(), finish=finish, seed=seed, logps=logps)
