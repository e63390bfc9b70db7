"""The run directory belongs to one run, and says which."""

import json

import pytest
from training_runs import configured, recipe

from mmalign.config.load import load
from mmalign.errors import CheckpointError, ConfigError
from mmalign.train.rundir import identity_of, open_run, write_manifest


@pytest.fixture
def config(tmp_path):
    return configured(recipe("model", tmp_path / "rows.jsonl", tmp_path / "run"))


def test_a_new_run_writes_its_resolved_recipe(config):
    run = open_run(config, resume=False)
    assert load(run.config) == config


def test_what_a_failed_start_left_behind_is_no_obstacle(config):
    run = open_run(config, resume=False)
    run.data.mkdir()
    run.quarantine.write_text("")
    (run.root / ".start.unfinished").mkdir()
    open_run(config, resume=False)


@pytest.mark.parametrize("name", ["metrics.jsonl", "my_thesis.tex"])
def test_a_directory_with_something_else_in_it_is_refused(config, name):
    run = open_run(config, resume=False)
    (run.root / name).write_text("")
    with pytest.raises(
        ConfigError, match=f"is not empty .it holds {name}.; continue that run with --resume, name another"
    ):
        open_run(config, resume=False)
    open_run(config, resume=True)


def test_there_must_be_something_to_resume(config):
    with pytest.raises(CheckpointError, match="no run to resume in .*run; start it without --resume"):
        open_run(config, resume=True)


def test_a_place_that_cannot_be_written_is_named(config, tmp_path):
    (tmp_path / "run").write_text("a file where the directory should be")
    with pytest.raises(ConfigError, match="train.output_dir .* cannot be written"):
        open_run(config, resume=False)


def test_identity_holds_what_numbers_depend_on_and_nothing_else(config):
    identity = identity_of(config, {"rows": "abc"}, 4)
    assert identity["train.learning_rate"] == 1e-3 and identity["rows"] == "abc" and identity["rows_per_step"] == 4
    assert not {"train.output_dir", "train.save_steps", "data.num_workers"} & identity.keys()
    assert "train.per_device_train_batch_size" not in identity


def test_the_manifest_names_versions(config):
    run = open_run(config, resume=False)
    write_manifest(run, {"rows": 3})
    manifest = json.loads(run.manifest.read_text())
    assert manifest["rows"] == 3 and {"mmalign", "torch", "transformers"} <= manifest["versions"].keys()
