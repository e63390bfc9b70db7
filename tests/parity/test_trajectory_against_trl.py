"""A whole optimisation against TRL's DPOTrainer: same model, rows, AdamW and schedule give the same curve."""

import json

import pytest
import torch
from PIL import Image
from training_runs import metrics, recipe, run, write_rows
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

trl = pytest.importorskip("trl", reason="parity needs trl (pip install 'mmalign[bench]')")

STEPS, ROWS_PER_STEP = 4, 2
RATE = 1e-4
NAMES = ["loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"]
NAMES += ["logps/chosen", "logps/rejected", "learning_rate"]


def their_rows(path, with_images):
    """Return the rows of the file as TRL takes them; the pictures are those that the file names."""
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["images"] = [Image.open(path.parent / name).convert("RGB") for name in row["images"]]
        row["prompt"] = [
            {"role": "user", "content": "".join(p["text"] for p in row["prompt"][0]["content"] if "text" in p)}
        ]
        if not with_images:
            del row["images"]
    message = List({"role": Value("string"), "content": Value("string")})
    features = {"prompt": message, "chosen": message, "rejected": message}
    if with_images:
        features["images"] = List(ImageFeature())
    return Dataset.from_list(rows, features=Features(features))


def their_curve(model, path, output_dir, with_images):
    """Train with TRL; return its log lines and the trained model."""
    loader = AutoModelForImageTextToText if with_images else AutoModelForCausalLM
    processor = (AutoProcessor if with_images else AutoTokenizer).from_pretrained(model)
    config = trl.DPOConfig(
        output_dir=str(output_dir),
        per_device_train_batch_size=ROWS_PER_STEP,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="linear",
        beta=0.1,
        max_length=None,
        logging_steps=1,
        train_sampling_strategy="sequential",
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=7,
    )
    trainer = trl.DPOTrainer(
        model=loader.from_pretrained(model, dtype=torch.float32),
        ref_model=loader.from_pretrained(model, dtype=torch.float32),
        args=config,
        train_dataset=their_rows(path, with_images),
        processing_class=processor,
    )
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line], trainer.model


@pytest.mark.parametrize("family", ["qwen2", "qwen2_5_vl"])
def test_a_trajectory_equals_trls(tmp_path, tiny_model, family):
    with_images = family.endswith("vl")
    rows = STEPS * ROWS_PER_STEP
    path = write_rows(tmp_path / "rows", rows, text_only=() if with_images else range(rows))
    theirs, trained = their_curve(tiny_model(family), path, tmp_path / "trl", with_images)
    changes = {
        "objective": [{"name": "dpo", "beta": 0.1}],
        "train__per_device_train_batch_size": ROWS_PER_STEP,
        "train__gradient_accumulation_steps": 1,
        "train__max_steps": STEPS,
        "train__learning_rate": RATE,
        "train__shuffle": False,
    }
    result = run(recipe(tiny_model(family), path, tmp_path / "ours", **changes))
    ours = metrics(tmp_path / "ours")
    for left, right in zip(ours, theirs, strict=True):
        for name in NAMES:
            assert left[name] == pytest.approx(float(right[name]), rel=2e-5, abs=2e-5), (left["step"], name)
    assert_same_model(result.final_dir, trained)


def assert_same_model(directory, trained):
    """Check that weights moved together: differences stay far below the distance travelled."""
    final = type(trained).from_pretrained(directory, dtype=torch.float32)
    expected = dict(trained.named_parameters())
    for name, weight in final.named_parameters():
        difference = (weight - expected[name].cpu()).abs()
        assert difference.max() <= 2 * RATE * STEPS
        assert difference.mean() <= 0.02 * RATE, name
