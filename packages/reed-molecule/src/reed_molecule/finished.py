"""Writing what was drawn: relaxed if asked for, tagged, as a file of molecules and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reed_molecule.build import Failure
from reed_molecule.generated import Generated, named_tags
from reed_molecule.molecule import Molecule
from reed_molecule.outputs import write_molecules, write_picture
from reed_molecule.relax import Method, relaxed
from reed_molecule.writers.sdf import Tags


@dataclass(frozen=True)
class Record:
    """A molecule and its tags."""

    molecule: Molecule
    tags: Tags


@dataclass(frozen=True)
class Finished:
    """What is written.

    Attributes:
        records: Molecules and their tags, by number.
        absent: How many samples have no atoms to write.
        unrelaxed: How many valid molecules could not be relaxed.
    """

    records: list[Record]
    absent: int
    unrelaxed: int


def finish(
    kept: Sequence[Generated],
    asked: Tags,
    more: Sequence[Tags] | None = None,
    method: Method | None = None,
    fixed: Sequence[int] = (),
) -> Finished:
    """Prepares samples for writing.

    Args:
        kept: The samples.
        asked: Tags of all.
        more: Tags of each.
        method: How to relax the valid ones; None leaves all as drawn.
        fixed: Atoms that stay in place.
    """
    records: list[Record] = []
    absent = unrelaxed = 0
    for sample, own in zip(kept, more or [{}] * len(kept), strict=True):
        if isinstance(sample.item, Failure):
            absent += 1
            continue
        molecule, tags = sample.item, dict(named_tags(sample, asked)) | dict(own)
        if method is not None and not isinstance(sample.mol, Failure):
            found = relaxed(molecule, sample.mol, method, fixed)
            if isinstance(found, str):
                unrelaxed += 1
                tags["relaxed"] = f"no: {found}"
            else:
                molecule = found.molecule
                tags |= {
                    "relaxed": method,
                    "relaxed_kcal": round(found.gained, 3),
                    "relaxed_rmsd": round(found.moved, 4),
                    "relaxed_converged": found.converged,
                }
        records.append(Record(molecule, tags))
    return Finished(records, absent, unrelaxed)


def write_finished(finished: Finished, out: Path, grid: Path | None = None) -> None:
    """Writes the file of molecules, and the picture if one was asked for and there is something to show.

    Raises:
        InputError: If a file cannot be written, or there is nothing to draw.
    """
    molecules = [record.molecule for record in finished.records]
    tags = [record.tags for record in finished.records]
    if grid is not None:
        legends = [str(said.get("smiles", "not valid"))[:40] for said in tags]
        write_picture(grid, molecules, legends)
    write_molecules(out, molecules, tags)
