"""The command `featurize`. Heavy imports stay inside the command, so that `--help` is quick."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from reed_core import console
from reed_core.cli_options import Device, Shard, Threads, part_of
from reed_core.errors import InputError

if TYPE_CHECKING:
    from reed_protein.recipe import Recipe


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("featurize")(featurize)


def featurize(
    recipe: Annotated[
        Path | None, typer.Argument(help="The recipe whose latents are written; or give --encoder.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="One latent without a recipe: esm, esm_attention, arrays or teacher.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="A setting of --encoder: --option model=esm2_t6_8M_UR50D.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Overrides a setting of the recipe, as in train: --set cache=DIR.")
    ] = None,
    shard: Shard = "1/1",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print disk, memory and expected time; write nothing.")
    ] = False,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Writes the caches of z that a recipe trains with.

    What is there already is kept, so it can be stopped and resumed; of several workers (--shard) the last to finish
    completes the cache. Latents made from tables need no cache. A latent's `format` says how it is stored.
    """
    part = part_of(shard)
    from reed_core.device import use_device
    from reed_core.train.config import read_config
    from reed_core.train.estimate import size
    from rich.console import Console
    from rich.progress import Progress

    from reed_protein.dry_run_train import cache_report, plans_of
    from reed_protein.latents import featurize as write
    from reed_protein.latents.spec import StoredSpec
    from reed_protein.recipe import Recipe, open_chains

    if (recipe is None) == (encoder is None):
        raise InputError("featurize needs a recipe or --encoder, and not both; see reed-protein featurize --help")
    if option and encoder is None:
        raise InputError("--option belongs to --encoder; settings of a recipe are changed with --set")
    if recipe is not None:
        settings = read_config(Recipe, recipe, set_ or ())
    else:
        settings = _alone(str(encoder), option or [], set_ or [])
    chains = open_chains(settings.train_set)
    if not any(isinstance(spec, StoredSpec) for spec in settings.active):
        console.report("no latent of this recipe needs a cache")
        return
    plans = plans_of(settings, chains)
    place = use_device(device, threads)
    if dry_run:
        for plan in plans:
            typer.echo(cache_report(plan, chains, part, place))
        typer.echo(f"total: {size(sum(plan.bytes for plan in plans))}; nothing was written")
        return
    for plan in plans:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            cache = write(plan, chains, place, part, partial(bar.update, bar.add_task(plan.spec.name)))
        if cache is None:
            console.report(f"{plan.spec.name}: part {shard} of {plan.folder} is written; other parts are not there yet")
        else:
            console.report(
                f"{plan.spec.name}: {plan.folder} holds {len(cache)} chains, {size(cache.bytes)}; {plan.spec.format}: "
                f"{cache.manifest.fidelity}"
            )


def _alone(kind: str, options: list[str], overrides: list[str]) -> "Recipe":
    """A recipe that holds one latent; its tap and weight are never used."""
    from reed_core.train.config import assign, make_config

    from reed_protein.recipe import Recipe

    latent: dict[str, object] = {"kind": kind, "tap": "encoder.0", "weight": 1.0}
    assign(latent, options, "--option")
    values = {"latents": [latent], "train": {"samples": 1}}
    return make_config(Recipe, values, overrides, f"--encoder {kind}")
