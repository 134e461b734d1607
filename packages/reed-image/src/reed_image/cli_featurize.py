"""The command `featurize`. Heavy imports stay inside the command, so that `--help` is quick."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Set, Shard, Threads, part_of
from reed_core.errors import InputError

if TYPE_CHECKING:
    from reed_image.recipe import Recipe


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("featurize")(featurize)


def featurize(
    recipe: Annotated[
        str | None, typer.Argument(help="The recipe whose latents are written; or give --data and --encoder.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Prepared pictures, for one latent without a recipe.")] = None,
    encoder: Annotated[str | None, typer.Option(help="timm, mobilenet_v2, resnet20, layout, text or arrays.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="A setting of --encoder: --option model=resnet18.")
    ] = None,
    set_: Set = None,
    shard: Shard = "1/1",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print disk, memory and expected time; write nothing.")
    ] = False,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Writes the caches that a recipe trains with: of its latents, and of its text.

    What is there already is kept, so it can be stopped and resumed; of several workers (--shard) the last to finish
    completes the cache. A latent's `format` says how it is stored.
    """
    part = part_of(shard)
    from reed_core.device import use_device
    from reed_core.train.config import read_config
    from reed_core.train.estimate import size
    from rich.console import Console
    from rich.progress import Progress

    from reed_image.beside import plans_of
    from reed_image.latents import featurize as write
    from reed_image.latents.store import report
    from reed_image.recipe import Recipe, recipe_path

    if (recipe is None) == (encoder is None) or (encoder is None) != (data is None):
        raise InputError("featurize needs a recipe, or --data and --encoder; see reed-image featurize --help")
    if option and encoder is None:
        raise InputError("--option belongs to --encoder; settings of a recipe are changed with --set")
    if recipe is not None:
        settings = read_config(Recipe, recipe_path(recipe), set_ or ())
    else:
        settings = _alone(str(data), str(encoder), option or [], set_ or [])
    place = use_device(device, threads)
    plans = plans_of(settings)
    if not plans:
        console.report("this recipe has neither latents nor text")
    for plan, prepared in plans:
        if dry_run:
            typer.echo(report(plan, prepared, part, place))
            continue
        with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
            cache = write(plan, prepared, place, part, partial(bar.update, bar.add_task(plan.spec.name)))
        if cache is None:
            console.report(f"{plan.spec.name}: part {shard} of {plan.folder} is written; other parts are not there yet")
        else:
            content = cache.manifest.content
            console.report(
                f"{plan.spec.name}: {plan.folder} holds {len(cache)} items, {content.level} level, "
                f"width {content.dim}, {size(cache.bytes)}; {plan.spec.format}: {cache.manifest.fidelity}"
            )


def _alone(data: str, kind: str, options: list[str], overrides: list[str]) -> "Recipe":
    """A recipe that holds one latent; its tap and weight are never used."""
    from reed_core.train.config import assign, make_config

    from reed_image.recipe import Recipe

    latent: dict[str, object] = {"kind": kind, "tap": "blocks.0"}
    assign(latent, options, "--option")
    values = {"data": data, "latents": [latent], "train": {"samples": 1}}
    return make_config(Recipe, values, overrides, f"--encoder {kind}")
