"""The atoms of one model of a structure file: the one form that both readers yield.

Every value is the text of the file. Numbers are made, and refused, in one place (`reed_protein.assemble`), and only for
atoms of the backbone: a water with a wrapped residue number is nobody's concern.
"""

from typing import NamedTuple

BLANK_CHAIN = "_"


class Atom(NamedTuple):
    """One atom as written.

    Attributes:
        chain: Author chain id; `BLANK_CHAIN` if the file leaves it blank.
        number: Author residue number.
        insertion: Insertion code or the empty string.
        residue: Residue name.
        name: Atom name (`CA`).
        altloc: Alternate location label or the empty string.
        x: Coordinate, angstrom.
        y: Coordinate, angstrom.
        z: Coordinate, angstrom.
        occupancy: Occupancy or the empty string.
        polymer: Whether the file places the atom in a polymer rather than among its ligands.
    """

    chain: str
    number: str
    insertion: str
    residue: str
    name: str
    altloc: str
    x: str
    y: str
    z: str
    occupancy: str
    polymer: bool


class AtomTable(NamedTuple):
    """The atoms of one of a file's models, in file order.

    Attributes:
        atoms: The atoms.
        models: How many models the file holds.
        notes: What the reader chose while reading.
        model: Which of them this is, from 1.
    """

    atoms: list[Atom]
    models: int
    notes: tuple[str, ...]
    model: int = 1
