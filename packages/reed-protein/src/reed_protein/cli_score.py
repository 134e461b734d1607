"""The commands `score`, `probs` and `scan`. Heavy imports stay inside the commands, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from reed_core.cli_options import Device, Threads

from reed_protein.cli_options import Weights

File = Annotated[Path, typer.Argument(help="A structure: PDB or mmCIF, also gzipped.")]
Chains = Annotated[str | None, typer.Option(help="Chains to read, as A,B; others are not seen.")]
Model = Annotated[int, typer.Option(help="Which model of the file is read.")]
Sequences = Annotated[
    Path | None,
    typer.Option(help="FASTA: a letter per residue, X unknown, / or : between chains. Without it: the native."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command("score")(score)
    app.command("probs")(probs)
    app.command("scan")(scan)


def score(
    file: File,
    sequences: Sequences = None,
    chains: Chains = None,
    model: Model = 1,
    design: Annotated[str | None, typer.Option(help="Residues that count as designed, as B or A10-20.")] = None,
    fix: Annotated[str | None, typer.Option(help="Residues that do not, written alike; all others do.")] = None,
    out: Annotated[Path | None, typer.Option(help="A .csv or .json file; without it a table is printed.")] = None,
    recovery: Annotated[Path | None, typer.Option(help="A .png of the sequences against the native.")] = None,
    weights: Weights = None,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Scores sequences on the backbone in FILE: how probable does the model find them?

    Negative log-likelihoods in nats per residue: lower is more probable. any_order (the usual `score` of a design's
    header), elbo and one_shot over the designed residues given the others; the same with _all over all residues.
    """
    from reed_core.device import use_device

    from reed_protein.score_command import Source, run_score

    source = Source(file, _chosen(chains), sequences, weights, model)
    typer.echo(run_score(source, design, fix, out, recovery, use_device(device, threads)), nl=False)


def probs(
    file: File,
    out: Annotated[Path, typer.Option(help="The .npz file.")],
    sequences: Sequences = None,
    chains: Chains = None,
    model: Model = 1,
    logo: Annotated[Path | None, typer.Option(help="A .png: sequence logo of the probabilities.")] = None,
    logo_of: Annotated[
        Literal["backbone", "conditional"],
        typer.Option(help="backbone, or conditional: given the other residues of the first sequence."),
    ] = "backbone",
    heights: Annotated[Literal["bits", "probability"], typer.Option(help="Of the logo.")] = "bits",
    weights: Weights = None,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Writes the probabilities of the twenty amino acids at every residue of FILE.

    Keys: unconditional [n, 20] (given the backbone alone), conditional [s, n, 20] (each residue given all others of
    sequence s), alphabet, residue_ids, chain_ids, residue_numbers, insertion_codes, native, names, sequences.
    """
    from reed_core.device import use_device

    from reed_protein.score_command import Source, run_probs

    source = Source(file, _chosen(chains), sequences, weights, model)
    run_probs(source, out, logo, logo_of, heights, use_device(device, threads))


def scan(
    file: File,
    sequences: Sequences = None,
    record: Annotated[int, typer.Option(help="Which sequence of the FASTA file is the wild type.")] = 1,
    chains: Chains = None,
    model: Model = 1,
    residues: Annotated[str | None, typer.Option(help="Residues to scan, as B or A10-20; all without it.")] = None,
    out: Annotated[Path | None, typer.Option(help="A .csv or .json file; without it CSV is printed.")] = None,
    heatmap: Annotated[Path | None, typer.Option(help="A .png: log-odds as colours.")] = None,
    weights: Weights = None,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Ranks every single mutant of the native (or of a given sequence) on the backbone in FILE.

    log_odds: log p(mutant) - log p(wild type) in nats, given backbone and all other residues; positive: the mutant is
    more probable. log_odds_backbone: the same given the backbone alone.
    """
    from reed_core.device import use_device

    from reed_protein.score_command import Source, run_scan

    source = Source(file, _chosen(chains), sequences, weights, model)
    typer.echo(run_scan(source, record, residues, out, heatmap, use_device(device, threads)), nl=False)


def _chosen(chains: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in chains.split(",") if part.strip()) if chains is not None else None
