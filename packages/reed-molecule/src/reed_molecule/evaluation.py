"""The table of `evaluate`: sets of molecules side by side, with real ones beside them if asked for.

Distances need a reference, and two samples of one distribution are not at distance 0. So with real molecules beside the
others the reference is halved: one half (even places) is the reference of every column, the other is the column `real`.
"""

from collections.abc import Container, Sequence
from pathlib import Path

from reed_core.errors import InputError

from reed_molecule.build import Failure
from reed_molecule.dataset import MoleculeSet
from reed_molecule.known import Known
from reed_molecule.metrics.report import evaluate, table
from reed_molecule.metrics.validity import identity_of_smiles
from reed_molecule.molecule import Molecule
from reed_molecule.readers.records import read_records
from reed_molecule.readers.source import text_of
from reed_molecule.splits import Split
from reed_molecule.stored import is_stored

Items = Sequence[Molecule | Failure]


def compared(
    columns: Sequence[tuple[str, Items]],
    reference: Sequence[Molecule] | None = None,
    *,
    real: bool = False,
    known: Container[str] | None = None,
    stereo: bool = False,
    strain: bool = True,
    posebusters: bool = False,
) -> str:
    """The table of some sets.

    Args:
        columns: Name and molecules of each set.
        reference: Real molecules to compare with.
        real: Whether half of them is a column of its own.
        known: Molecules trained on, by canonical SMILES without stereo.
        stereo: Whether uniqueness and novelty tell stereoisomers apart.
        strain: Whether molecules are relaxed for their strain.
        posebusters: Whether the fast checks of PoseBusters are run.

    Raises:
        InputError: If there is nothing to compare, or options do not go together.
    """
    if real and (reference is None or len(reference) < 2):
        raise InputError("--real needs real molecules, two at least; give them with --reference")
    if stereo and known is not None:
        raise InputError("molecules trained on are kept without stereo; leave --stereo out, or the known molecules")
    whole = list(columns)
    if real and reference is not None:
        whole, reference = [*whole, ("real", reference[1::2])], reference[::2]
    if not whole:
        raise InputError("nothing to evaluate: give files of molecules, or --weights to draw some")
    reports = [
        (name, evaluate(items, reference=reference, known=known, stereo=stereo, with_strain=strain,
                        with_posebusters=posebusters))
        for name, items in whole
    ]  # fmt: skip
    return table(reports)


def read_real(path: Path, split: Split | None, limit: int | None, workers: int, timeout: float) -> list[Molecule]:
    """Real molecules of a prepared set, or of any file that can be read; what is no molecule is left out.

    Args:
        path: The file.
        split: The split of a prepared set; None takes all of it.
        limit: How many, evenly spread over a prepared set, from the start of another file; None takes all.
        workers: Processes for files whose bonds have to be found.
        timeout: Seconds for one record there.

    Raises:
        InputError: If the file cannot be read, or holds no molecule.
    """
    if is_stored(path):
        whole = MoleculeSet.read(path, split)
        step = max(1, len(whole) // limit) if limit else 1
        return [whole[place] for place in range(0, len(whole), step)][:limit]
    if split is not None:
        raise InputError(f"{path} is not a prepared set and has no splits; leave --split out")
    items = [item for item in read_records(path, limit, 0, workers, timeout) if isinstance(item, Molecule)]
    if not items:
        raise InputError(f"{path} holds no molecule that can be read; give real molecules")
    return items


def read_known(path: Path) -> Known:
    """Known molecules of a list of SMILES, the first word of each line, or of a prepared set's training split.

    Raises:
        InputError: If there is none.
    """
    if is_stored(path):
        return Known.of(MoleculeSet.read(path, "train").identities)
    words = [line.split()[0] for line in text_of(path).splitlines() if line.strip()]
    names = [name for word in words if (name := identity_of_smiles(word)) is not None]
    if not names:
        raise InputError(f"{path} holds no SMILES; give a list of the molecules trained on, or a prepared set")
    return Known.of_smiles(names)
