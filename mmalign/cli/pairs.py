"""The verbs `mmalign pairs ...`: preference pairs that a program makes of media and a model's own words."""

from __future__ import annotations

from typing import Annotated

import typer

from mmalign.cli.parts import Config, Overrides, examples

pairs_app = typer.Typer(help="Make preference pairs.", no_args_is_help=True)


@pairs_app.command(
    epilog=examples(
        "mmalign pairs temporal configs/miniature/temporal_qwen2_5_vl.yaml",
        "mmalign pairs temporal mine.yaml data.videos=videos --resume",
        "accelerate launch -m mmalign pairs temporal mine.yaml",
    )
)
def temporal(
    config: Config,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run in temporal.output_dir was ended.")
    ] = False,
) -> None:
    """Make pairs about the order of events of a folder of videos, as TEMPLE does.

    The model tells each video from captions of its clips, in their order and in wrong ones; the true telling is
    preferred. Rows say how hard they are, so that a recipe with stages can train from easy to hard. A file that is no
    whole video, and an answer of no use, are listed with their reasons, and the run goes on.
    """
    from mmalign.recipes.configuration import load_temporal

    recipe = load_temporal(config, overrides or ())
    from mmalign.recipes.temporal import run

    run(recipe, resume=resume)
