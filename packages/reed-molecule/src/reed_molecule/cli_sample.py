"""The command `sample`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer
from reed_core import console
from reed_core.cli_options import Device, Quiet, Threads

from reed_molecule.cli_options import (
    DRAWING,
    OUTPUT,
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
    app.command("sample")(sample)


def sample(
    out: Out,
    weights: Weights = "qm9",
    num: Num = 1,
    atoms: Annotated[
        str | None,
        typer.Option(
            help="Atoms of each, hydrogens too: 18, or 15-20. Otherwise as in training.", rich_help_panel=DRAWING
        ),
    ] = None,
    formula: Annotated[
        str | None, typer.Option(help="Exact atoms, hydrogens too, as C7H10N2O.", rich_help_panel=DRAWING)
    ] = None,
    steps: Steps = 100,
    seed: Seed = 0,
    property_: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            help="A value that molecules should have, as gap=0.25, in the units of the training data; repeat it.",
            rich_help_panel=DRAWING,
        ),
    ] = None,
    guidance: Annotated[
        float,
        typer.Option(help="How strongly --property is followed: 1 as learned, 2 for more.", rich_help_panel=DRAWING),
    ] = 1.0,
    sampler: Annotated[
        str | None,
        typer.Option(help="ancestral or flow; otherwise what the weights were trained for.", rich_help_panel=DRAWING),
    ] = None,
    temperature: Temperature = 1.0,
    only: Only = "any",
    at_most: AtMost = None,
    relax: Relax = None,
    grid: Grid = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(help="Also the way of one sample from noise to molecule, .xyz.", rich_help_panel=OUTPUT),
    ] = None,
    trajectory_of: Annotated[int, typer.Option(help="Which sample, from 0.", rich_help_panel=OUTPUT)] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Draws molecules and writes them; prints how many are valid, connected, unique and novel.

    Each SDF record says its seed, number, steps and what was asked for, and what is true of it.
    """
    from reed_core.device import use_device

    from reed_molecule.bar import drawing
    from reed_molecule.finished import finish, write_finished
    from reed_molecule.flow import checked_sampler, sampler_for
    from reed_molecule.generate import Request, load
    from reed_molecule.generated import checked_only
    from reed_molecule.outputs import check_outputs
    from reed_molecule.properties import read_asked
    from reed_molecule.ranges import read_sizes
    from reed_molecule.relax import check_method
    from reed_molecule.trajectory import Trajectory
    from reed_molecule.writers.sdf import Tags

    check_outputs(out, grid, trajectory)
    method = None if relax is None else check_method(relax)
    request = Request(
        num=num,
        steps=steps,
        seed=seed,
        sizes=None if atoms is None else read_sizes(atoms, "--atoms"),
        formula=formula,
        only=checked_only(only),
        at_most=at_most,
        properties=read_asked(property_ or ()),
        guidance=guidance,
        sampler=checked_sampler(sampler),
        temperature=temperature,
    )
    generator = load(weights, use_device(device, threads))
    for line in generator.far_off(request.properties):
        console.report(line)
    path = Trajectory(trajectory_of, generator.model.config.scale)
    with drawing(num if request.only == "any" else None, quiet) as progress:
        drawn = generator.draw(request, progress, None if trajectory is None else path.watch)
    used = request.sampler or sampler_for(generator.model.config.alignment)
    asked: Tags = {"weights": generator.name, "seed": seed, "steps": steps, "sampler": used, "temperature": temperature}
    if request.properties:
        said = {f"asked_{name}": value for name, value in request.properties.items()}
        asked = {**asked, **said, "guidance": guidance}
    finished = finish(drawn.kept, asked, method=method)
    if trajectory is not None:
        path.write(trajectory, drawn.samples)
    write_finished(finished, out, grid)
    for line in drawn.summary.lines():
        typer.echo(line)
    tell(out, len(finished.records), num, len(drawn.samples), finished.absent, finished.unrelaxed)


def tell(out: Path, written: int, num: int, drawn: int, absent: int, unrelaxed: int) -> None:
    """Says on standard error what was written, and what was not."""
    if absent:
        console.report(f"{absent} samples are not atoms at all and were not written")
    if unrelaxed:
        console.report(f"{unrelaxed} valid molecules could not be relaxed; their tag `relaxed` says why")
    if written + absent < num:
        console.report(f"only {written} of {num} were found in {drawn} samples; raise --at-most or --steps")
    console.report(f"wrote {written} molecules to {out}")
