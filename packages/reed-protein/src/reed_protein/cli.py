"""The command line `reed-protein`. Heavy imports stay inside the commands, so that `--help` is quick."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from reed_core import console

app = typer.Typer(
    name="reed-protein",
    help="Protein inverse folding by representation-guided masked diffusion: sequences for a backbone.",
    no_args_is_help=True,
    add_completion=False,
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 leaves the choice to torch.")]
Weights = Annotated[Path | None, typer.Option(help="Folder of weights; by default those that come with the package.")]


@app.callback()
def _options(version: Annotated[bool, console.version_option("reed-protein")] = False) -> None:
    """Sequences for a backbone."""


@app.command("fold-invert")
def fold_invert(
    file: Annotated[Path, typer.Argument(help="A structure: PDB or mmCIF, also gzipped.")],
    num: Annotated[int, typer.Option(help="Number of sequences.")] = 1,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 takes the most probable residues.")] = 0.1,
    steps: Annotated[int, typer.Option(help="Decoder evaluations per sequence, at most.")] = 20,
    order: Annotated[
        Literal["random", "confidence"],
        typer.Option(help="random (samples of the model) or confidence (surest residues first)."),
    ] = "random",
    seed: Annotated[int, typer.Option(help="Design i depends on (seed, i) alone.")] = 0,
    chains: Annotated[str | None, typer.Option(help="Chains to read, as A,B; others are not seen.")] = None,
    design: Annotated[str | None, typer.Option(help="Residues to design, as B or A10-20,H100A.")] = None,
    fix: Annotated[str | None, typer.Option(help="Residues to keep, written alike; all others are designed.")] = None,
    omit: Annotated[str, typer.Option(help="Amino acids never to use, as CM.")] = "",
    bias: Annotated[str, typer.Option(help="Nats added to logits, as A:-1,P:0.5.")] = "",
    separator: Annotated[str, typer.Option(help="Between the chains of a sequence.")] = "/",
    out: Annotated[Path | None, typer.Option(help="FASTA file to write; standard output without it.")] = None,
    weights: Weights = None,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Designs sequences for the backbone in FILE, as FASTA: the native first, then the designs.

    Scores are any-order negative log-likelihoods in nats per residue: lower is better.
    """
    from reed_core.device import use_device

    from reed_protein.fold_invert import Request, run

    chosen = tuple(part.strip() for part in chains.split(",") if part.strip()) if chains is not None else None
    request = Request(
        file, num, temperature, steps, order, seed, chosen, design, fix, omit, bias, separator, out, weights
    )
    run(request, use_device(device, threads), sys.stdout)


@app.command("evaluate")
def evaluate(
    data: Annotated[str, typer.Argument(help="A .npz of chains, in the layout of REED_DATA/protein.")] = (
        "protein/backbones_valid.npz"
    ),
    temperature: Annotated[float, typer.Option(help="Sampling temperature of the designs.")] = 0.1,
    steps: Annotated[int, typer.Option(help="Decoder evaluations per design, at most.")] = 20,
    order: Annotated[Literal["random", "confidence"], typer.Option(help="random or confidence.")] = "random",
    seed: Annotated[int, typer.Option(help="Seed of the designs.")] = 0,
    weights: Weights = None,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Prints recovery (one design per chain) and perplexity on chains of known sequence."""
    from reed_core.device import use_device

    from reed_protein.dataset import ChainSet
    from reed_protein.design import load
    from reed_protein.evaluation import evaluate as measure
    from reed_protein.recipe import data_path

    place = use_device(device, threads)
    chains = ChainSet.read(data_path(data))
    found = measure(load(weights, place).network, chains, temperature, steps, seed, order, progress=True)
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


@app.command("train")
def train(
    config: Annotated[Path, typer.Argument(help="A recipe: TOML or YAML.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/NAME by default. An unfinished run is resumed.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Overrides a setting: --set train.samples=1000.")
    ] = None,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Trains the recipe in CONFIG; run again after a stop, it goes on where the last checkpoint left it."""
    from reed_core.device import use_device
    from reed_core.train.config import read_config

    from reed_protein.recipe import Recipe

    recipe = read_config(Recipe, config, set_ or ())
    folder = out or Path("runs") / config.stem
    place = use_device(device, threads)
    from reed_protein.training import run_recipe

    run_recipe(recipe, folder, place)
    console.report(f"weights are in {folder / 'weights'}; try: reed-protein evaluate --weights {folder / 'weights'}")


def main() -> None:
    """The console script."""
    console.run(app)
