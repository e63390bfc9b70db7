"""`mmalign data show` and `mmalign data convert`, as a person at a terminal uses them."""

import dataclasses
import io
import json
import shutil

import pytest
from formats.rows import EVERYTHING, pair, png
from rich.console import Console
from typer.testing import CliRunner

from mmalign import cli
from mmalign.errors import ConfigError, DataError
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Response, Span
from mmalign.formats.store import read_jsonl, read_parquet, write_jsonl, write_parquet
from mmalign.modalities.sampling import Sampling
from mmalign.recipes.data_convert import convert, report
from mmalign.recipes.data_show import show
from mmalign.recipes.media_panels import MOST_MEDIA
from mmalign.sources.detect import SOURCES, read
from mmalign.sources.quarantine import recorded
from mmalign.sources.write import TARGETS

SHAREGPT = next(source for source in SOURCES if source.name == "sharegpt").examples["preference"]


@pytest.fixture
def folder(tmp_path):
    """A picture, and a file of two pairs: one about it, and one about a picture that is not there."""
    (tmp_path / "kitchen.jpg").write_bytes(png(size=(112, 56)))
    rows = [SHAREGPT | {"source_page": 12}, SHAREGPT | {"images": ["gone.jpg"]}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return tmp_path


def shown(path, **choices) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(path, console=console, **choices)
    return console.file.getvalue()


# ---- show ------------------------------------------------------------------------------------------


def test_show_says_what_the_row_is_and_why(folder):
    text = shown(folder / "rows.json")
    for said in (
        "rows.json, row 1: a pair",
        "sharegpt  LLaMA-Factory sharegpt: conversations or messages",
        "because of  conversations, chosen, rejected, images",
        "not read    source_page",
        "[image 1: kitchen.jpg] What is on the stove?",
        "answer 1, rank 1",
        "A red kettle and two pans.",
        "112 x 56",
        "add --model DIR to see the tokens",
    ):
        assert said in text


@pytest.mark.parametrize(("label", "said"), [(True, "an answer judged good"), (False, "an answer judged bad")])
def test_show_says_how_an_only_answer_was_judged(tmp_path, label, said):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "Is it?", "completion": "It is.", "label": label}))
    text = shown(tmp_path / "rows.jsonl")
    assert f"rows.jsonl, row 1: {said}" in text
    assert "because of  prompt, completion, label" in text


def test_show_names_a_picture_that_is_not_there(folder):
    assert "image is missing" in shown(folder / "rows.json", row=2)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_show_prints_the_tokens_a_model_gets_and_which_are_scored(folder, tiny_model, family):
    text = shown(folder / "rows.json", model=tiny_model(family))
    assert "What is on the stove?" in text
    assert f"as {family} sees it" in text
    assert "of them media" in text and "all scored" in text and "instead of" in text
    assert "pixel_values" in text


def test_show_refuses_in_words_what_only_the_model_finds(folder, tiny_model):
    text = shown(folder / "rows.json", row=2, model=tiny_model("llava"))
    assert "this row is refused" in text and "image is missing" in text
    assert "this row is refused" in shown(folder / "rows.json", model=tiny_model("llava"), max_length=5)


def test_show_prints_everything_that_a_row_says(tmp_path):
    spans = (Span(start=2, end=5, weight=0.0),)
    answers = (
        Response.of("good", score=2.0, scores={"true": 4.5}, model="m-7b"),
        Response.of("also", score=1.0, critique="dull"),
        Response.of("a bad one", score=1.0, spans=spans, annotator="anna"),
    )
    write_jsonl(tmp_path / "x.jsonl", [pair(0, responses=answers, ties=((1, 2),), margin=1.5, tags={"k": "v"})])
    text = shown(tmp_path / "x.jsonl")
    for said in (
        "a list of 3 answers",
        "answer 3, rank 2",
        "score 2.0, scores by name: true 4.5, by m-7b",
        "2..5 weighs 0",
        "judged by anna",
    ):
        assert said in text
    assert "dull" in text and "margin      1.5" in text and "tags        {'k': 'v'}" in text


def test_show_explains_a_refused_row_and_its_columns(tmp_path):
    (tmp_path / "x.jsonl").write_text(
        '{"prompt": "q", "chosen": "a", "rejected": "a", "note": "[bold]"}\n{"prompt": \n'
    )
    text = shown(tmp_path / "x.jsonl")
    assert "this row is refused" in text and "chosen equals rejected" in text and "'[bold]'" in text
    assert "line is not JSON" in shown(tmp_path / "x.jsonl", row=2)


def test_show_sends_nothing_to_the_terminal_that_would_steer_it(tmp_path):
    evil = "a\x1b[2Jb\x07 \u202ec [red]d[/red]"
    row = {"id": evil, "prompt": evil, "chosen": evil, "rejected": "x", "margin": 1, evil: evil}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    text = shown(tmp_path / "x.jsonl")
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert text.count(r"a\x1b[2Jb\x07 \u202ec [red]d[/red]") == 4


def test_show_cuts_what_is_long(tmp_path):
    row = {"prompt": "q" * 10_000, "chosen": "a" * 5_000, "rejected": "x"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    text = shown(tmp_path / "x.jsonl")
    assert "(8,500 characters more)" in text and "(3,500 characters more)" in text
    turns = [{"role": ("user", "assistant")[k % 2], "content": str(k)} for k in range(10_001)]
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    (tmp_path / "y.jsonl").write_text(json.dumps({"prompt": turns, **answers}))
    text = shown(tmp_path / "y.jsonl")
    assert "9,981 turns between" in text and len(text) < 20_000


def test_show_finds_rows_by_line_in_a_file_and_by_place_in_a_folder(tmp_path):
    (tmp_path / "set").mkdir()
    for name in "ab":
        lines = [json.dumps({"prompt": f"{name}{k}", "chosen": "x", "rejected": "y"}) for k in range(2)]
        (tmp_path / "set" / f"{name}.jsonl").write_text("\n\n".join(lines))
    assert "a1" in shown(tmp_path / "set" / "a.jsonl", row=3)
    assert "b0" in shown(tmp_path / "set", row=3)
    with pytest.raises(DataError, match=r"a.jsonl has no row 2; that line is empty"):
        shown(tmp_path / "set" / "a.jsonl", row=2)
    with pytest.raises(DataError, match="a.jsonl has no row 9; its last is 3"):
        shown(tmp_path / "set" / "a.jsonl", row=9)


def test_show_takes_real_files(shared_data, tmp_path, tiny_model):
    (tmp_path / "mllm_demo_data").mkdir()
    for k in (1, 2, 3):
        shutil.copy(shared_data / "image" / f"mllm_demo_{k}.jpg", tmp_path / "mllm_demo_data" / f"{k}.jpg")
    rows = shared_data / "preferences" / "llamafactory_mllm_demo.json"
    text = shown(rows, row=4, root=tmp_path, model=tiny_model("qwen2_5_vl"), max_pixels=10_000)
    assert "\u4ed6\u4eec\u5728\u505a\u4ec0\u4e48" in text and "image 2" in text and "image_grid_thw" in text
    assert "video is missing" in shown(shared_data / "preferences" / "vistadpo_object_60.jsonl")


# ---- show, videos and media that stand alone -------------------------------------------------------


def frames(folder, count, size=(32, 16)):
    """Pictures of a folder that is a clip of one frame a second."""
    folder.mkdir()
    for k in range(count):
        (folder / f"{k:04d}.png").write_bytes(png((0, 20 * k, 0), size))


def test_show_says_which_frames_of_a_video_are_taken(tmp_path):
    frames(tmp_path / "clip", 8)
    write_jsonl(tmp_path / "rows.jsonl", [pair(0, MediaRef(kind="video", uri="clip"))])
    text = shown(tmp_path / "rows.jsonl", sampling=Sampling(policy="uniform", frames=2))
    assert "[video 1: clip] What is number 0?" in text
    assert "frames 2, 32 x 16, source fps 1, source frames 8, duration 8 s" in text
    assert "taken are 2 (2.00 s), 6 (6.00 s)" in text  # middles of two halves of 8 s


def test_show_names_the_media_that_the_rejected_side_saw(tmp_path):
    frames(tmp_path / "clip", 2)
    other = MediaRef(kind="video", frames=("clip/0001.png", "gone.png"))
    answers = (Response.of("a"), Response.of("b", media=(other,)))
    write_jsonl(tmp_path / "rows.jsonl", [pair(0, MediaRef(kind="video", uri="clip"), responses=answers)])
    console = Console(file=io.StringIO(), width=150)
    assert show(tmp_path / "rows.jsonl", console=console) is False
    text = console.file.getvalue()
    assert "video 1 of answer 2" in text and "<2 frames, the first clip/0001.png>" in text
    assert "is missing" in text and "1 cannot be read: a row with such a medium goes to quarantine for it" in text


def test_show_explains_a_lone_picture_and_a_folder_of_media(folder):
    frames(folder / "set", 3, size=(9, 7))
    (folder / "set" / "broken.mp4").write_bytes(b"not a video")
    text = shown(folder / "kitchen.jpg")
    assert "kitchen.jpg: one image, no row" in text and "112 x 56" in text
    console = Console(file=io.StringIO(), width=150)
    assert show(folder / "set", console=console) is False
    text = console.file.getvalue()
    assert "set: 4 media, no rows" in text and text.count("9 x 7") == 3
    assert "broken.mp4" in text and "1 cannot be read" in text


def test_show_of_a_folder_of_very_many_media_shows_the_first(tmp_path):
    for k in range(MOST_MEDIA + 5):
        (tmp_path / f"{k:03d}.png").write_bytes(b"x")
    text = shown(tmp_path)
    assert "105 media" in text and "these are the first 100" in text and "099.png" in text and "100.png" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--row", "3", "--format", "trl"],
            "and no rows; --row, --format ask for rows: leave them out, or",
        ),
        (["--max-length", "1"], "and no rows; --max-length asks for rows: leave it out"),
        (["--fps", "9"], "and no videos; --fps asks for videos: leave it out"),
        (["--frames", "9", "--sampling", "uniform"], "and no videos; --sampling, --frames ask for videos: leave them"),
        (["--frames", "3"], "and no videos; --frames asks for videos: leave it out"),
    ],
)
def test_show_refuses_options_that_a_picture_would_ignore(folder, options, message):
    outcome = CliRunner().invoke(cli.app, ["data", "show", str(folder / "kitchen.jpg"), *options])
    assert isinstance(outcome.exception, DataError)
    assert f"kitchen.jpg holds media {message}" in str(outcome.exception)


def test_show_refuses_a_rate_that_the_sampling_would_ignore_as_a_recipe_does(folder):
    options = ["data", "show", str(folder / "rows.json"), "--sampling", "uniform"]
    outcome = CliRunner().invoke(cli.app, [*options, "--fps", "3"])
    assert isinstance(outcome.exception, ConfigError)
    assert str(outcome.exception) == "fps 3 is not read by sampling 'uniform'; leave it out, or use sampling fps"
    assert CliRunner().invoke(cli.app, options).exit_code == 0


def test_show_takes_the_options_of_videos_where_one_of_the_media_is_a_video(folder):
    (folder / "broken.mp4").write_bytes(b"not a video")
    (folder / "rows.json").unlink()
    assert "2 media, no rows" in shown(folder, sampling=Sampling(policy="uniform", frames=2))


def test_show_bounds_tokens_only_where_a_model_makes_them(folder):
    with pytest.raises(DataError, match="--max-length bounds tokens, and only a model makes tokens: add --model DIR"):
        shown(folder / "rows.json", max_length=5)


def test_show_of_a_file_keyed_by_ids_shows_a_few_of_them(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({str(k): {"answer": "a"} for k in range(500)}))
    text = shown(tmp_path / "x.json")
    assert "these are 500 entries under one object, no row" in text and "... and 480 more" in text
    (tmp_path / "y.json").write_text('{"pages": []}')
    assert "a row of preferences has a prompt and answers" in shown(tmp_path / "y.json")


# Every real file, and the status with which it is explained: 0 is fine, 1 is refused in words, 2 cannot be read at all.
REAL_FILES = {
    "preferences/llamafactory_dpo_60.json": 0,
    "preferences/llamafactory_mllm_demo.json": 1,  # its pictures have other names here
    "preferences/mdpo_sample.json": 1,  # its pictures are not here
    "preferences/vistadpo_object_60.jsonl": 1,  # its videos are not here
    "image/extreme_ironing.jpg": 0,
    "image": 0,
    "video/cooking.avi": 0,
    "video/baby_reading.mp4": 0,
    "video/flipping_a_pancake.mkv": 0,
    "video/corrupted.mp4": 1,
    "video": 1,
    "benchmarks/coco_pope_random.json": 1,
    "benchmarks/nextqa/predictions_hga.json": 1,
    "benchmarks/nextqa/val.csv": 2,
    "benchmarks/tempcompass/questions_yes_no.json": 1,
    "benchmarks/tempcompass/predictions_video-llava_multi-choice.json": 1,
    "scene/respace_example.json": 0,
    "README.md": 2,
}


@pytest.mark.parametrize("name", REAL_FILES)
def test_show_explains_every_real_file(shared_data, name):
    outcome = CliRunner().invoke(cli.app, ["data", "show", str(shared_data / name)])
    if REAL_FILES[name] == 2:
        assert isinstance(outcome.exception, DataError) and "has no known ending" in str(outcome.exception)
    else:
        assert outcome.exit_code == REAL_FILES[name], outcome.output
        assert ("refused" in outcome.output or "cannot be read" in outcome.output) == (outcome.exit_code == 1)


# ---- convert ---------------------------------------------------------------------------------------


def test_convert_writes_what_can_be_used_and_lists_the_rest(folder):
    lines = [json.dumps(SHAREGPT)] * 9 + [json.dumps(SHAREGPT | {"images": []})]
    (folder / "in.jsonl").write_text("\n".join(lines))
    done = convert(folder / "in.jsonl", folder / "out.jsonl", max_refused_share=0.1)
    assert (done.rows, done.formats, done.lost) == (9, {"sharegpt": 9}, {})
    assert [(refusal.row, refusal.field) for refusal in recorded(done.quarantine)] == [(10, "prompt")]
    assert [row.provenance["row"] for row in read_jsonl(folder / "out.jsonl")] == [str(k) for k in range(1, 10)]


def test_convert_leaves_nothing_when_too_much_is_refused(folder):
    (folder / "in.jsonl").write_text("\n".join([json.dumps(SHAREGPT), "broken"]))
    with pytest.raises(DataError, match=r"1 of 2 rows \(50.0%\) are refused: line is not JSON: 1.*--max-refused-share"):
        convert(folder / "in.jsonl", folder / "out.parquet")
    assert not (folder / "out.parquet").exists()


def test_convert_says_what_is_lost(tmp_path):
    write_parquet(tmp_path / "in.parquet", [pair(0, margin=2.0), pair(1)])
    console = Console(file=io.StringIO(), width=100)
    report(convert(tmp_path / "in.parquet", tmp_path / "out.json", to="sharegpt"), tmp_path / "out.json", console)
    text = console.file.getvalue()
    assert "2 rows written" in text and "from mmalign (2)" in text
    assert "cannot be said in this format and is lost" in text and "1     margin" in text


def test_convert_shows_brackets_in_names_as_brackets(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [pair(0, provenance={"source": "[/red]\x1b[2J"})])
    out, console = tmp_path / "a[bold].jsonl", Console(file=io.StringIO(), width=300)
    report(convert(tmp_path / "in.jsonl", out), out, console)
    text = console.file.getvalue()
    assert "a[bold].jsonl from [/red]" in text and "\x1b" not in text


def test_convert_counts_rows_that_the_other_format_would_turn_round(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [pair(0, ties=((0, 1),)), pair(1)])
    done = convert(tmp_path / "in.jsonl", tmp_path / "out.jsonl", to="swift", max_refused_share=0.5)
    assert (done.rows, done.refused) == (1, {"swift cannot say that answers are equally good": 1})


def test_convert_never_writes_over_a_file_unasked(folder):
    rows = folder / "rows.json"
    with pytest.raises(DataError, match="cannot be read and written at once"):
        convert(rows, rows, to="sharegpt", overwrite=True)
    (folder / "out.jsonl").write_text("mine")
    with pytest.raises(DataError, match=r"out.jsonl exists; give another place, or --overwrite"):
        convert(rows, folder / "out.jsonl")
    assert convert(rows, folder / "out.jsonl", overwrite=True).rows == 2


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_convert_of_a_row_with_everything_keeps_everything(tmp_path, ending):
    write_jsonl(tmp_path / "in.jsonl", [EVERYTHING])
    done = convert(tmp_path / "in.jsonl", tmp_path / f"out{ending}")
    assert (done.rows, done.lost, done.refused) == (1, {}, {})
    (back,) = (read_jsonl if ending == ".jsonl" else read_parquet)(tmp_path / f"out{ending}")
    assert dataclasses.replace(back, provenance={}) == dataclasses.replace(EVERYTHING, provenance={})


@pytest.mark.parametrize("to", TARGETS)
def test_convert_of_every_published_row_writes_it_or_says_why_not(tmp_path, to):
    examples = [row for source in SOURCES for row in source.examples.values()]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, examples)))
    done = convert(tmp_path / "in.jsonl", tmp_path / "out.jsonl", to=to, max_refused_share=1.0)
    assert done.rows + sum(done.refused.values()) == len(examples)
    assert set(done.formats) == {source.name for source in SOURCES}
    refused = {
        "mmalign": {},
        "trl": {
            "trl cannot say that answers are equally good": 1,  # MM-RLHF's tie
            "trl cannot say that this answer saw other media": 3,  # ours, and two of ms-swift
            "trl cannot say that a video is a list of frames": 1,
        },
        "sharegpt": {
            "sharegpt cannot say that answers are equally good": 1,
            "sharegpt cannot say that this answer saw other media": 3,
        },
        "swift": {
            "swift cannot say that answers are equally good": 1,
            "swift cannot say that a part of the video is meant": 1,
            "swift cannot say that a video is a list of frames": 1,
        },
    }
    assert done.refused == refused[to]
    refused_again = []
    back = list(read(tmp_path / "out.jsonl", on_refused=refused_again.append))
    assert (len(back), refused_again) == (done.rows, [])


def test_bytes_in_parquet_become_files_for_llama_factory(tmp_path):
    write_parquet(tmp_path / "in.parquet", [pair(0, MediaRef(kind="image", content=png()))])
    convert(tmp_path / "in.parquet", tmp_path / "out.json", to="sharegpt")
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert (tmp_path / row["images"][0]).read_bytes() == png()


# ---- the command line ------------------------------------------------------------------------------


def test_the_commands_are_wired(folder):
    runner = CliRunner()
    outcome = runner.invoke(cli.app, ["data", "show", str(folder / "rows.json")])
    assert outcome.exit_code == 0 and "row 1: a pair" in outcome.output
    arguments = ["data", "convert", str(folder / "rows.json"), str(folder / "out.parquet"), "--to", "trl"]
    outcome = runner.invoke(cli.app, arguments)
    assert outcome.exit_code == 0 and "2 rows written" in outcome.output


def test_a_mistake_is_one_line_and_status_2(folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "convert", str(folder / "rows.json"), str(folder / "x.jsonl"), "--to", "lava"])
    assert stopped.value.code == 2
    assert "error: cannot write the format 'lava'; known are mmalign" in capsys.readouterr().err
