"""SDF files: one record for each molecule, its figures as tags. A name that ends in .gz is compressed.

A molecule that RDKit sanitises is written with a Kekule structure. One that it refuses is written as generated,
aromatic bonds as type 4 and nothing repaired, so that what was drawn can be looked at.
"""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

from rdkit import Chem, rdBase
from reed_core.errors import InputError
from reed_core.files import write_with

from reed_molecule.build import Failure, rdkit_of
from reed_molecule.molecule import Molecule

Tags = Mapping[str, str | int | float | bool]


def write_sdf(path: Path | str, molecules: Sequence[Molecule], tags: Sequence[Tags] | None = None) -> None:
    """Writes molecules and their tags.

    Args:
        path: The file, .sdf or .sdf.gz.
        molecules: What to write, in order.
        tags: One mapping for each molecule; None writes no tags.

    Raises:
        InputError: If the tags do not fit the molecules or the format, or the file cannot be written.
    """
    tags = [{}] * len(molecules) if tags is None else tags
    if len(tags) != len(molecules):
        raise InputError(f"{len(tags)} sets of tags for {len(molecules)} molecules; expected one for each")
    text = "".join(record(molecule, given) for molecule, given in zip(molecules, tags, strict=True))
    content = text.encode()
    if str(path).endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    write_with(path, lambda aside: aside.write_bytes(content))


def record(molecule: Molecule, tags: Tags) -> str:
    """One record of an SDF file, with its separator.

    Raises:
        InputError: If a name or tag does not fit on the lines that the format has for it.
    """
    if "\n" in molecule.name or "\r" in molecule.name:
        raise InputError(f"molecule name {molecule.name!r}: expected one line")
    found = rdkit_of(molecule)
    with rdBase.BlockLogs():
        if isinstance(found, Failure):
            block = Chem.MolToMolBlock(as_generated(molecule), kekulize=False)
        else:
            block = Chem.MolToMolBlock(found)
    lines = [block]
    for name, value in tags.items():
        text = str(value)
        if not name or any(sign in name for sign in "<>\r\n"):
            raise InputError(f"SDF tag {name!r}: expected a name of one line without < and >")
        if any(not line.strip() or line.startswith(("$$$$", ">")) for line in text.split("\n")) or "\r" in text:
            raise InputError(f"SDF tag {name}: a line of its value is empty or begins with $$$$ or >")
        lines.append(f">  <{name}>\n{text}\n\n")
    return "".join([*lines, "$$$$\n"])


def as_generated(molecule: Molecule) -> Chem.Mol:
    """An RDKit molecule of exactly these atoms and bonds, not sanitised."""
    mol = molecule.as_drawn()
    mol.SetProp("_Name", molecule.name)
    mol.UpdatePropertyCache(strict=False)
    return mol.GetMol()
