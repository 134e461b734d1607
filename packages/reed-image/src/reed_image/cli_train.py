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
    init: Annotated[str | None, typer.Option(help="Start from these weights: a folder, or a name as cifar10.")] = None,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print disk, memory, expected hours and global batch; write nothing.")
    ] = False,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Trains a recipe on prepared pictures; run again after a stop, it goes on where the last checkpoint left it.

    Latents are read from caches that `reed-image featurize RECIPE` writes first. Controls of guidance: --set latents=[]
    (none), --set shuffle=true (z of other pictures), --set 'without=["layout"]'. Several GPUs: torchrun
    --nproc-per-node N -m reed_image train RECIPE.
    """
    from reed_core.device import use_device
    from reed_core.train.config import read_config

    from reed_image.recipe import Recipe, recipe_path

    path = recipe_path(recipe)
    settings = read_config(Recipe, path, set_ or ())
    if init is not None:
        settings = settings.model_copy(update={"init": init})
    folder = out or Path("runs") / path.stem
    place = use_device(device, threads)
    from reed_image.beside import open_caches
    from reed_image.data import open_prepared
    from reed_image.training import run_recipe, start, training_estimate

    if settings.init is not None:
        prepared = open_prepared(settings.data)
        begun = start(settings, prepared, open_caches(settings, prepared, blanks=dry_run))
        for line in begun.initial.lines(settings.init, begun.differ, begun.unknown):
            console.report(line)
        asked = [spec.name for spec in settings.scored if spec.injection == "implicit"]
        if asked:
            console.report(f"projectors, always new: {', '.join(asked)}")
    if dry_run:
        typer.echo(training_estimate(settings, folder, place).table())
        return
    run_recipe(settings, folder, place, progress=not quiet)
    console.report(f"weights are in {folder / 'weights'}; try: reed-image sample --weights {folder / 'weights'}")
