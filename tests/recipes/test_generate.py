"""`mmalign generate`: rows with answers, from any format; killed, resumed and shared out without loss or repetition."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from training_runs import environment, write_rows

from mmalign.cli import main
from mmalign.errors import CheckpointError, ConfigError, DataError
from mmalign.formats.store import read_jsonl
from mmalign.recipes import data_view, generate
from mmalign.recipes.configuration import load_generation, load_recipe
from mmalign.sources.quarantine import recorded

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS / "generate"))

from chat_server import by_seed, serving  # noqa: E402


@pytest.fixture
def written(tmp_path, tiny_model):
    """Write a recipe: `written("run", rows, generate={"n": 3})`."""

    def write(name: str, rows: Path, **sections) -> Path:
        values = {
            "recipe": "generate",
            "model": {"path": str(tiny_model("qwen2_5_vl")), "answers_at_once": 4},
            "data": {"prompts": str(rows), "max_refused_share": 1.0},
            "sampling": {"max_new_tokens": 5},
            "generate": {"output_dir": str(tmp_path / name), "n": 2},
        }
        for section, changes in sections.items():
            values[section] = None if changes is None else {**values.get(section, {}), **changes}
        values = {section: value for section, value in values.items() if value is not None}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def run(path: Path, *, resume: bool = False):
    return generate.run(load_generation(path), resume=resume)


def answers(place: Path) -> list[tuple[str, tuple[str, ...]]]:
    return [(row.id, tuple(one.text for one in row.responses)) for row in read_jsonl(place / "rows.jsonl")]


def test_rows_get_answers_that_nobody_has_compared_and_can_be_looked_at(tmp_path, written):
    rows = write_rows(tmp_path / "data", 5, text_only=(1,))
    done = run(written("run", rows))
    made = list(read_jsonl(done.rows))
    assert [row.provenance["row"] for row in made] == ["1", "2", "3", "4", "5"]
    assert all(row.levels() == (0, 0) for row in made if len(row.responses) == 2)
    assert not any("It is" in one.text for row in made for one in row.responses)
    samples = [json.loads(line) for line in done.samples.read_text().splitlines()]
    assert [len(one["samples"]) for one in samples] == [2] * 5
    first = samples[0]["samples"][0]
    assert len(first["ids"]) == len(first["logps"]) <= 5
    assert made[0].responses[0].scores["logp"] == pytest.approx(sum(first["logps"]))
    page = tmp_path / "rows.html"
    data_view.view(str(done.rows), page, root=tmp_path / "data")
    assert page.stat().st_size > 10_000
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["rows"] == 5 and manifest["versions"]["torch"]


def test_rows_without_answers_are_prompts_too(tmp_path, written):
    (tmp_path / "data").mkdir()
    rows = tmp_path / "data" / "rows.jsonl"
    typed = [{"role": "user", "content": [{"type": "text", "text": "why?"}]}]
    lines = [{"prompt": "a text"}, {"prompt": [{"role": "user", "content": "turns"}], "images": []}]
    lines += [{"id": "mine", "prompt": typed, "tags": {"kind": "typed"}}, {"question": "no prompt"}]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run(written("run", rows, generate={"n": 1}))
    made = list(read_jsonl(done.rows))
    assert [row.prompt[0].text for row in made] == ["a text", "turns", "why?"]
    assert made[2].id == "mine" and made[2].tags == {"kind": "typed"}
    assert [(one.row, one.reason) for one in recorded(done.quarantine)] == [(4, "format is unknown")]


def test_what_cannot_be_answered_is_named_and_the_run_goes_on(tmp_path, written):
    rows = write_rows(tmp_path / "data", 4)
    (tmp_path / "data" / "1.png").write_bytes(b"no picture")
    with rows.open("a") as file:
        file.write(json.dumps({"prompt": "word " * 40_000}) + "\nno JSON\n")
    done = run(written("run", rows))
    named = {(one.row, one.reason) for one in recorded(done.quarantine)}
    assert named >= {
        (2, "image is not in a known format"),
        (5, "prompt leaves no room for an answer"),
        (6, "line is not JSON"),
    }
    assert [row.provenance["row"] for row in read_jsonl(done.rows)] == ["1", "3", "4"]


def test_too_many_refused_rows_end_the_run_and_nothing_is_lost(tmp_path, written, capsys):
    rows = write_rows(tmp_path / "data", 4)
    (tmp_path / "data" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"are refused.*raise data.max_refused_share"):
        run(written("run", rows, data={"max_refused_share": 0.0}))
    done = run(written("run", rows), resume=True)
    assert len(answers(done.rows.parent)) == 3


def test_killed_and_resumed_is_as_if_nothing_had_happened(tmp_path, written):
    rows = write_rows(tmp_path / "data", 24, text_only=range(0, 24, 2))
    run(written("straight", rows))
    path = written("run", rows)
    process = multiprocessing.get_context("fork").Process(target=run, args=(path,))
    process.start()
    part = tmp_path / "run" / "parts" / "rank-0.jsonl"
    for _ in range(12_000):
        if part.exists() and part.read_bytes().count(b"\n") >= 4:
            break
        time.sleep(0.005)
    process.kill()
    process.join(timeout=60)
    done = part.read_bytes().count(b"\n")
    assert not (tmp_path / "run" / "rows.jsonl").exists()
    with part.open("ab") as file:
        file.write(b'{"number": 99, "id"')
    run(path, resume=True)
    lines = [json.loads(line)["number"] for line in part.read_text().splitlines()]
    assert done < 24 and sorted(lines) == list(range(24))
    assert answers(tmp_path / "run") == answers(tmp_path / "straight")


@pytest.mark.slow
def test_two_processes_give_the_answers_of_one_and_a_run_goes_on_with_another_number(tmp_path, written):
    rows = write_rows(tmp_path / "data", 7, text_only=(1, 3))
    run(written("one", rows))
    path = written("two", rows)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    line = [sys.executable, *launch, "-m", "mmalign", "generate", str(path)]
    ended = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert answers(tmp_path / "two") == answers(tmp_path / "one")
    second = tmp_path / "two" / "parts" / "rank-1.jsonl"
    kept = second.read_bytes().splitlines(keepends=True)
    assert len(kept) == 3
    second.write_bytes(kept[0])
    run(path, resume=True)
    assert answers(tmp_path / "two") == answers(tmp_path / "one")


def test_a_run_is_only_continued_as_it_was_begun(tmp_path, written):
    rows = write_rows(tmp_path / "data", 2)
    with pytest.raises(CheckpointError, match="no run to resume"):
        run(written("run", rows), resume=True)
    run(written("run", rows))
    with pytest.raises(ConfigError, match="is not empty.*--resume"):
        run(written("run", rows))
    with pytest.raises(CheckpointError, match="begun with other generate; its answers would not belong together"):
        run(written("run", rows, generate={"n": 3}), resume=True)
    rows.write_text(rows.read_text() + json.dumps({"prompt": "more"}) + "\n")
    with pytest.raises(CheckpointError, match="begun with other rows"):
        run(written("run", rows), resume=True)


def test_a_server_is_asked_and_a_killed_run_pays_for_nothing_twice(tmp_path, written, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = write_rows(tmp_path / "data", 10, text_only=range(1, 10, 2))
    with serving(by_seed, takes_s=0.02) as (url, record):
        server = {"url": url, "model": "big", "concurrency": 2}
        path = written("run", rows, model=None, server=server)
        process = multiprocessing.get_context("fork").Process(target=run, args=(path,))
        process.start()
        for _ in range(12_000):
            if len(record.bodies) >= 6:
                break
            time.sleep(0.005)
        process.kill()
        process.join(timeout=60)
        answered = {json.loads(line).get("received") for line in whole(tmp_path / "run" / "requests.jsonl")} - {None}
        asked = len(record.bodies)
        run(path, resume=True)
        assert asked < 20 and len(record.bodies) == asked + 20 - len(answered)
    assert len(answers(tmp_path / "run")) == 10
    assert all(row.responses[0].model == "big" for row in read_jsonl(tmp_path / "run" / "rows.jsonl"))


def whole(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def test_prompts_that_a_server_left_unanswered_are_asked_again(tmp_path, written, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = write_rows(tmp_path / "data", 3, text_only=range(3))
    up = []

    def mood(number, body):
        return by_seed(number, body) if up else (503, {}, {})

    with serving(mood) as (url, record):
        path = written("run", rows, model=None, server={"url": url, "model": "big", "attempts": 1})
        with pytest.raises(DataError, match="no row is left.*server gave no answer: 3"):
            run(path)
        up.append(True)
        done = run(path, resume=True)
    assert len(answers(done.rows.parent)) == 3
    assert recorded(done.quarantine) == []


MISTAKES = [
    ({"server": {"url": "http://localhost/v1", "model": "m"}}, "'generate' needs one of model and server and has both"),
    ({"model": None}, "'generate' needs one of model and server and has neither"),
    ({"sampling": {"temperature": 0.0}}, "2 answers at sampling.temperature 0 are all the same; raise it, or set n: 1"),
    ({"generate": {"num": 3}}, "unknown key"),
    ({"sampling": {"top_p": 0.0}}, "must be greater than 0, got 0.0"),
    (
        {"model": None, "server": {"url": "http://localhost/v1", "model": "m"}, "data": {"max_length": 9}},
        "data.max_length: is not read with a server",
    ),
]


@pytest.mark.parametrize(("sections", "message"), MISTAKES)
def test_mistakes_in_a_recipe_are_named_with_their_line(tmp_path, written, sections, message):
    with pytest.raises(ConfigError, match=r"run.yaml(:\d+)?: ") as caught:
        load_generation(written("run", tmp_path / "rows.jsonl", **sections))
    assert message in str(caught.value)


def test_a_recipe_is_run_by_its_own_verb(tmp_path, written):
    with pytest.raises(ConfigError, match="'generate' is not run by this verb; run mmalign generate"):
        load_recipe(written("run", tmp_path / "rows.jsonl"))
    with pytest.raises(ConfigError, match="'sft' is not run by this verb; run mmalign train"):
        load_generation(TESTS.parent / "configs" / "miniature" / "sft_qwen2_5_vl.yaml")


def test_the_command_runs_the_miniature_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(TESTS.parent)
    changes = [f"generate.output_dir={tmp_path / 'run'}", "sampling.max_new_tokens=3"]
    with pytest.raises(SystemExit) as ended:
        main(["generate", "configs/miniature/generate_qwen2_5_vl.yaml", *changes])
    assert ended.value.code == 0
    assert "look at them: mmalign data view" in capsys.readouterr().out
    assert os.path.getsize(tmp_path / "run" / "rows.jsonl") > 1000
