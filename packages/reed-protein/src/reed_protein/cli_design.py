"""The command `fold-invert`. Heavy imports stay inside the command, so that `--help` is quick."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from reed_core.cli_options import Device, Threads

from reed_protein.cli_options import Weights

_INPUT, _WHAT, _LETTERS, _SAMPLING, _OUTPUT = "Input", "What is designed", "Letters", "Sampling", "Output"


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("fold-invert")(fold_invert)


def fold_invert(
    inputs: Annotated[
        list[str], typer.Argument(help="Structures: PDB or mmCIF files, also gzipped; folders; quoted patterns.")
    ],
    chains: Annotated[
        str | None, typer.Option(help="Chains to read, as A,B; others are not seen.", rich_help_panel=_INPUT)
    ] = None,
    model: Annotated[int, typer.Option(help="Which model of a file with several, from 1.", rich_help_panel=_INPUT)] = 1,
    design: Annotated[
        str | None, typer.Option(help="Residues to design, as B or A10-20,H100A.", rich_help_panel=_WHAT)
    ] = None,
    fix: Annotated[
        str | None,
        typer.Option(help="Residues to keep, written alike; all others are designed.", rich_help_panel=_WHAT),
    ] = None,
    sequence: Annotated[
        str | None,
        typer.Option(help="Letters to keep, X where to design: text or a FASTA file.", rich_help_panel=_WHAT),
    ] = None,
    tie: Annotated[
        list[str] | None,
        typer.Option(
            help="One letter for A1-10,B1-10, position by position; weights as A1:1,B1:0.5. Repeatable.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    symmetry: Annotated[
        list[str] | None,
        typer.Option(help="Equal chains, as A,B,C, paired by residue number. Repeatable.", rich_help_panel=_WHAT),
    ] = None,
    omit: Annotated[str, typer.Option(help="Amino acids never to use, as CM.", rich_help_panel=_LETTERS)] = "",
    no_cysteine: Annotated[bool, typer.Option("--no-cysteine", help="As --omit C.", rich_help_panel=_LETTERS)] = False,
    bias: Annotated[str, typer.Option(help="Nats added to logits, as A:-1,P:0.5.", rich_help_panel=_LETTERS)] = "",
    omit_file: Annotated[
        Path | None,
        typer.Option(help='Omissions by residue: JSON {"A52": "CM"} or CSV residue,letters.', rich_help_panel=_LETTERS),
    ] = None,
    bias_file: Annotated[
        Path | None,
        typer.Option(
            help='Nats by residue: JSON {"A52": {"P": 0.5}} or CSV residue,letter,bias.', rich_help_panel=_LETTERS
        ),
    ] = None,
    at_most: Annotated[
        str,
        typer.Option(help="Most designed residues of a letter: K:10%,W:1 (share or number).", rich_help_panel=_LETTERS),
    ] = "",
    num: Annotated[int, typer.Option(help="Sequences at each temperature.", rich_help_panel=_SAMPLING)] = 1,
    temperature: Annotated[
        str,
        typer.Option(
            help="Sampling temperature, or several as 0.1,0.3; 0 takes the most probable residues.",
            rich_help_panel=_SAMPLING,
        ),
    ] = "0.1",
    diverse: Annotated[
        float,
        typer.Option(
            help="Nats taken from a letter at a residue, times the share of earlier designs that have it there.",
            rich_help_panel=_SAMPLING,
        ),
    ] = 0.0,
    steps: Annotated[
        int, typer.Option(help="Decoder evaluations per sequence, at most.", rich_help_panel=_SAMPLING)
    ] = 20,
    order: Annotated[
        Literal["random", "confidence"],
        typer.Option(
            help="random (samples of the model) or confidence (surest residues first).", rich_help_panel=_SAMPLING
        ),
    ] = "random",
    seed: Annotated[int, typer.Option(help="Design i depends on (seed, i) alone.", rich_help_panel=_SAMPLING)] = 0,
    score: Annotated[
        Literal["any-order", "one-shot", "none"],
        typer.Option(
            help="In the header: any-order (up to 10 evaluations per sequence more), one-shot (1 for all) or none.",
            rich_help_panel=_OUTPUT,
        ),
    ] = "any-order",
    separator: Annotated[str, typer.Option(help="Between the chains of a sequence.", rich_help_panel=_OUTPUT)] = "/",
    out: Annotated[
        Path | None,
        typer.Option(help="FASTA file to write; standard output without it.", rich_help_panel=_OUTPUT),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option(help="Folder for a FASTA file of each structure.", rich_help_panel=_OUTPUT)
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Also every score, as .csv or .json.", rich_help_panel=_OUTPUT)
    ] = None,
    probs: Annotated[
        Path | None, typer.Option(help="Also probabilities at every residue, as .npz.", rich_help_panel=_OUTPUT)
    ] = None,
    threaded: Annotated[
        Path | None,
        typer.Option(help="Also each design on the backbone, as .pdb or .cif.", rich_help_panel=_OUTPUT),
    ] = None,
    logo: Annotated[Path | None, typer.Option(help="Also a sequence logo, as .png.", rich_help_panel=_OUTPUT)] = None,
    recovery: Annotated[
        Path | None, typer.Option(help="Also the designs against the native, as .png.", rich_help_panel=_OUTPUT)
    ] = None,
    skip_finished: Annotated[
        bool,
        typer.Option(
            "--skip-finished", help="Pass over structures whose file is in --out-dir.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be designed, and end there.", rich_help_panel=_OUTPUT),
    ] = False,
    weights: Weights = None,
    device: Device = "auto",
    threads: Threads = 1,
) -> int:
    """Designs sequences for backbones, as FASTA: the native first, then the designs.

    Scores are negative log-likelihoods in nats per residue: lower is better. One-shot scores see no pair of residues.
    """
    from reed_protein.controls import Controls, read_temperatures
    from reed_protein.fold_invert import Request, run
    from reed_protein.known_sequence import read_sequence
    from reed_protein.residue_table import read_bias, read_omit

    controls = Controls(
        num=num,
        temperature=read_temperatures(temperature),
        steps=steps,
        seed=seed,
        order=order,
        design=design,
        fix=fix,
        sequence=None if sequence is None else read_sequence(sequence),
        omit=f"{omit}C" if no_cysteine else omit,
        bias=bias,
        residue_omit={} if omit_file is None else read_omit(omit_file),
        residue_bias={} if bias_file is None else read_bias(bias_file),
        tie=tie or (),
        symmetry=symmetry or (),
        at_most=at_most,
        diverse=diverse,
    )
    request = Request(
        inputs=tuple(inputs),
        controls=controls,
        chains=None if chains is None else tuple(part.strip() for part in chains.split(",") if part.strip()),
        model=model,
        separator=separator,
        score=score,
        out=out,
        out_dir=out_dir,
        outputs={"scores": scores, "probs": probs, "threaded": threaded, "logo": logo, "recovery": recovery},
        skip_finished=skip_finished,
        dry_run=dry_run,
        weights=weights,
        device=device,
        threads=threads,
    )
    return run(request, sys.stdout)
