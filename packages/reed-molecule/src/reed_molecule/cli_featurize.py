"""The command `featurize`. Heavy imports stay inside the command, so that `--help` is quick."""

from functools import partial
from typing import Annotated

import typer
from reed_core import console
from reed_core.cli_options import Device, Shard, Threads, part_of


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("featurize")(featurize)


def featurize(
    recipe: Annotated[str, typer.Argument(help="The recipe whose latents are written: a file, or a name.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Overrides a setting of the recipe, as in train: --set cache=DIR.")
    ] = None,
    shard: Shard = "1/1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written; write nothing.")] = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Writes the caches of z that a recipe trains with.

    What is there already is kept, so it can be stopped and resumed; of several workers (--shard) the last to finish
    completes the cache. Latents made from the batch need no cache. A latent's `format` says how it is stored.
    """
    part = part_of(shard)
    from reed_core.device import use_device
    from reed_core.train.config import read_config
    from reed_core.train.estimate import size
    from rich.console import Console
    from rich.progress import Progress

    from reed_molecule.dataset import MoleculeSet
    from reed_molecule.latents import featurize as write
    from reed_molecule.latents.store import plans_of
    from reed_molecule.recipe import Recipe, recipe_path

    settings = read_config(Recipe, recipe_path(recipe), set_ or ())
    molecules = MoleculeSet.read(settings.data, "train")
    plans = plans_of(settings.active, molecules, settings.cache)
    if not plans:
        console.report("no latent of this recipe needs a cache")
        return
    if dry_run:
        for plan in plans:
            state = "complete" if plan.complete else "to be written"
            typer.echo(
                f"{plan.spec.name}: {plan.folder} ({state}): {plan.molecules} molecules, {plan.spec.level} level, "
                f"width {plan.dim}, {plan.spec.format}, {size(plan.bytes)}"
            )
        typer.echo(f"total: {size(sum(plan.bytes for plan in plans))}; nothing was written")
        return
    place = use_device(device, threads)
    for plan in plans:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            cache = write(plan, molecules, place, part, partial(bar.update, bar.add_task(plan.spec.name)))
        if cache is None:
            console.report(f"{plan.spec.name}: part {shard} of {plan.folder} is written; other parts are not there yet")
        else:
            console.report(
                f"{plan.spec.name}: {plan.folder} holds {len(cache)} molecules, {size(cache.bytes)}; "
                f"{plan.spec.format}: {cache.manifest.fidelity}"
            )
