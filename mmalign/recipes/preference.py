"""Align a model to preferences: rows with ranked responses go in, an aligned model comes out.

A prompt is computed once with its media; policy and reference score all its responses; an objective (DPO and its kin,
alone or in a weighted sum) compares them. Supported: images and text, one process or several, full fine-tuning or
adapters; the reference is the start of the run, another model, a table made beforehand, or none.

    mmalign train configs/miniature/preference_qwen2_5_vl.yaml
    accelerate launch --num_processes 2 -m mmalign train mine.yaml
"""

from __future__ import annotations

from mmalign.config.schema import RecipeConfig
from mmalign.objectives.compose import build
from mmalign.recipes import references, results, teaching, training
from mmalign.recipes.configuration import require_needs
from mmalign.recipes.results import RunResult
from mmalign.train import loop, runtime


def run(config: RecipeConfig, *, resume: bool = False) -> RunResult:
    """Run the recipe and return what it left behind.

    Args:
        resume: go on from the newest whole checkpoint in `train.output_dir`.

    Raises:
        MmalignError: one of its subclasses, with what is wrong and the way out.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved first.
    """
    # 1. Devices, precision, ranks and seeds; the place where everything is written.
    accelerator = runtime.start(config.train)
    directory = training.open_directory(config, accelerator, resume=resume)

    # 2. The objective: which responses it reads, and what it reads beside the policy.
    objective = build(config.objective)
    require_needs(config, objective)

    # 3. Rows, checked and counted, so that any step can open them by number. No weights are loaded yet.
    start = training.start_path(config, directory, accelerator)
    config = training.with_companions(config, directory, accelerator)
    references.require_possible(config, objective, start, accelerator)
    rows = training.prepare_rows(config, directory, start, objective, accelerator)

    # 4. What a teacher predicts for the rows, on disk, if the objective imitates one; its model is gone again then.
    taught = teaching.ask_teacher(config, directory, rows, objective, start, accelerator)

    # 5. The model as it starts: adapters on, parts frozen, dropout off.
    policy = training.load_start(config, start, accelerator)

    # 6. The reference, taken before anything moves, and what else is asked beside it.
    reference = references.build_reference(config, policy, objective, accelerator)
    version = references.version_for_table(config, reference)
    sources = references.build_sources(config, policy, objective, accelerator)

    # 7. Optimiser, ranks and precision around them; frozen vision towers speak once per batch.
    learner = training.build_learner(config, policy, reference, objective, accelerator, sources)

    # 8. The order of rows, the length of the run, the learning rate of every step.
    course = training.build_course(config, directory, rows, learner, start)

    # 9. A table of the reference in place of its model, if the recipe wants one; then nobody holds the model any more.
    course = references.with_precomputed_reference(course, version)
    course = teaching.with_teacher(course, taught)
    del reference, learner

    # 10. Where the run begins: at the first step, or after the newest whole checkpoint. Then the steps.
    position = training.continue_or_begin(course, resume=resume)
    results.describe(config, course, rows, policy)
    loop.train(course, position)

    # 11. The trained model, and what the run says about itself.
    return results.finish(course, rows)
