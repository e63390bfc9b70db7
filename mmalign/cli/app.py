"""The `mmalign` command: one verb per thing a person wants done.

Verbs import what they need when they run, so that `--help` and mistakes in a recipe answer at once. What mmalign raises
on purpose is printed without a traceback and exits with 2; Ctrl-C exits with 130.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from mmalign import __version__
from mmalign.cli.data import data_app
from mmalign.cli.pairs import pairs_app
from mmalign.cli.parts import Config, Overrides, examples
from mmalign.errors import MmalignError

app = typer.Typer(
    name="mmalign",
    help="Align multimodal models to preferences. Every prompt is computed once, however many responses it has.",
    epilog="New here? Run [bold]mmalign quickstart[/bold].",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(data_app, name="data")
app.add_typer(pairs_app, name="pairs")


@app.callback(invoke_without_command=True)
def _version(show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show:
        typer.echo(f"mmalign {__version__}")
        raise typer.Exit


@app.command(
    epilog=examples(
        "mmalign train configs/miniature/preference_qwen2_5_vl.yaml",
        "mmalign train mine.yaml train.learning_rate=1e-6 objective.0.beta=0.2",
        "mmalign train mine.yaml --resume",
        "accelerate launch --config_file configs/accelerate/ddp.yaml -m mmalign train mine.yaml",
    )
)
def train(
    config: Config,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in train.output_dir.")
    ] = False,
) -> None:
    """Train as a recipe says.

    Mistakes in the recipe are named with file and line before any model is loaded. Ctrl-C and SIGTERM save a
    checkpoint first; --resume goes on from it as if nothing had happened.
    """
    from mmalign.recipes.configuration import load_recipe, require_models

    recipe = load_recipe(config, overrides or ())
    require_models(recipe, config, overrides or ())
    from mmalign.recipes.train import run

    run(recipe, resume=resume)


@app.command(
    epilog=examples(
        "mmalign plan mine.yaml",
        "mmalign plan mine.yaml data.max_pixels=200704 train.gradient_checkpointing=true",
    )
)
def plan(
    config: Config,
    overrides: Overrides = None,
    memory_gb: Annotated[
        float | None, typer.Option(help="Memory of one device in 10^9 bytes. Default: this machine's.", min=0.001)
    ] = None,
) -> None:
    """Say what a recipe would cost, without training.

    Shows a histogram of tokens, rows over the limits, trees per batch and the predicted peak memory of one device, and
    what to change if it does not fit; for a recipe with stages, each of them, and what all take on disk. No weights are
    loaded and no pixels decoded.
    """
    from mmalign.recipes.configuration import load_recipe, require_models

    recipe = load_recipe(config, overrides or ())
    require_models(recipe, config, overrides or ())
    from mmalign.recipes.stages_plan import run

    run(recipe, memory_gb=memory_gb)


@app.command(
    epilog=examples(
        "mmalign generate configs/miniature/generate_qwen2_5_vl.yaml",
        "mmalign generate mine.yaml generate.n=8 sampling.temperature=0.7",
        "mmalign generate mine.yaml --resume",
    )
)
def generate(
    config: Config,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the prompts that have no answer in generate.output_dir yet.")
    ] = False,
) -> None:
    """Answer prompts N times each, with a model in memory or a server; write rows with their answers.

    Every prompt is computed once for all its answers. What cannot be answered is listed with its reason, and the run
    goes on; a run that is killed loses nothing.
    """
    from mmalign.recipes.configuration import load_generation

    recipe = load_generation(config, overrides or ())
    from mmalign.recipes.generate import run

    run(recipe, resume=resume)


@app.command(epilog=examples("mmalign quickstart", "mmalign quickstart --seed 3 --output-dir runs/seed3"))
def quickstart(
    output_dir: Annotated[Path, typer.Option(help="Run directory; made when missing.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads of torch; few suit so small a model.", min=1)] = 1,
) -> None:
    """Watch a tiny vision-language model stop hallucinating: minutes on two CPU cores, nothing downloaded."""
    # Threads that wait by spinning made a step sixteen times slower beside other programs (2.3 s, not 0.14 s), and
    # passive ones take up to 45% longer on an idle machine. Read once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from mmalign.recipes.quickstart import run

    run(output_dir, seed=seed, threads=threads)


@app.command(epilog=examples("mmalign report runs/mine"))
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory: train.output_dir of its recipe.")],
) -> None:
    """Write the page of a run as it is now: one that was interrupted, is still running, or is finished.

    A run that ends on its own writes it itself. What the curves say so far is printed too.
    """
    from mmalign.recipes.report import run

    run(directory)


@app.command(epilog=examples("mmalign objectives", "mmalign objectives dpo", "mmalign objectives sigmoid_norm"))
def objectives(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Explain this one. Default: list all.")] = None,
) -> None:
    """List the objectives a recipe may name, or explain one: formula, source, options, and where it departs."""
    from mmalign.recipes.objectives import show

    show(name)


@app.command(epilog=examples("mmalign schema > recipe.schema.json"))
def schema() -> None:
    """Print the JSON Schema of recipes, for editors that complete and check YAML."""
    from mmalign.config.load import json_schema

    typer.echo(json_schema())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    # What libraries tell each other about their next major version is not for people who train.
    warnings.simplefilter("ignore", FutureWarning)
    try:
        app(args=None if arguments is None else list(arguments))
    except MmalignError as error:
        _fail(str(error))
    except OSError as error:
        _fail(_file_trouble(error))
    except SystemExit as ended:
        # A run that was told to stop ends this way and says what it saved; other exits have nothing to say.
        if not str(ended).isdecimal() and isinstance(ended.code, int):
            _fail(str(ended), status=ended.code)
        raise


def _file_trouble(error: OSError) -> str:
    """Return what the operating system refused, and the way out where there is one."""
    where = f"{error.filename}: " if error.filename else ""
    way_out = "; free some space and go on with --resume" if error.errno == errno.ENOSPC else ""
    return f"{where}{error.strerror or error}{way_out}"


def _fail(message: str, status: int = 2) -> None:
    """Print `message` to the error stream and exit."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/bold red] {escape(message)}")
    sys.exit(status)
