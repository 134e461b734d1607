"""The command `evaluate`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer
from reed_core.cli_options import Device, Quiet, Threads

from reed_molecule.cli_options import Temperature, Timeout, Workers


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("evaluate")(evaluate)


def evaluate(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Generated molecules: SDF, or any format `prepare` reads.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Real molecules to compare with: a prepared set, or any file.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a prepared reference: train, valid or test.")] = None,
    real: Annotated[bool, typer.Option("--real", help="Half of the reference as a column beside.")] = False,
    known: Annotated[
        Path | None, typer.Option(help="Molecules trained on, for novelty: SMILES, or a prepared set.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights: what they were trained on is known. Without files, draws from them.")
    ] = None,
    num: Annotated[int, typer.Option(help="Molecules to draw.")] = 1000,
    steps: Annotated[int, typer.Option(help="Steps of each.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the drawing.")] = 0,
    temperature: Temperature = 1.0,
    posebusters: Annotated[
        bool, typer.Option("--posebusters", help="Run its fast checks (extra posebusters of reed-molecule).")
    ] = False,
    strain: Annotated[bool, typer.Option("--strain/--no-strain", help="Relax molecules to measure strain.")] = True,
    stereo: Annotated[bool, typer.Option("--stereo", help="Stereoisomers are different molecules.")] = False,
    charge: Annotated[int, typer.Option(help="Total charge of every molecule of an XYZ file.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Molecules to take of each file.")] = None,
    workers: Workers = 1,
    timeout: Timeout = 30.0,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Prints every metric of sets of molecules, by the name of its convention, side by side.

    Records of an SDF are judged as they stand: nothing is repaired, and a missing hydrogen is an unpaired electron.
    """
    from reed_core.device import use_device
    from reed_core.errors import InputError

    from reed_molecule.bar import drawing
    from reed_molecule.evaluation import Items, compared, read_known, read_real
    from reed_molecule.generate import Request, load, weights_folder
    from reed_molecule.known import Known
    from reed_molecule.readers.records import read_records
    from reed_molecule.splits import SPLITS

    side = next((one for one in SPLITS if one == split), None)
    if split is not None and side is None:
        raise InputError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    if split is not None and reference is None:
        raise InputError("--split is that of a prepared set; give it with --reference")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: expected at least 1")
    seen = None if known is None else read_known(known)
    columns: list[tuple[str, Items]] = [
        (path.name, read_records(path, limit, charge, workers, timeout)) for path in files or ()
    ]
    if weights is not None and not files:
        request = Request(num, steps, seed, temperature=temperature)
        generator = load(weights, use_device(device, threads))
        seen = generator.known if seen is None else seen
        with drawing(num, quiet) as progress:
            drawn = generator.draw(request, progress)
        columns.append((f"{Path(weights).name}, {steps} steps", [sample.item for sample in drawn.samples]))
    elif weights is not None and seen is None:
        seen = Known.read(weights_folder(weights))
    truth = None if reference is None else read_real(reference, side, limit, workers, timeout)
    typer.echo(compared(columns, truth, real=real, known=seen, stereo=stereo, strain=strain, posebusters=posebusters))
