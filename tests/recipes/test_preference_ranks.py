"""Two ranks under DDP give the curve of one, also when one of them holds text only."""

import pytest
from training_runs import assert_close, final_weights, in_a_process, metrics, recipe, run, write_rows

CUTS = {
    1: {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 4},
    2: {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 2},
}
LORA = {"model__lora": {"rank": 4, "alpha": 8.0}, "model__freeze": ["vision"], "model__precompute_reference": True}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{}, LORA], ids=["everything trained", "adapters, precomputed reference"])
def test_two_ranks_give_the_curve_of_one(tmp_path, tiny_model, kind):
    """Of every four rows two are text, and the short last step of the epoch leaves one rank with a filler."""
    rows = write_rows(tmp_path / "rows", 9, text_only=(1, 3, 5, 7))
    held_out = write_rows(tmp_path / "held_out", 3, text_only=(0,))
    changes = {**kind, "train__shuffle": False, "train__max_steps": 4, "data__eval": str(held_out)}
    for ranks, cut in CUTS.items():
        values = recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / f"ranks{ranks}", **changes, **cut)
        if ranks == 1:
            run(values)
        else:
            ended = in_a_process(values, ranks=ranks)
            assert ended.returncode == 0, ended.stdout + ended.stderr
    one, two = metrics(tmp_path / "ranks1"), metrics(tmp_path / "ranks2")
    assert_close(two[:1], one[:1], 1e-5)
    assert_close(two, one, 5e-4)
    assert final_weights(tmp_path / "ranks1").keys() == final_weights(tmp_path / "ranks2").keys()
