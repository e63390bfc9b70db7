"""TRL trains on our files as they are: `datasets.load_dataset`, then its own collator, with nothing between."""

import os
from pathlib import Path

import pytest
from formats.rows import pair, png
from PIL import Image

from mmalign.formats import store
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Response

RED, BLUE = png((220, 20, 20), (56, 28)), png((20, 20, 220), (28, 84))


def rows_with_pictures(folder: Path):
    """One picture from bytes, two pictures in two turns from paths, and a row of text only."""
    (folder / "blue.png").write_bytes(BLUE)
    by_path = MediaRef(kind="image", uri=str(folder / "blue.png"))
    by_bytes = MediaRef(kind="image", content=RED)
    two = pair(1, by_path, by_bytes, responses=(Response.of("Blue, then red. \u00e9"), Response.of("Red.")), margin=1.0)
    turns = (
        Message.of("user", 0, "Which colour?"),
        Message.of("assistant", "Blue."),
        Message.of("user", "And now?", 1),
    )
    object.__setattr__(two, "prompt", turns)
    return [pair(0, by_bytes), two, pair(2)]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a file of rows as anybody would, with the cache in the test's folder."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()

    def load(path: Path):
        builder = "parquet" if path.suffix == ".parquet" else "json"
        data = datasets.load_dataset(builder, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
        if builder == "json" and "images" in data.column_names:
            data = data.cast_column("images", datasets.List(datasets.Image()))
        return data

    return load


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_datasets_decodes_our_pictures(tmp_path, load, ending):
    path = tmp_path / f"rows{ending}"
    (store.write_jsonl if ending == ".jsonl" else store.write_parquet)(path, rows_with_pictures(tmp_path))
    sizes = [[image.size for image in row["images"]] for row in load(path)]
    assert sizes == [[(56, 28)], [(28, 84), (56, 28)], []]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava", "idefics3", "gemma3"])
def test_trls_vision_collator_takes_our_rows(tmp_path, load, tiny_model, ending, family):
    trainer = pytest.importorskip("trl.trainer.dpo_trainer", reason="trl is not installed (extra `bench`)")
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(tiny_model(family))
    rows = rows_with_pictures(tmp_path)[:2]
    path = tmp_path / f"rows{ending}"
    (store.write_jsonl if ending == ".jsonl" else store.write_parquet)(path, rows)
    batch = trainer.DataCollatorForVisionPreference(processor)(list(load(path)))

    assert batch["input_ids"].shape[0] == 4
    assert batch["pixel_values"].numel() > 0
    said = [
        processor.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True).strip()
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert said == ["A kettle.", "Blue, then red. \u00e9", "A fridge.", "Red."]
    prompt_ids = batch["input_ids"][0][~batch["completion_mask"][0].bool()]
    assert "What is number 0?" in processor.tokenizer.decode(prompt_ids)


def test_rows_of_text_load_without_a_column_of_images(tmp_path, load):
    """TRL takes the column for a sign of a vision data set and then wants a processor."""
    store.write_jsonl(tmp_path / "rows.jsonl", [pair(0), pair(1)])
    store.write_parquet(tmp_path / "rows.parquet", [pair(0), pair(1)])
    for name in ("rows.jsonl", "rows.parquet"):
        assert load(tmp_path / name).column_names == ["id", "prompt", "chosen", "rejected"]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_datasets_loads_our_videos_as_bytes_and_paths(tmp_path, load, ending):
    clip = b"\x00\x00\x00\x18ftypmp42 and so on"
    refs = (
        MediaRef(kind="video", uri="clip.mp4"),
        MediaRef(kind="video", content=clip),
        MediaRef(kind="video", frames=("clip/1.jpg", "clip/2.jpg")),
    )
    path = tmp_path / f"rows{ending}"
    (store.write_jsonl if ending == ".jsonl" else store.write_parquet)(path, [pair(0, *refs), pair(1)])
    told, text = load(path)
    if ending == ".parquet":
        assert told["videos"] == [
            {"bytes": None, "path": "clip.mp4"}, {"bytes": clip, "path": None}, {"bytes": None, "path": None}
        ]  # fmt: skip
    else:
        assert told["videos"] == ["clip.mp4", refs[1].data_uri("video/mp4"), None]
    assert told["media_facts"][2]["frames"] == ["clip/1.jpg", "clip/2.jpg"]
    assert text["videos"] is None


def test_relative_paths_load_from_the_data_root(tmp_path, load, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("pictures")
    Image.new("RGB", (7, 5)).save("pictures/a.png")
    store.write_parquet("rows.parquet", [pair(0, MediaRef(kind="image", uri="pictures/a.png"))])
    assert load(tmp_path / "rows.parquet")[0]["images"][0].size == (7, 5)
