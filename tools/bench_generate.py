"""N sampled answers to one prompt with a picture: the prompt computed once, against transformers' `generate`.

    python tools/bench_generate.py
    python tools/bench_generate.py --family llava --answers 1,8 --tokens 64

All ways draw answers of a fixed number of tokens from the same miniature of bench size. Before they are timed, greedy
answers of all must be the same, token for token. Rounds are interleaved; times are medians, arithmetic is
counted once.

- plain generate: `model.generate(..., num_return_sequences=N)`, which repeats the prompt and its picture N times;
- repeated prompt: the same with our choice of tokens (`generate/plain.py`);
- shared prompt: keys and values of the prompt computed once (`generate/shared_prefix.py`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from mmalign.formats.media import MediaRef  # noqa: E402
from mmalign.formats.prompt import Prompt  # noqa: E402
from mmalign.generate.hf import LocalSampler  # noqa: E402
from mmalign.generate.plain import prompt_inputs  # noqa: E402
from mmalign.generate.sampling import Sampling  # noqa: E402
from mmalign.miniature import models  # noqa: E402
from mmalign.modalities.table import limits_below  # noqa: E402

WAYS = ("plain generate", "repeated prompt", "shared prompt")


class Case:
    """One prompt, and the ways to answer it N times in T tokens each."""

    def __init__(self, family: str, side_px: int, answers: int, tokens: int, place: Path, scale: str = "bench") -> None:
        directory = place / family
        if not directory.is_dir():
            models.save(family, directory, scale=scale)
        pixels = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "picture.png")
        self._prompt = Prompt.ask("What is it?", MediaRef(kind="image", uri="picture.png"), id="bench")
        how = {"answers_at_once": answers, "max_length": None}
        self._shared = LocalSampler.load(directory, limits_below(place), **how)
        self._model, self._tokeniser = self._shared.model, self._shared.tokeniser
        self._model.generation_config.eos_token_id = None
        self._repeated = LocalSampler(self._model, self._tokeniser, answers_at_once=answers, shared_prefix=False)
        self._answers, self._tokens = answers, tokens
        tree = self._tokeniser.prompt(self._prompt)
        self.prompt_tokens = len(tree.prompt_ids)
        self._inputs = prompt_inputs([tree], self._tokeniser.family, self._tokeniser.pad_id)

    def answer(self, way: str, temperature: float = 1.0) -> list[list[int]]:
        """Return the tokens of all answers."""
        if way == "plain generate":
            return self._generate(temperature)
        sampler = self._shared if way == "shared prompt" else self._repeated
        sampling = Sampling(max_new_tokens=self._tokens, temperature=temperature, endless_after_tokens=None)
        (made,) = sampler.sample([self._prompt], n=self._answers, sampling=sampling)
        return [list(sample.ids) for sample in made.samples]

    def _generate(self, temperature: float) -> list[list[int]]:
        self._model.eval()
        how = {"do_sample": True, "temperature": temperature, "top_p": None, "top_k": 0}
        how |= {"num_return_sequences": self._answers}
        if temperature == 0:
            how = {"do_sample": False}
        bounds = {"max_new_tokens": self._tokens, "pad_token_id": self._tokeniser.pad_id}
        with torch.no_grad():
            ids = self._model.generate(**self._inputs, **how, **bounds)
        return ids[:, self.prompt_tokens :].tolist()

    def require_agreement(self) -> None:
        """Stop when greedy answers differ between the ways."""
        found = [self.answer(way, temperature=0.0)[0] for way in WAYS]
        if any(ids != found[0] for ids in found):
            raise SystemExit(f"greedy answers differ: {dict(zip(WAYS, found, strict=True))}")


def operations(case: Case, way: str) -> float:
    """Return the arithmetic of one round in GFLOP, which no other load on the machine changes."""
    with FlopCounterMode(display=False) as counter:
        case.answer(way)
    return counter.get_total_flops() / 1e9


def timed(case: Case, way: str) -> tuple[float, float, int]:
    """Return wall seconds, CPU seconds and tokens of one round."""
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sum(map(len, case.answer(way)))
    return time.perf_counter() - wall, time.process_time() - cpu, tokens


def main() -> None:
    """Measure and print a Markdown table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{arguments.family}, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}, {versions}\n")
    print("| prompt | answers | way | GFLOP | s | CPU s | tokens/s | plain's GFLOP / its | plain's CPU time / its |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as place:
        for answers in map(int, arguments.answers.split(",")):
            case = Case(arguments.family, arguments.side_px, answers, arguments.tokens, Path(place))
            case.require_agreement()
            counted = {way: operations(case, way) for way in WAYS}
            rounds = [{way: timed(case, way) for way in WAYS} for _ in range(arguments.repeats)]
            for way in WAYS:
                wall, cpu, tokens = (statistics.median(r[way][k] for r in rounds) for k in range(3))
                shorter = statistics.median(r[WAYS[0]][1] / r[way][1] for r in rounds)
                cells = [case.prompt_tokens, answers, way, f"{counted[way]:.1f}", f"{wall:.2f}", f"{cpu:.2f}"]
                cells += [f"{tokens / wall:.0f}", f"{counted[WAYS[0]] / counted[way]:.2f}", f"{shorter:.2f}"]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="qwen2_5_vl")
    parser.add_argument("--side-px", type=int, default=448)
    parser.add_argument("--answers", default="1,4,8")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    return parser.parse_args()


if __name__ == "__main__":
    main()
