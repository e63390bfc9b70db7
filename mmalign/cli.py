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
from mmalign.cli_pairs import pairs_app
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
data_app = typer.Typer(help="Look at rows, and convert them between formats.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(pairs_app, name="pairs")

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="Recipe in YAML; configs/ has some to start from.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Change keys of the recipe, e.g. train.learning_rate=1e-6."),
]


def _examples(*lines: str) -> str:
    """Return an epilog that shows commands as they are typed."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  {escape(line)}" for line in lines)


@app.callback(invoke_without_command=True)
def _version(show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show:
        typer.echo(f"mmalign {__version__}")
        raise typer.Exit


@app.command(
    epilog=_examples(
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
    from mmalign.recipes.configuration import load_recipe

    recipe = load_recipe(config, overrides or ())
    from mmalign.recipes.train import run

    run(recipe, resume=resume)


@app.command(
    epilog=_examples(
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
    from mmalign.recipes.configuration import load_recipe

    recipe = load_recipe(config, overrides or ())
    from mmalign.recipes.stages_plan import run

    run(recipe, memory_gb=memory_gb)


@app.command(
    epilog=_examples(
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


@app.command(epilog=_examples("mmalign quickstart", "mmalign quickstart --seed 3 --output-dir runs/seed3"))
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


@app.command(epilog=_examples("mmalign report runs/mine"))
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory: train.output_dir of its recipe.")],
) -> None:
    """Write the page of a run as it is now: one that was interrupted, is still running, or is finished.

    A run that ends on its own writes it itself. What the curves say so far is printed too.
    """
    from mmalign.recipes.report import run

    run(directory)


@app.command(epilog=_examples("mmalign objectives", "mmalign objectives dpo", "mmalign objectives sigmoid_norm"))
def objectives(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Explain this one. Default: list all.")] = None,
) -> None:
    """List the objectives a recipe may name, or explain one: formula, source, options, and where it departs."""
    from mmalign.recipes.objectives import show

    show(name)


@app.command(epilog=_examples("mmalign schema > recipe.schema.json"))
def schema() -> None:
    """Print the JSON Schema of recipes, for editors that complete and check YAML."""
    from mmalign.config.load import json_schema

    typer.echo(json_schema())


@data_app.command(
    "show",
    epilog=_examples(
        "mmalign data show rows.jsonl", "mmalign data show rows.json --row 7 --model DIR", "mmalign data show clip.mp4"
    ),
)
def show_row(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Rows, media, a folder of either, or hub id with --allow-network.")
    ],
    row: Annotated[int, typer.Option(help="Which row, from 1; the line in JSONL.", min=1)] = 1,
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="Model whose processor and chat template make the tokens.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Name of the format. Default: known by the columns.")] = None,
    root: Annotated[Path | None, typer.Option(help="Directory below which media are. Default: that of PATH.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="As data.max_pixels.", min=1)] = None,
    max_length: Annotated[int | None, typer.Option(help="As data.max_length.", min=1)] = None,
    sampling: Annotated[str, typer.Option(help="As data.video.sampling: which frames of videos.")] = "fps",
    fps: Annotated[float | None, typer.Option(help="As data.video.fps, for --sampling fps.", min=0.001)] = None,
    frames: Annotated[int, typer.Option(help="As data.video.frames.", min=1)] = 32,
    allow_network: Annotated[bool, typer.Option("--allow-network", help="Fetch PATH from the hub.")] = False,
) -> None:
    """Explain one row: its format, messages, answers, media and, with a model, its tokens and which are scored.

    PATH may also be a picture, a video, or a folder of them. Exits with 1 when what is shown is refused.
    """
    from mmalign.modalities.sampling import Sampling
    from mmalign.recipes.data_show import show

    how = {"max_pixels": max_pixels, "max_length": max_length, "allow_network": allow_network}
    how["sampling"] = Sampling.of(sampling, frames=frames, fps=fps)
    if not show(path, row=row, model=model, format=format, root=root, **how):
        raise typer.Exit(1)


@data_app.command(
    "view",
    epilog=_examples(
        "mmalign data view rows.jsonl -o rows.html",
        "mmalign data view rows.json -o refused.html --quarantine runs/mine/quarantine.jsonl",
        "mmalign data view clip.mp4 -o clip.html",
    ),
)
def view_rows(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Rows, a picture, a clip, a folder, or hub id with --allow-network.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("rows.html"),
    root: Annotated[Path | None, typer.Option(help="Directory below which media are. Default: that of PATH.")] = None,
    format: Annotated[str | None, typer.Option(help="Name of the format. Default: known by the columns.")] = None,
    from_row: Annotated[
        int, typer.Option(help="First row to show, from 1; the line in JSONL, as data show has it.", min=1)
    ] = 1,
    limit: Annotated[int, typer.Option(help="Most rows to show.", min=1)] = 10_000,
    quarantine: Annotated[
        Path | None, typer.Option(help="Refused rows of a run; their reasons stand at the rows.")
    ] = None,
    max_media_mb: Annotated[
        float, typer.Option(help="Room for pictures in the page, in 10^6 bytes. Rows beyond it say so.", min=0)
    ] = 64.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page when it exists.")] = False,
    allow_network: Annotated[bool, typer.Option("--allow-network", help="Fetch PATH from the hub.")] = False,
) -> None:
    """Write one page to look at rows in a browser: prompts, media, answers and their differences, refused rows.

    The page is a single file, works without a network, and takes ten thousand rows; it has search, filters and keys.
    """
    from mmalign.recipes import data_view

    choices = {"from_row": from_row, "limit": limit, "quarantine": quarantine, "max_media_mb": max_media_mb}
    choices |= {"overwrite": overwrite, "allow_network": allow_network}
    done = data_view.view(path, output, root=root, format=format, **choices)
    data_view.report(done)


@data_app.command(
    epilog=_examples("mmalign data convert rows.json rows.jsonl", "mmalign data convert rows/ out.jsonl --to swift")
)
def convert(
    path: Annotated[str, typer.Argument(metavar="PATH", help="File, folder of files, or hub id with --allow-network.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write; its ending says how: .jsonl .json .parquet")
    ],
    to: Annotated[str, typer.Option(help="mmalign, trl, sharegpt or swift.")] = "mmalign",
    format: Annotated[str | None, typer.Option(help="Format of PATH. Default: known by the columns.")] = None,
    max_refused_share: Annotated[float, typer.Option(help="Stop when more rows are refused.", min=0, max=1)] = 0.05,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT when it exists.")] = False,
    allow_network: Annotated[bool, typer.Option("--allow-network", help="Fetch PATH from the hub.")] = False,
) -> None:
    """Write rows of any known format in ours, TRL's, LLaMA-Factory's (sharegpt) or ms-swift's.

    What the format cannot say is counted; refused rows are listed beside OUT with their reasons.
    """
    from mmalign.recipes import data_convert

    choices = {"max_refused_share": max_refused_share, "overwrite": overwrite, "allow_network": allow_network}
    done = data_convert.convert(path, out, to=to, format=format, **choices)
    data_convert.report(done, out)


@data_app.command(
    "score",
    epilog=_examples(
        "mmalign data score rows.jsonl --model models/other-vlm --as other -o scored.jsonl",
        "mmalign data score scored.jsonl --model runs/peer/final --as peer --against other -o judged.jsonl",
    ),
)
def score_rows(
    path: Annotated[str, typer.Argument(metavar="PATH", help="File, folder of files, or hub id with --allow-network.")],
    model: Annotated[
        str, typer.Option(metavar="DIR", help="Model or adapter that scores, of any family; miniature/llava for a try.")
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="What the model is called in the numbers' names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .jsonl to write; media paths stay as they are.")],
    against: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Also write reward/<as>: logp/<as> minus the logp of this earlier NAME."),
    ] = None,
    format: Annotated[str | None, typer.Option(help="Format of PATH. Default: known by the columns.")] = None,
    root: Annotated[Path | None, typer.Option(help="Directory below which media are. Default: that of PATH.")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows of one forward, each with all its responses.", min=1)] = 8,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. Default: bfloat16 on a GPU, else float32.")
    ] = None,
    max_pixels: Annotated[int | None, typer.Option(help="As data.max_pixels.", min=1)] = None,
    max_length: Annotated[int | None, typer.Option(help="As data.max_length.", min=1)] = None,
    sampling: Annotated[str, typer.Option(help="As data.video.sampling: which frames of videos.")] = "fps",
    fps: Annotated[float, typer.Option(help="As data.video.fps.", min=0.001)] = 2.0,
    frames: Annotated[int, typer.Option(help="As data.video.frames.", min=1)] = 32,
    max_refused_share: Annotated[float, typer.Option(help="Stop when more rows are refused.", min=0, max=1)] = 0.05,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, and what is unfinished of it.")] = False,
    allow_network: Annotated[bool, typer.Option("--allow-network", help="Fetch PATH from the hub.")] = False,
) -> None:
    """Write into every response what a model makes of it, for objectives that read other models (infifpo, poft).

    A response gets logp/NAME, the sum of its token log-probs (times the weights of its spans), and tokens/NAME, their
    number by the model's own tokenizer. A recipe then lists NAME under sources of the objective; cream, scir and crm
    take any number as a second judge, e.g. judge: reward/NAME.

    An interrupted start goes on when the same command is given again. Refused rows are listed beside OUT with their
    reasons.
    """
    from mmalign.modalities.sampling import Sampling
    from mmalign.recipes import data_score

    choices = {"name": name, "against": against, "format": format, "root": root, "batch_size": batch_size}
    choices |= {"dtype": dtype, "max_pixels": max_pixels, "max_length": max_length, "overwrite": overwrite}
    choices["sampling"] = Sampling(policy=sampling, fps=fps, frames=frames)
    choices |= {"max_refused_share": max_refused_share, "allow_network": allow_network}
    done = data_score.score(path, output, model=model, **choices)
    data_score.report(done)


@data_app.command(
    epilog=_examples(
        "mmalign data relabel --list",
        "mmalign data relabel rows.jsonl --how reward_augmented -o augmented.jsonl",
        "mmalign data relabel rows.jsonl --how dpa scores=[helpfulness,verbosity] angle=45 -o directed.parquet",
        "mmalign data relabel ranked.jsonl --how curry -o pairs.jsonl",
    )
)
def relabel(
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="File, folder of files, or hub id with --allow-network."),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options of the relabelling; --list shows them.")
    ] = None,
    how: Annotated[str | None, typer.Option(help="Which relabelling; --list shows them.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; its ending says how: .jsonl .parquet")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Say what there is, with options, and exit.")] = False,
    format: Annotated[str | None, typer.Option(help="Format of PATH. Default: known by the columns.")] = None,
    max_refused_share: Annotated[float, typer.Option(help="Stop when more rows are refused.", min=0, max=1)] = 0.05,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file when it exists.")] = False,
    allow_network: Annotated[bool, typer.Option("--allow-network", help="Fetch PATH from the hub.")] = False,
) -> None:
    """Make other rows of rows: goals said in the prompt, the order turned, lists cut into pairs.

    Rows stream through. Media, tags and provenance come along, every new row has an id of its own, draws follow from
    the row's id, and refused rows are listed beside the output with their reasons. `data.relabel` in a recipe does the
    same while rows are prepared.
    """
    from mmalign.recipes import data_relabel

    if list_all:
        data_relabel.show()
        return
    choices = {"format": format, "max_refused_share": max_refused_share}
    choices |= {"overwrite": overwrite, "allow_network": allow_network}
    data_relabel.relabel_file(path, output, how, options or (), **choices)


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
