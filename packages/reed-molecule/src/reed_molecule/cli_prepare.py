"""The command `prepare`. Heavy imports stay inside the command, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer
from reed_core import console
from reed_core.cli_options import Quiet

from reed_molecule.cli_options import Timeout, Workers


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("prepare")(prepare)


def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="SDF, XYZ, SMILES, EDM npz or npy files, folders of XYZ; train=FILE names its split; qm9 is fetched."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The prepared set to write.")],
    elements: Annotated[
        str | None, typer.Option(help="qm9, drugs, or elements as H,C,N,O; drugs by default, qm9 for qm9.")
    ] = None,
    charges: Annotated[str | None, typer.Option(help="Formal charges to keep, as -1,0,1.")] = None,
    split: Annotated[
        str | None, typer.Option(help="edm or midi: the published splits of QM9. Otherwise by hash of the molecule.")
    ] = None,
    shares: Annotated[str | None, typer.Option(help="Parts of train, valid and test, as 0.9,0.05,0.05.")] = None,
    geometry: Annotated[
        str | None, typer.Option(help="Where coordinates come from: dft-b3lyp, mmff94s or file. They never mix.")
    ] = None,
    add_hydrogens: Annotated[bool, typer.Option("--add-hydrogens", help="Place hydrogens that an SDF lacks.")] = False,
    property_: Annotated[
        list[str] | None,
        typer.Option("--property", help="Property to keep, a data field of an SDF or an array of an npz; repeat it."),
    ] = None,
    charge: Annotated[int, typer.Option(help="Total charge of every molecule of an XYZ file.")] = 0,
    conformers: Annotated[int, typer.Option(help="Conformers made of a SMILES; the lowest is kept.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the embedding of SMILES.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Records to read of each file.")] = None,
    raw: Annotated[Path, typer.Option(help="Folder of QM9's own files.")] = Path("qm9-raw"),
    workers: Workers = 1,
    timeout: Timeout = 30.0,
    quiet: Quiet = False,
) -> None:
    """Makes a set to train on: reads molecules, counts what is dropped and why, splits by molecule, writes one file.

    Molecules that are in two splits stay in the last of train, valid, test. OUT.dropped.tsv lists what was not used.
    """
    from reed_molecule.collect import Wanted, checked_geometry, collect, read_shares, read_vocabulary
    from reed_molecule.prepare import prepare as make

    vocabulary = read_vocabulary(elements or ("qm9" if list(sources) == ["qm9"] else "drugs"), charges)
    parts = None if shares is None else read_shares(shares)
    wanted = Wanted(
        geometry=checked_geometry(geometry),
        seed=seed,
        conformers=conformers,
        charge=charge,
        add_hydrogens=add_hydrogens,
        limit=limit,
        split=split,
        raw=raw,
        properties=tuple(property_ or ()),
        quiet=quiet,
    )
    done = make(collect(sources, wanted), out, vocabulary, parts, workers, timeout, quiet)
    for name, count in done.molecules.items():
        typer.echo(f"{name:<12}{count:>8}")
    typer.echo(f"{'distinct':<12}{done.distinct:>8}")
    for reason, count in done.dropped.items():
        typer.echo(f"{'dropped':<12}{count:>8}  {reason}")
    console.report(f"wrote {done.path} and {done.path.name}.dropped.tsv")
