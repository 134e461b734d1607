"""The commands `evaluate` and `train`. Heavy imports stay inside the commands, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from reed_core import console
from reed_core.cli_options import Device, Set, Threads

from reed_protein import cli_featurize
from reed_protein.cli_options import Weights


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command("evaluate")(evaluate)
    app.command("train")(train)
    cli_featurize.register(app)


def evaluate(
    data: Annotated[str, typer.Argument(help="A .npz of chains, in the layout of REED_DATA/protein.")] = (
        "protein/backbones_valid.npz"
    ),
    temperature: Annotated[float, typer.Option(help="Sampling temperature of the designs.")] = 0.1,
    steps: Annotated[int, typer.Option(help="Decoder evaluations per design, at most.")] = 20,
    order: Annotated[Literal["random", "confidence"], typer.Option(help="random or confidence.")] = "random",
    seed: Annotated[int, typer.Option(help="Seed of the designs.")] = 0,
    bound: Annotated[
        bool, typer.Option("--bound", help="Print the variational bound of the natives, term by term, as well.")
    ] = False,
    weights: Weights = None,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Prints recovery (one design per chain) and perplexity on chains of known sequence."""
    from reed_core.device import use_device

    from reed_protein.dataset import ChainSet
    from reed_protein.design import load
    from reed_protein.evaluation import bound_of
    from reed_protein.evaluation import evaluate as measure
    from reed_protein.recipe import data_path

    place = use_device(device, threads)
    chains = ChainSet.read(data_path(data))
    network = load(weights, place).network
    found = measure(network, chains, temperature, steps, seed, order, progress=True)
    typer.echo(f"chains                              {len(chains)}")
    typer.echo(
        f"designs                             1 per chain, T={temperature:g}, {steps} steps, {order} order, seed {seed}"
    )
    typer.echo(f"recovery, median over chains        {found.median_recovery:.4f}")
    typer.echo(f"recovery, mean over chains          {found.mean_recovery:.4f}")
    typer.echo(f"recovery, pooled over residues      {found.pooled_recovery:.4f}")
    typer.echo(f"perplexity, any-order (10 blocks)   {found.perplexity_any_order:.3f}")
    typer.echo(f"perplexity, ELBO                    {found.perplexity_elbo:.3f}")
    typer.echo(f"perplexity, one-shot                {found.perplexity_one_shot:.3f}")
    typer.echo(f"composition, distance to native     {found.composition_distance:.4f}")
    if bound:
        typer.echo(f"\n{bound_of(network, chains, seed, progress=True).table()}")


def train(
    config: Annotated[Path, typer.Argument(help="A recipe: TOML or YAML.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/NAME by default. An unfinished run is resumed.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Start from these weights: a folder, or 'bundled' for those of the package.")
    ] = None,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print disk, memory, expected hours and global batch; write nothing.")
    ] = False,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Trains the recipe in CONFIG; run again after a stop, it goes on where the last checkpoint left it.

    Latents from large encoders are read from caches that `reed-protein featurize CONFIG` writes first. Controls of
    guidance: --set latents=[] (none), --set shuffle=true (z of other chains), --set 'without=["identity"]'.
    """
    from reed_core.device import use_device
    from reed_core.train.config import read_config

    from reed_protein.recipe import Recipe

    recipe = read_config(Recipe, config, set_ or ())
    if init is not None:
        recipe = recipe.model_copy(update={"init": init})
    folder = out or Path("runs") / config.stem
    place = use_device(device, threads)
    from reed_protein.dry_run_train import training_estimate, unknown_to_weights
    from reed_protein.recipe import open_chains
    from reed_protein.training import run_recipe, start

    if recipe.init is not None:
        begun = start(recipe)
        unknown = unknown_to_weights(open_chains(recipe.train_set))
        for line in begun.initial.lines(recipe.init, begun.differ, unknown):
            console.report(line)
        if recipe.active:
            console.report(f"projectors, always new: {', '.join(spec.name for spec in recipe.active)}")
    if dry_run:
        typer.echo(training_estimate(recipe, folder, place).table())
        return
    run_recipe(recipe, folder, place)
    console.report(f"weights are in {folder / 'weights'}; try: reed-protein evaluate --weights {folder / 'weights'}")
