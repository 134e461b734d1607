"""The command `train`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Set, Threads


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("train")(train)


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe: TOML or YAML, or the name of one in the package.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/NAME by default. An unfinished run is resumed.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Start from these weights: a folder, or the name of bundled ones.")
    ] = None,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print disk, memory, expected hours and batch; write nothing.")
    ] = False,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Trains a recipe on a prepared set; run again after a stop, it goes on where the last checkpoint left it."""
    from reed_core.device import use_device
    from reed_core.train.config import read_config

    from reed_molecule.recipe import Recipe, recipe_path

    path = recipe_path(recipe)
    settings = read_config(Recipe, path, set_ or ())
    if init is not None:
        settings = settings.model_copy(update={"init": init})
    folder = out or Path("runs") / path.stem
    place = use_device(device, threads)
    from reed_molecule.dry_run import training_estimate
    from reed_molecule.start import describe, start_of
    from reed_molecule.training import run_recipe

    begin = start_of(settings)
    for line in describe(settings, begin):
        console.report(line)
    if dry_run:
        typer.echo(training_estimate(settings, begin, folder, place).table())
        return
    run_recipe(settings, folder, device=place, progress=not quiet)
    console.report(f"weights are in {folder / 'weights'}; try: reed-molecule sample --weights {folder / 'weights'}")
