"""`mmalign pairs temporal`: whole runs over folders of good and bad videos, killed at every stage and resumed."""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import videos
import yaml
from PIL import Image
from training_runs import environment

from mmalign.cli import main
from mmalign.errors import CheckpointError, ConfigError, DataError
from mmalign.formats.store import read_jsonl
from mmalign.miniature import clip as miniature_clip
from mmalign.pairs.select import Bounds, Selection
from mmalign.recipes import data_view, temporal
from mmalign.recipes.configuration import load_recipe, load_temporal
from mmalign.recipes.stage_records import LineWriter
from mmalign.sources.quarantine import recorded

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS / "generate"))

from chat_server import says, serving  # noqa: E402

STAGES = ("shots", "enough", "similarity", "clips", "frames", "captions", "tellings", "pairs")
LEVELS = (0, 21, 7, 14, 3, 27, 11, 18)


def film(path: Path, shots: int, frames: int = 10) -> Path:
    """Write a video of so many shots of one second, each of another grey; every frame says which shot it is."""
    every = videos.numbered(28)
    return videos.write(path, [every[LEVELS[shot]] for shot in range(shots) for _ in range(frames)])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return miniature_clip.save(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def written(tmp_path, tiny_model, encoder):
    """Write a recipe: `written("run", perturbations={"how": ["drop"]})`."""

    def write(name: str, **sections) -> Path:
        values = {
            "recipe": "temporal",
            "model": {"path": str(tiny_model("qwen2_5_vl"))},
            "data": {"videos": str(tmp_path / "videos"), "max_pixels": 3136, "max_refused_share": 1.0},
            "clips": {"model": str(encoder), "alike_above": 1.0},
            "captions": {"max_new_tokens": 6, "temperature": 1.0},
            "tellings": {"max_new_tokens": 8, "temperature": 1.0},
            "pairs": {"most_length_ratio": 10.0},
            "temporal": {"output_dir": str(tmp_path / name)},
        }
        for section, changes in sections.items():
            values[section] = None if changes is None else {**values.get(section, {}), **changes}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({section: value for section, value in values.items() if value is not None}))
        return path

    return write


def run(path: Path, *, resume: bool = False):
    return temporal.run(load_temporal(path), resume=resume)


def lines(place: Path, stage: str) -> list[dict]:
    return [json.loads(line) for line in (place / "stages" / stage / "rank-0.jsonl").read_text().splitlines()]


def texts(place: Path) -> list[tuple]:
    """Return what rows say, but for log-probs, whose last digits depend on the batch."""
    rows = read_jsonl(place / "rows.jsonl")
    return [(row.id, row.chosen.text, row.rejected.text, row.difficulty, row.provenance) for row in rows]


def run_until(path: Path, stage: str, resume: bool) -> None:
    """Run in a process that dies in the middle of the second line of a stage."""
    written = Counter()
    whole = LineWriter.write

    def write(self, record):
        name = self._path.parent.name
        written[name] += 1
        if (name, written[name]) == (stage, 2):
            self._file.write(b'{"id": "half')
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, record)

    LineWriter.write = write
    run(path, resume=resume)


def require_same_after_kills(tmp_path: Path, path: Path, straight: Path) -> None:
    """Run once straight, and once killed in the middle of every stage; both must say the same, and nothing twice."""
    run(straight)
    for number, stage in enumerate(STAGES):
        process = multiprocessing.get_context("fork").Process(target=run_until, args=(path, stage, number > 0))
        process.start()
        process.join(timeout=120)
        assert process.exitcode == -signal.SIGKILL, stage
        assert not (tmp_path / "run" / "rows.jsonl").exists()
        assert len((tmp_path / "run" / "stages" / stage / "rank-0.jsonl").read_bytes().splitlines()) == 2
    run(path, resume=True)
    for stage in STAGES:
        made, expected = lines(tmp_path / "run", stage), lines(tmp_path / "straight", stage)
        assert [line["id"] for line in made] == [line["id"] for line in expected], stage
    rows = texts(tmp_path / "run")
    assert len(rows) >= 3 and rows == texts(tmp_path / "straight")
    run(path, resume=True)
    assert texts(tmp_path / "run") == rows


def test_killed_at_every_stage_and_resumed_is_as_if_nothing_had_happened(tmp_path, written):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        film(tmp_path / "videos" / name, 4)
    require_same_after_kills(tmp_path, written("run"), written("straight"))


@pytest.mark.slow
def test_the_same_on_real_videos(tmp_path, written, shared_data):
    how = {"data": {"videos": str(shared_data / "video")}, "shots": {"split_longer_than_s": 2.5}}
    require_same_after_kills(tmp_path, written("run", **how), written("straight", **how))


def told_by_numbers(number: int, body: dict):
    """Caption each clip by the number of the request; tell a video by what the captions say."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    if "- Caption 1:" in text:
        said = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("- Caption")]
        return 200, {}, says(" ".join(said))
    last = f"scene{number}." if "clip 2" not in text else f'thoughts\nlink\n**Caption:** "scene{number}."'
    return 200, {}, says(last)


def server_of(url: str) -> dict:
    return {"url": url, "model": "big", "concurrency": 1, "attempts": 1}


def test_rows_say_the_order_that_was_told(tmp_path, written, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    film(tmp_path / "videos" / "deep" / "a.mp4", 8)
    with serving(told_by_numbers) as (url, record):
        done = run(written("run", model=None, server=server_of(url)))
    captions = [line["caption"] for line in lines(tmp_path / "run", "captions")]
    assert captions == [f"scene{number}." for number in range(8)]
    rows = list(read_jsonl(done.rows))
    # N = 8: r16 and r8 are both single clips, r4 blocks of two, r2 blocks of four, whose only shuffle is the reverse.
    names = [(row.tags["perturbation"], row.tags["factor"], row.tags["block"]) for row in rows]
    assert names == [
        *[(how, "16", "1") for how in ("drop", "reverse", "shuffle")],
        *[(how, "4", "2") for how in ("drop", "reverse", "shuffle")],
        *[(how, "2", "4") for how in ("drop", "reverse")],
    ]
    for row in rows:
        order = [int(place) for place in row.provenance["order"].split()]
        assert row.chosen.text == " ".join(captions)
        assert row.rejected.text == " ".join(captions[place] for place in order)
        assert [ref.uri for ref in row.media] == ["deep/a.mp4"] and row.media[0].frame_indices is None
        assert row.chosen.model == "big"
    assert rows[1].difficulty == 0 and rows[6].difficulty == 0.5
    assert rows[7].difficulty == pytest.approx(1 - 16 / 28), "two blocks of four: 16 of 28 pairs the wrong way round"
    assert rows[0].provenance["clips_s"].startswith("0.00-1.00 1.00-2.00")
    assert len(record.bodies) == 8 + 1 + 8


def test_stages_select_rows_by_factor_and_by_measured_difficulty(tmp_path, written, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "videos").mkdir()
    film(tmp_path / "videos" / "a.mp4", 4)
    with serving(told_by_numbers) as (url, _):
        rows = list(read_jsonl(run(written("run", model=None, server=server_of(url))).rows))
    for selection, names in (
        (Selection(tags={"factor": ("2",)}), ["drop-2", "reverse-2"]),
        (Selection(difficulty=Bounds(at_most=0.0)), ["reverse-16"]),
    ):
        read = [row for row in rows if selection.apply(row)[0] is not None]
        assert [row.id.partition("#captions-")[2] for row in read] == names


def test_another_detector_of_cuts_can_be_handed_in(tmp_path, written, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "videos").mkdir()
    film(tmp_path / "videos" / "a.mp4", 4, frames=20)
    with serving(told_by_numbers) as (url, _):
        config = load_temporal(written("run", model=None, server=server_of(url)))
        temporal.run(config, detector=lambda frames: np.arange(len(frames)) % 10 == 9)
    assert len(lines(tmp_path / "run", "shots")[0]["shots"]) == 8


def test_a_caption_is_asked_with_the_clip_before(tmp_path, written, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "videos").mkdir()
    film(tmp_path / "videos" / "a.mp4", 4)
    with serving(told_by_numbers) as (url, record):
        run(written("run", model=None, server=server_of(url), data={"max_pixels": None}))
    seen = [shots_in(body) for body in record.bodies[:4]]
    assert seen == [[0, 0], [0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]]


def shots_in(body: dict) -> list[int]:
    """Say which shot of a `film` each picture of a request shows."""
    found = []
    for part in body["messages"][-1]["content"]:
        if part["type"] == "image_url":
            picture = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            level = videos.number_of(np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")))
            found.append(min(range(len(LEVELS)), key=lambda shot: abs(LEVELS[shot] - level)))
    return found


def told_by_sight(number: int, body: dict):
    return 200, {}, says(" ".join(f"scene{shot}." for shot in shots_in(body)))


@pytest.mark.parametrize(("of", "items"), [("clips", 4), ("frames", 8)])
def test_clips_and_frames_change_place_before_the_eyes_of_the_model(tmp_path, written, monkeypatch, of, items):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "videos").mkdir()
    film(tmp_path / "videos" / "a.mp4", 4)
    how = ["reverse", "shuffle", "drop", "repeat", "freeze", "speed"]
    with serving(told_by_sight) as (url, _):
        perturbations = {"of": [of], "how": how, "factors": [2]}
        done = run(written("run", model=None, server=server_of(url), perturbations=perturbations))
    assert lines(tmp_path / "run", "frames")[0]["frames"] == [[3, 7], [13, 17], [23, 27], [33, 37]]
    rows = list(read_jsonl(done.rows))
    assert {"reverse", "repeat", "freeze"} <= {row.tags["perturbation"] for row in rows}
    for row in rows:
        order = [int(place) for place in row.provenance["order"].split()]
        assert max(order) < items
        shots = [place for place in order for _ in (0, 1)] if of == "clips" else [place // 2 for place in order]
        assert row.chosen.text == " ".join(f"scene{shot}." for shot in (0, 0, 1, 1, 2, 2, 3, 3))
        assert row.rejected.text == " ".join(f"scene{shot}." for shot in shots)
    assert not (tmp_path / "run" / "stages" / "captions" / "rank-0.jsonl").exists()


def test_bad_files_and_bad_answers_are_named_and_the_run_goes_on(tmp_path, written, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("good.mp4", "mute.mp4", "endless.mp4"):
        film(folder / name, 4)
    film(folder / "one_second.mp4", 1)
    videos.write_sound(folder / "sound.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("no video")
    (folder / ".hidden").write_text("not looked at")
    broken = (folder / "good.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(broken[: len(broken) // 2])
    asked = Counter()

    def moody(number: int, body: dict):
        status, headers, answer = told_by_numbers(number, body)
        text = answer["choices"][0]["message"]["content"]
        asked["captions" if "scene" in text and isinstance(body["messages"][-1]["content"], list) else "tellings"] += 1
        if number == 11:  # the last of the twelve captions: of mute.mp4
            return status, headers, says("")
        if number == 12:  # the first telling: of endless.mp4, the true one
            return status, headers, says("and then " * 200)
        return status, headers, answer

    with serving(moody) as (url, _):
        done = run(written("run", model=None, server=server_of(url)))
    named = {(one.file, one.reason) for one in recorded(done.quarantine)}
    assert {file for file, _ in named} == {
        "broken.mp4",
        "empty.mp4",
        "notes.txt",
        "sound.mp4",
        "mute.mp4#clip-3",
        "endless.mp4#captions",
    }
    assert {
        ("mute.mp4#clip-3", "answer is empty"),
        ("endless.mp4#captions", "answer repeats itself without end"),
    } <= named
    dropped = [json.loads(line) for line in done.left_out.read_text().splitlines()]
    assert {"stage": "enough", "id": "one_second.mp4", "rule": "fewer than 4 shots"} in dropped
    assert {row.provenance["file"] for row in read_jsonl(done.rows)} == {"good.mp4"}
    assert done.counts["tellings"]["videos without all captions"] == 1


def test_what_a_server_left_unanswered_is_asked_again(tmp_path, written, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        film(tmp_path / "videos" / name, 4)
    up = []

    def mood(number: int, body: dict):
        return told_by_numbers(number, body) if up or number != 2 else (503, {}, {})

    with serving(mood) as (url, record):
        path = written("run", model=None, server=server_of(url))
        first = run(path)
        assert {row.provenance["file"] for row in read_jsonl(first.rows)} == {"b.mp4"}
        up.append(True)
        asked = len(record.bodies)
        done = run(path, resume=True)
        assert len(record.bodies) - asked == 1 + 6, "one caption, and the six ways to tell its video"
    assert {row.provenance["file"] for row in read_jsonl(done.rows)} == {"a.mp4", "b.mp4"}
    assert recorded(done.quarantine) == []


def test_pairs_of_real_videos_can_be_looked_at(tmp_path, written, shared_data):
    folder = shared_data / "video"
    data, shots = {"videos": str(folder)}, {"split_longer_than_s": 2.5}
    done = run(written("run", data=data, shots=shots))
    assert [(one.file, one.reason) for one in recorded(done.quarantine)] == [
        ("corrupted.mp4", "video is truncated or broken")
    ]
    rows = list(read_jsonl(done.rows))
    assert {row.provenance["file"] for row in rows} == {"baby_reading.mp4", "cooking.avi", "flipping_a_pancake.mkv"}
    page = tmp_path / "rows.html"
    data_view.view(str(done.rows), page, root=folder)
    assert page.read_text().count("data:image/") >= 3


MISTAKES = [
    ({"server": {"url": "http://localhost/v1", "model": "m"}}, "'temporal' needs one of model and server and has both"),
    ({"perturbations": {"factors": [1]}}, "must be at least 2, got 1"),
    ({"perturbations": {"how": ["melt"]}}, "perturbations.how"),
    ({"shots": {"fewest": 40}}, "shots.most: 32 is less than shots.fewest 40"),
    ({"shots": {"split_longer_than_s": 20.0}}, "20 is more than shots.longest_s 16"),
    ({"data": {"min_pixels": 4000}}, "data.max_pixels: 3136 is less than data.min_pixels 4000"),
    ({"clips": {"speed": 1}}, "unknown key"),
]


@pytest.mark.parametrize(("sections", "message"), MISTAKES)
def test_mistakes_in_a_recipe_are_named_with_their_line(written, sections, message):
    with pytest.raises(ConfigError, match=r"run.yaml(:\d+)?: ") as caught:
        load_temporal(written("run", **sections))
    assert message in str(caught.value)


def test_folders_that_cannot_be_used_are_named(tmp_path, written):
    with pytest.raises(ConfigError, match="is no directory; name the one that holds the videos"):
        run(written("run"))
    (tmp_path / "videos").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        run(written("run"))
    film(tmp_path / "videos" / "a.mp4", 1)
    with pytest.raises(ConfigError, match="lies in data.videos"):
        run(written("run", temporal={"output_dir": str(tmp_path / "videos" / "run")}))
    with pytest.raises(DataError, match="no pair is left"):
        run(written("run"))
    with pytest.raises(CheckpointError, match="begun with other perturbations; its pairs would not belong together"):
        run(written("run", perturbations={"factors": [2]}), resume=True)
    film(tmp_path / "videos" / "b.mp4", 1)
    with pytest.raises(CheckpointError, match="begun with other videos"):
        run(written("run"), resume=True)


def test_a_recipe_is_run_by_its_own_verb(written):
    with pytest.raises(ConfigError, match="'temporal' is not run by this verb; run mmalign pairs temporal"):
        load_recipe(written("run"))


def test_the_command_runs_the_miniature_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(TESTS.parent)
    (tmp_path / "videos").mkdir()
    film(tmp_path / "videos" / "a.mp4", 4)
    changes = [f"data.videos={tmp_path / 'videos'}", f"temporal.output_dir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as ended:
        main(["pairs", "temporal", "configs/miniature/temporal_qwen2_5_vl.yaml", *changes])
    assert ended.value.code == 0
    assert "look at them: mmalign data view" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_give_the_pairs_of_one(tmp_path, written):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        film(tmp_path / "videos" / name, 4)
    run(written("one"))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    line = [sys.executable, *launch, "-m", "mmalign", "pairs", "temporal", str(written("two"))]
    ended = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert texts(tmp_path / "two") == texts(tmp_path / "one")
    assert (tmp_path / "two" / "stages" / "captions" / "rank-1.jsonl").read_bytes().count(b"\n") == 6
