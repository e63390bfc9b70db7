"""The command line: help that teaches, messages without tracebacks, exit codes."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from mmalign import __version__, cli
from mmalign.errors import CheckpointError

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(capsys):
    """Run the command in this process; return its exit status and what it printed."""

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return command


def test_version(run):
    assert run("--version") == (0, f"mmalign {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "lesson"),
    [
        (["train"], "mmalign train mine.yaml train.learning_rate=1e-6 objective.0.beta=0.2"),
        (["train"], "accelerate launch --config_file configs/accelerate/ddp.yaml -m mmalign train mine.yaml"),
        (["plan"], "mmalign plan mine.yaml data.max_pixels=200704"),
        (["quickstart"], "mmalign quickstart --seed 3"),
        (["report"], "mmalign report runs/mine"),
        (["schema"], "mmalign schema > recipe.schema.json"),
        (["objectives"], "mmalign objectives sigmoid_norm"),
        (["data", "show"], "mmalign data show rows.json --row 7 --model DIR"),
        (["data", "view"], "mmalign data view rows.jsonl -o rows.html"),
        (["data", "convert"], "mmalign data convert rows/ out.jsonl --to swift"),
        (["data", "relabel"], "mmalign data relabel rows.jsonl --how dpa scores=[helpfulness,verbosity] angle=45 -o"),
    ],
)
def test_help_teaches_by_example(run, arguments, lesson):
    status, out, _ = run(*arguments, "--help")
    assert status == 0
    assert lesson in " ".join(out.split())


def test_no_verb_shows_the_verbs(run):
    _, out, err = run()
    for verb in ("train", "plan", "quickstart", "report", "objectives", "schema", "data"):
        assert verb in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere.yaml"], "error: nowhere.yaml: no such file; give the path of a recipe in YAML"),
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument 'CONFIG'"),
        (["train", "x.yaml", "--resmue"], "No such option"),
        (["plan", "nowhere.yaml"], "error: nowhere.yaml: no such file"),
        (["data", "show", "nowhere.jsonl"], "nowhere.jsonl"),
        (["report", "nowhere"], "error: there is no run directory 'nowhere'"),
        (["data", "relabel"], "error: PATH is missing; `mmalign data relabel --help` shows examples"),
        (["data", "relabel", "rows.jsonl", "--how", "swp", "-o", "x.jsonl"], "error: how 'swp' is no relabelling; did"),
        (
            ["data", "relabel", "rows.jsonl", "seed", "--how", "nxn", "-o", "x.jsonl"],
            "error: option 'seed': write key=",
        ),
        (["objectives", "dop"], "error: unknown objective 'dop'; did you mean 'dpo'?"),
    ],
)
def test_a_mistake_is_a_message_and_status_2(run, arguments, message):
    status, _, err = run(*arguments)
    assert status == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_every_mistake_of_a_recipe_is_a_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = (REPOSITORY / "configs" / "miniature" / "preference_qwen2_5_vl.yaml").read_text(encoding="utf-8")
    before, _ = recipe.split("save_steps: 8")
    Path("r.yaml").write_text(recipe.replace("save_steps: 8", "save_stesp: 8"), encoding="utf-8")
    status, _, err = run("train", "r.yaml", "train.seed=x", "engine=twig")
    assert status == 2
    assert err.splitlines() == [
        "error: override 'engine=twig': engine: 'twig' is not one of auto, tree, flat",
        "override 'train.seed=x': train.seed: must be a whole number, got 'x'",
        f"r.yaml:{before.count(chr(10)) + 1}: train.save_stesp: unknown key; did you mean 'save_steps'?",
    ]


def test_markup_in_a_message_is_printed_as_it_is(run):
    _, _, err = run("train", "[bold]x[/bold].yaml")
    assert "[bold]x[/bold].yaml: no such file" in err


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (CheckpointError("it is incomplete"), 2, "error: it is incomplete"),
        (KeyboardInterrupt(), 130, ""),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2, "runs/x: No space left on device; free some"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: /x: Permission denied"),
    ],
    ids=["ours", "ctrl-c", "full disk", "no permission"],
)
def test_what_goes_wrong_while_running_is_a_message(run, monkeypatch, raised, status, message):
    def fail(*_):
        raise raised

    monkeypatch.setattr("mmalign.config.load.json_schema", fail)
    code, _, err = run("schema")
    assert code == status
    assert message in err


def test_a_run_that_was_stopped_says_what_it_saved(run, monkeypatch):
    from mmalign.train.interrupt import Interrupted

    def stop(*_):
        raise Interrupted(15, Path("runs/x/checkpoints/step-3"))

    monkeypatch.setattr("mmalign.config.load.json_schema", stop)
    code, _, err = run("schema")
    assert code == 143
    assert "stopped by SIGTERM; saved runs/x/checkpoints/step-3; run again with --resume" in err


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "mmalign", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout == f"mmalign {__version__}\n"


def test_the_printed_schema_is_json(run):
    import json

    _, out, _ = run("schema")
    assert json.loads(out)["title"] == "RecipeConfig"
