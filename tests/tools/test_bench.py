"""The benchmark compares like with like: both sides do the same step, or it says so and stops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="the benchmark needs the extra `bench`")

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import bench_sides  # noqa: E402
import bench_step  # noqa: E402
from bench_sides import Case, Setting, build_side, compare  # noqa: E402
from bench_workers import Step  # noqa: E402


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Setting:
    return Setting(*bench_sides.save_models(tmp_path_factory.mktemp("models"), scale="tiny"))


def small(**changes) -> Case:
    shape = {"prompts": 1, "responses": 4, "image_tokens": 16, "response_tokens": 9}
    return Case(name="small", **(shape | changes))


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("vision", ["trained", "frozen"])
def test_all_sides_compute_the_peers_loss_and_gradients(setting, vision, tuning):
    case = small(vision=vision, tuning=tuning)
    peer = build_side("trl", setting, case)
    for name in ("separate rows", "tree", "tree, steady"):
        loss, gradient = compare(peer, build_side(name, setting, case))
        assert loss < 3e-6 and gradient < 3e-5, name


def test_two_prompts_of_two_responses_agree_too(setting):
    case = small(prompts=2, responses=2)
    loss, gradient = compare(build_side("trl", setting, case), build_side("tree", setting, case))
    assert loss < 3e-6 and gradient < 3e-5


def test_rows_have_the_lengths_of_the_case(setting):
    case = small(responses=2, image_tokens=64, response_tokens=40)
    batch = build_side("tree", setting, case)._loaded.batch
    assert batch.response_lengths.tolist() == [[40, 40]]
    assert int(batch.media["image_grid_thw"].prod()) // 4 == 64


def test_a_side_that_computes_something_else_stops_the_benchmark(setting):
    class Stubborn:
        def build(self, case):
            self.case = case

        def distance_to(self, other):
            return 0.0, 1e-3

        def close(self):
            pass

    bench = bench_step.Bench(setting, ["trl"], threads=1)
    bench._weighed = bench._timed = {"trl": Stubborn()}
    with pytest.raises(SystemExit, match="do not compute the same: losses differ by 0.0e.00, gradients by 1.0e-03"):
        bench.require_agreement(small())


def test_ratios_are_medians_over_rounds_and_the_floor_is_arithmetic_over_rate():
    def measured(*seconds: float, memory: float):
        return bench_step.Measured(memory, tuple(Step(wall_s=s, cpu_s=2 * s, loss=0.0) for s in seconds))

    peer, tree = measured(4.0, 9.0, 4.0, memory=300.0), measured(2.0, 1.0, 1.0, memory=100.0)
    line = bench_step.table_rows(small(), {"trl": peer, "tree": tree}, floor_s=0.5).splitlines()[1]
    assert line == "|  |  |  | tree | 2.00 | 4.00 | 4.00 | 100 | 3.0 | 2.00 |"


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu_and_writes_its_tables(tmp_path):
    command = [sys.executable, TOOLS / "bench_gpu.py", "--device", "cpu", "--quick", "--output", tmp_path / "gpu.md"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=540
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    assert "float32, sdpa" in lines[0]
    assert sum("| tree |" in line for line in lines) == 1
    assert lines[-1].startswith("| 8 x 8 tokens | ")


@pytest.mark.gpu
def test_half_precision_products_accumulate_in_float32_on_the_gpu():
    from mmalign.engine.logps import response_logps

    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(64, 256, device="cuda", generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(4096, 256, device="cuda", generator=generator).bfloat16().requires_grad_()
    targets = torch.randint(0, 4096, (64,), device="cuda", generator=generator)
    value = response_logps(hidden, weight, None, targets)
    exact = (hidden.double() @ weight.double().T).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-4)
    value.sum().backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
