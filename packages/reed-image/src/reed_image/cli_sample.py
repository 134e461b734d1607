"""The command `sample`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Threads
from reed_core.errors import InputError

from reed_image.bundled import DEFAULT

DRAWING, GUIDANCE = "Drawing", "Guidance"


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("sample")(sample)


def sample(
    weights: Annotated[
        str, typer.Option(help="Folder of weights, as RUN/weights, or the name of those in the package.")
    ] = DEFAULT,
    out: Annotated[Path, typer.Option(help="A .png file for one grid, or a folder for one file each.")] = Path(
        "grid.png"
    ),
    num: Annotated[
        int, typer.Option(help="Pictures; with --interpolate, rows of pictures.", rich_help_panel=DRAWING)
    ] = 16,
    first: Annotated[int, typer.Option(help="Number of the first.", rich_help_panel=DRAWING)] = 0,
    seed: Annotated[
        int, typer.Option(help="Picture i depends on (seed, i) and its class alone.", rich_help_panel=DRAWING)
    ] = 0,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="Name or number of a class, or none; several are taken in turn. By default: all.",
            rich_help_panel=DRAWING,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="What to show, for a model that reads text; several are taken in turn.", rich_help_panel=DRAWING
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE.npy: rows of a latent that the model is told, taken in turn; else it draws it itself.",
            rich_help_panel=DRAWING,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of each; Heun evaluates twice.", rich_help_panel=DRAWING)] = 50,
    sampler: Annotated[
        Literal["euler", "heun", "sde"], typer.Option(help="euler, heun or sde.", rich_help_panel=DRAWING)
    ] = "heun",
    interpolate: Annotated[
        int,
        typer.Option(
            help="Each row: so many pictures from the noise of one to that of another, of one class.",
            rich_help_panel=DRAWING,
        ),
    ] = 0,
    blend: Annotated[
        bool,
        typer.Option(
            "--blend",
            help="With --interpolate: from one --class or --text to the next, and not from noise to noise.",
            rich_help_panel=DRAWING,
        ),
    ] = False,
    cfg: Annotated[float, typer.Option(help="Scale of guidance; 1 is none.", rich_help_panel=GUIDANCE)] = 1.0,
    cfg_interval: Annotated[
        str, typer.Option(help="LOW,HIGH: diffusion times within which it acts.", rich_help_panel=GUIDANCE)
    ] = "0,1",
    autoguidance: Annotated[
        str | None,
        typer.Option(
            help="Weights of a worse model to be guided away from, in place of the null class.",
            rich_help_panel=GUIDANCE,
        ),
    ] = None,
    autoencoder: Annotated[
        str | None, typer.Option(help="Where the model's autoencoder is, if not where the weights say.")
    ] = None,
    columns: Annotated[int | None, typer.Option(help="Pictures of a row of the grid.")] = None,
    zoom: Annotated[int, typer.Option(help="Side of the square that each pixel of the grid becomes.")] = 1,
    batch: Annotated[int, typer.Option(help="Pictures drawn at once; they do not depend on it.")] = 64,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Draws pictures: a grid, or a folder with one file each and their classes (or texts) in pictures.csv."""
    interval = _interval(cfg_interval)
    if autoguidance is not None and cfg == 1:
        raise InputError("--autoguidance does nothing at --cfg 1; give a scale, as --cfg 2")
    if zoom < 1 or (columns is not None and columns < 1):
        raise InputError("--zoom and --columns are at least 1")
    import torch
    from reed_core.device import use_device
    from rich.console import Console
    from rich.progress import Progress

    from reed_image.grid import check_out, write_folder, write_grid
    from reed_image.model import load
    from reed_image.prompts import read_prompts
    from reed_image.sample import Request, class_label, class_numbers, decoder_of, draw

    grid = check_out(out)
    place = use_device(device, threads)
    model = load(weights, place)
    config = model.config
    request = Request(
        num=num,
        first=first,
        seed=seed,
        steps=steps,
        sampler=sampler,
        labels=class_numbers(config, class_ or ()),
        scale=cfg,
        interval=interval,
        between=interpolate,
        blend=blend,
        prompts=read_prompts(config, text) if text else None,
        given=_given(given or []),
    )
    worse = None if autoguidance is None else load(autoguidance, place)
    decode = decoder_of(config, autoencoder, place)
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("drawing", total=num * (interpolate or 1))

        def batches() -> Any:
            for drawn in draw(model, request, worse, batch):
                said = drawn.texts or [class_label(config, label) for label in drawn.labels]
                yield decode(drawn.x), drawn.numbers, said
                bar.advance(task, len(drawn.numbers))

        if grid:
            write_grid(torch.cat([images for images, _, _ in batches()]), out, columns or request.columns, zoom)
        else:
            write_folder(batches(), out)
    console.report(f"drew {num * (interpolate or 1)} pictures into {out}")


def _interval(text: str) -> tuple[float, float]:
    low, comma, high = text.partition(",")
    try:
        if comma:
            return float(low), float(high)
    except ValueError:
        pass
    raise InputError(f"--cfg-interval {text}: expected LOW,HIGH between 0 (data) and 1 (noise), as 0.1,0.9")


def _given(entries: list[str]) -> dict[str, Any]:
    import numpy as np
    import torch

    found = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        try:
            rows = np.load(path, allow_pickle=False) if equals else None
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"--given {entry}: {path} cannot be read ({type(error).__name__}); give a .npy file"
            ) from error
        if rows is None or rows.ndim != 2 or not len(rows) or not np.issubdtype(rows.dtype, np.floating):
            raise InputError(f"--given {entry}: expected NAME=FILE.npy with real rows [k, width]")
        found[name] = torch.from_numpy(rows).float()
    return found
