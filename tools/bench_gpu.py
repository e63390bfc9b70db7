"""One training step on a GPU in bf16, TRL's DPOTrainer against mmalign, within ten minutes, as one Markdown file.

    python tools/bench_gpu.py --output gpu.md                # CUDA; about 25 GB of memory
    python tools/bench_gpu.py --device cpu --quick           # the same program on a tiny model: does it run?

A model of Qwen3-VL's architecture with random weights (0.9 billion: hidden 1536, 16 layers, vocabulary 151,936,
vision 12 layers) is built in a temporary directory. Before anything is timed, both sides must agree on loss and
gradients of a tiny model on the same device, in float32. What is measured, and how, is told in `bench_step.py`; memory
is what torch allocates. A second table times attention alone, forward and backward, in the shapes of the trees: the
dense mask that the engine gives to sdpa, FlexAttention with a block mask, and causal sdpa over separate rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import torch  # noqa: E402
from bench_sides import Case, Setting, save_models  # noqa: E402
from bench_step import TABLE_HEAD, Bench, heading, matrix_rate, table_rows  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention  # noqa: E402

FAMILY = "qwen3_vl"
SIZE = {
    "hidden": 1536,
    "intermediate": 6144,
    "layers": 16,
    "heads": 12,
    "key_value_heads": 4,
    "vocabulary": 151_936,
    "vision_hidden": 1024,
    "vision_intermediate": 4096,
    "vision_layers": 12,
    "vision_heads": 16,
}
SIDES = ("trl", "tree", "separate rows", "tree, steady")
SHAPES = (
    {"name": "256 image tokens, 2 x 40", "prompts": 8, "responses": 2, "image_tokens": 256, "response_tokens": 40},
    {"name": "1,024 image tokens, 2 x 128", "prompts": 4, "responses": 2, "image_tokens": 1024, "response_tokens": 128},
    {"name": "1,024 image tokens, 4 x 128", "prompts": 2, "responses": 4, "image_tokens": 1024, "response_tokens": 128},
    {"name": "1,024 image tokens, 8 x 128", "prompts": 1, "responses": 8, "image_tokens": 1024, "response_tokens": 128},
)
WAYS = (("full", "frozen"), ("full", "trained"), ("lora", "frozen"))


def main() -> None:
    """Measure, print, and write the tables."""
    arguments = _arguments()
    deadline = time.monotonic() + 60 * arguments.minutes
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        cases, sides = (list(_cases())[:1], SIDES[:2]) if arguments.quick else (list(_cases()), SIDES)
        _require_agreement(folder / "tiny", arguments.device, cases, threads)
        size = {"scale": "tiny"} if arguments.quick else {"scale": "bench", **SIZE}
        # Without a GPU the program is only tried, and few CPUs multiply in half precision.
        dtype = "bfloat16" if arguments.device == "cuda" else "float32"
        models = save_models(folder / "timed", family=FAMILY, dtype=dtype, **size)
        setting = Setting(*models, device=arguments.device, dtype=dtype)
        rate = matrix_rate(setting, threads)
        _say(lines, heading(setting, threads, rate))
        _say(lines, TABLE_HEAD)
        for text in _measured(setting, cases, sides, rate, arguments.repeats, threads, deadline):
            _say(lines, text)
    _say(lines, "\n" + "\n".join(attention_table(arguments.device, quick=arguments.quick)))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measured(
    setting: Setting,
    cases: list[Case],
    sides: Sequence[str],
    rate: float,
    repeats: int,
    threads: int,
    deadline: float,
) -> Iterator[str]:
    """Yield the lines of each case; what does not fit the time or the memory says so in its line."""
    bench = None
    for case in cases:
        if time.monotonic() > deadline:
            yield f"| {case.name} | {case.vision} | {case.tuning} | no time was left |" + " |" * 6
            continue
        bench = bench or Bench(setting, sides, threads)
        try:
            measured, operations = bench.measure(case, repeats)
            yield table_rows(case, measured, operations / rate)
        except RuntimeError as error:
            yield f"| {case.name} | {case.vision} | {case.tuning} | failed: {_last_line(error)} |" + " |" * 6
            bench.close()
            bench = None
    if bench is not None:
        bench.close()


def _require_agreement(folder: Path, device: str, cases: list[Case], threads: int) -> None:
    """Stop unless both sides compute the same on this device, in float32 and with a tiny model."""
    setting = Setting(*save_models(folder, family=FAMILY, scale="tiny"), device=device)
    with Bench(setting, SIDES[:1], threads) as bench:
        for case in cases:
            bench.require_agreement(case)


def _cases() -> Iterator[Case]:
    for shape in SHAPES:
        for tuning, vision in WAYS:
            yield Case(**shape, tuning=tuning, vision=vision)


def attention_table(device: str, *, quick: bool) -> Iterator[str]:
    """Yield a table of attention alone: milliseconds forward and backward of one layer, by kernel."""
    heads, width = (2, 16) if quick else (SIZE["heads"], SIZE["hidden"] // SIZE["heads"])
    prompt, length = (48, 8) if quick else (1100, 128)
    yield f"| one layer, prompt of {prompt} tokens | sdpa, mask | FlexAttention, block mask | separate rows, causal |"
    yield "| --- | ---: | ---: | ---: |"
    for responses in (2, 4, 8):
        tree = _qkv(1, heads, prompt + responses * length, width, device)
        rows = _qkv(responses, heads, prompt + length, width, device)
        segment, index = _layout(prompt, length, responses, device)
        allowed = (segment[None] == segment[:, None]) | (segment[None] == 0)
        allowed &= index[:, None] >= index[None]
        timings = [
            _milliseconds(lambda q, k, v, mask=allowed: scaled_dot_product_attention(q, k, v, attn_mask=mask), tree),
            _flex_milliseconds(segment, index, tree) if device == "cuda" else None,
            _milliseconds(lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True), rows),
        ]
        cells = ["not on this device" if value is None else f"{value:.2f}" for value in timings]
        yield "| " + " | ".join([f"{responses} x {length} tokens", *cells]) + " |"


def _layout(prompt: int, length: int, responses: int, device: str) -> tuple[Tensor, Tensor]:
    """Return segment (0 in the prompt, k in response k) and index in the stand-alone sequence of every column."""
    counts = torch.tensor([prompt] + [length] * responses, device=device)
    segment = torch.repeat_interleave(torch.arange(responses + 1, device=device), counts)
    inside = torch.cat([torch.arange(prompt)] + [prompt + torch.arange(length)] * responses)
    return segment, inside.to(device)


def _qkv(rows: int, heads: int, length: int, width: int, device: str) -> list[Tensor]:
    shape = (rows, heads, length, width)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]


def _flex_milliseconds(segment: Tensor, index: Tensor, tensors: list[Tensor]) -> float:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def allowed(_batch, _head, query, key):
        own_or_prompt = (segment[key] == segment[query]) | (segment[key] == 0)
        return own_or_prompt & (index[query] >= index[key])

    length = len(segment)
    mask = create_block_mask(allowed, None, None, length, length, device=segment.device)
    compiled = torch.compile(flex_attention, dynamic=False)
    return _milliseconds(lambda q, k, v: compiled(q, k, v, block_mask=mask), tensors)


def _milliseconds(attend: Callable[..., Tensor], tensors: list[Tensor], repeats: int = 10) -> float:
    """Return the median of forward and backward."""
    seconds = []
    for _ in range(repeats + 3):
        _wait(tensors[0])
        before = time.perf_counter()
        attend(*tensors).sum().backward()
        _wait(tensors[0])
        seconds.append(time.perf_counter() - before)
    return 1000 * statistics.median(seconds[3:])


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].replace("|", "/")[:120]


def _say(lines: list[str], text: str) -> None:
    print(text, flush=True)
    lines.append(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="tiny model, first case, two sides, one repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=8.0, help="start no further case after this time")
    parser.add_argument("--output", type=Path, help="where the tables go as well")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device; --device cpu --quick shows that the program runs")
    if arguments.quick:
        arguments.repeats = 1
    return arguments


if __name__ == "__main__":
    main()
