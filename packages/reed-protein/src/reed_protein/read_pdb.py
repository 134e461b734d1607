"""The PDB format's fixed columns, read into an `AtomTable`.

Columns are read here rather than through Bio.PDB's parser: it merges or drops residues that share a number, keeps one
altloc per atom rather than per residue, stops at the first CONECT or END of joined files, and does not tell a modified
residue of the chain from a ligand behind the TER record. Columns of an ATOM line (from 1): name 13-16, altloc 17,
residue 18-20 (21 too when force fields write four letters), chain 22, number 23-26, insertion code 27, x y z 31-54,
occupancy 55-60.

A HETATM belongs to the polymer if its chain's last TER record is still to come. A blank chain id becomes `_`. MODEL and
ENDMDL part the models; END does not, because joined files carry one in the middle.
"""

import re

from reed_core.errors import InputError

from reed_protein.atom_table import BLANK_CHAIN, Atom, AtomTable
from reed_protein.structure_file import StructureText

_ATOM_LINE = re.compile(r"ATOM[ \d]{2}|HETATM")


def atoms(source: StructureText, model: int = 1) -> AtomTable:
    """The atoms of one model of a PDB file; none if it has fewer.

    Args:
        source: The file.
        model: Which model, from 1 in the order of the file.

    Raises:
        InputError: If an atom's line ends before its coordinates do.
    """
    lines: list[tuple[int, str]] = []
    last_ter: dict[str, int] = {}
    models, in_model = 0, False
    chain = " "
    for number, line in enumerate(source.text.split("\n"), start=1):
        record = line[:6].rstrip()
        if record in ("MODEL", "ENDMDL"):
            in_model = False
        elif record == "TER":
            if models == model:
                last_ter[line[21] if len(line) > 21 else chain] = number
        elif _ATOM_LINE.match(line):
            if not in_model:
                in_model = True
                models += 1
            if models == model:
                lines.append((number, line))
                chain = line[21:22]
    table = [_atom(source.name, number, line, last_ter) for number, line in lines]
    return AtomTable(table, models, (), model)


def _atom(name: str, number: int, line: str, last_ter: dict[str, int]) -> Atom:
    if len(line.rstrip()) < 54:
        raise InputError(
            f"line {number} of {name} has {len(line.rstrip())} columns, an atom has coordinates in columns 31-54; "
            "the file is cut short or not in PDB columns, fetch it again"
        )
    chain = line[21]
    return Atom(
        chain=BLANK_CHAIN if chain == " " else chain,
        number=line[22:26].strip(),
        insertion=line[26].strip(),
        residue=line[17:21].strip(),
        name=line[12:16].strip(),
        altloc=line[16].strip(),
        x=line[30:38].strip(),
        y=line[38:46].strip(),
        z=line[46:54].strip(),
        occupancy=line[54:60].strip(),
        polymer=line[0] == "A" or number < last_ter.get(chain, 0),
    )
