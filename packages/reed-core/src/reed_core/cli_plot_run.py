"""The command `plot-run`, which every program of a domain registers. Heavy imports stay inside the command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from reed_core import console


def register(app: typer.Typer) -> None:
    """Adds the command to a program."""
    app.command("plot-run")(plot_run)


def plot_run(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, one colour each.")],
    out: Annotated[
        Path | None, typer.Option(help="The PNG file; curves.png in the run's folder, or here for several runs.")
    ] = None,
    against: Annotated[
        Literal["samples", "steps", "hours"], typer.Option(help="The horizontal axis: samples, steps or hours.")
    ] = "samples",
    table: Annotated[bool, typer.Option("--table", help="Print the evaluations as a table instead.")] = False,
) -> None:
    """Draws the curves of runs: losses and their parts, evaluations, learning rate, speed and use of the device."""
    from reed_core.train import plot

    read = plot.read_runs(runs)
    if table:
        typer.echo(plot.table(read))
        return
    folder = runs[0] if runs[0].is_dir() else runs[0].parent
    place = out or (folder / "curves.png" if len(runs) == 1 else Path("curves.png"))
    plot.plot_runs(place, read, against)
    console.report(f"curves of {len(runs)} run{'s' * (len(runs) != 1)} in {place}")
