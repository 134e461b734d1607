"""The command `complete`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Threads

from reed_molecule.cli_options import (
    DRAWING,
    INPUT,
    AtMost,
    Grid,
    Num,
    Only,
    Out,
    Relax,
    Seed,
    Steps,
    Temperature,
    Weights,
)


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("complete")(complete)


def complete(
    fragment: Annotated[Path, typer.Argument(help="SDF or MOL file with 3D coordinates and bonds.")],
    out: Out,
    keep: Annotated[
        str | None,
        typer.Option(help="Atoms to keep, from 1, as 1-12,15; otherwise all of the file.", rich_help_panel=INPUT),
    ] = None,
    replace: Annotated[
        str | None,
        typer.Option(help="Atoms whose hydrogens may be replaced, written alike.", rich_help_panel=INPUT),
    ] = None,
    record: Annotated[int, typer.Option(help="Which record of the file, from 1.", rich_help_panel=INPUT)] = 1,
    weights: Weights = "drugs",
    num: Num = 1,
    add: Annotated[
        str | None,
        typer.Option(help="New atoms of each, hydrogens too: 12, or 8-16.", rich_help_panel=DRAWING),
    ] = None,
    atoms: Annotated[
        str | None,
        typer.Option(help="All atoms of each instead; without both, as in training.", rich_help_panel=DRAWING),
    ] = None,
    resample: Annotated[
        int,
        typer.Option(
            help="How often each step is taken: more lets the new atoms adapt to the kept ones, at that cost.",
            rich_help_panel=DRAWING,
        ),
    ] = 1,
    steps: Steps = 100,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    only: Only = "any",
    at_most: AtMost = None,
    relax: Relax = None,
    grid: Grid = None,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Grows molecules from a fragment, or links several: kept atoms stay where they are, with their bonds.

    New atoms may bond only to kept atoms that have lost a neighbour: one that --keep leaves out, a dummy atom (R group)
    of the file, a hydrogen of --replace, or an unpaired electron. With --relax the kept atoms stay in place.
    """
    from reed_core.device import use_device

    from reed_molecule import completion as module
    from reed_molecule.bar import drawing
    from reed_molecule.cli_sample import tell
    from reed_molecule.finished import finish, write_finished
    from reed_molecule.fragment import read_fragment
    from reed_molecule.generate import Request, load
    from reed_molecule.generated import checked_only
    from reed_molecule.outputs import check_outputs
    from reed_molecule.ranges import read_sizes
    from reed_molecule.relax import check_method
    from reed_molecule.writers.sdf import Tags

    check_outputs(out, grid)
    method = None if relax is None else check_method(relax)
    request = Request(
        num, steps, seed, resample=resample, only=checked_only(only), at_most=at_most, temperature=temperature
    )
    more = None if add is None else read_sizes(add, "--add")
    total = None if atoms is None else read_sizes(atoms, "--atoms")
    kept = read_fragment(fragment, keep, replace, record)
    generator = load(weights, use_device(device, threads))
    for note in kept.notes:
        console.report(note)
    grown = int((~kept.closed).sum())
    console.report(f"{len(kept)} atoms in {kept.pieces} pieces are kept; new atoms may bond to {grown} of them")
    with drawing(num if request.only == "any" else None, quiet) as progress:
        drawn = module.complete(generator, kept, request, more, total, progress)
    asked: Tags = {"weights": generator.name, "seed": seed, "steps": steps, "resample": resample, "kept": len(kept)}
    asked = {**asked, "temperature": temperature}
    outcomes = [module.kept_in(sample, kept) for sample in drawn.kept]
    tags = [{} if outcome is None else outcome.tags() for outcome in outcomes]
    finished = finish(drawn.kept, asked, tags, method, range(len(kept)))
    write_finished(finished, out, grid)
    for line in [*drawn.summary.lines(), *module.lines([module.kept_in(sample, kept) for sample in drawn.samples])]:
        typer.echo(line)
    tell(out, len(finished.records), num, len(drawn.samples), finished.absent, finished.unrelaxed)
