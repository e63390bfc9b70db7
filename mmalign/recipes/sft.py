"""Imitate: every row's best answer is learnt by its likelihood, supervised fine-tuning.

Rows may be demonstrations (one answer) or preferences, of which only the best answer is read and computed. The loss is
the mean negative log-likelihood over the answers' tokens; the prompt is not learnt.

    mmalign train configs/miniature/sft_qwen2_5_vl.yaml
"""

from __future__ import annotations

from mmalign.config.schema import RecipeConfig
from mmalign.engine.reference import NoReference
from mmalign.objectives.compose import build
from mmalign.recipes import results, training
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

    # 2. The objective reads the best answer of every row.
    objective = build(config.objective)

    # 3. Rows, checked and counted, so that any step can open them by number. No weights are loaded yet.
    start = training.start_path(config, directory, accelerator)
    rows = training.prepare_rows(config, directory, start, objective, accelerator)

    # 4. The model as it starts: adapters on, parts frozen, dropout off.
    policy = training.load_start(config, start, accelerator)

    # 5. Optimiser, ranks and precision around it.
    learner = training.build_learner(config, policy, NoReference(), objective, accelerator)

    # 6. The order of rows, the length of the run, the learning rate of every step.
    course = training.build_course(config, directory, rows, learner, start)

    # 7. Where the run begins: at the first step, or after the newest whole checkpoint. Then the steps.
    position = training.continue_or_begin(course, resume=resume)
    results.describe(config, course, rows, policy)
    loop.train(course, position)

    # 8. The trained model, and what the run says about itself.
    return results.finish(course, rows)
