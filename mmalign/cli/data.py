"""The verbs `mmalign data ...`: look at rows, convert them, score them, make others of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.cli.parts import examples

data_app = typer.Typer(help="Look at rows, and convert them between formats.", no_args_is_help=True)


@data_app.command(
    "show",
    epilog=examples(
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
    epilog=examples(
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
    epilog=examples("mmalign data convert rows.json rows.jsonl", "mmalign data convert rows/ out.jsonl --to swift")
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
    epilog=examples(
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
    epilog=examples(
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
