"""PDB files: HETATM and CONECT records, a MODEL for each molecule where there are several.

The format has three decimals, no formal bond classes and columns of fixed width; SDF keeps more.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rdkit import Chem
from reed_core.errors import InputError
from reed_core.files import write_text

from reed_molecule.molecule import Molecule

_LOWEST, _HIGHEST, _MOST_ATOMS = -999.999, 9999.999, 99_999


def write_pdb(path: Path | str, molecules: Sequence[Molecule]) -> None:
    """Writes molecules to a PDB file.

    Args:
        path: The file.
        molecules: One, or a MODEL for each.

    Raises:
        InputError: If atoms or coordinates do not fit the columns of the format, or the file cannot be written.
    """
    bodies = [_body(molecule) for molecule in molecules]
    if len(bodies) != 1:
        bodies = [f"MODEL     {k:4d}\n{body}ENDMDL\n" for k, body in enumerate(bodies, start=1)]
    write_text(path, "".join(bodies) + "END\n")


def _body(molecule: Molecule) -> str:
    positions = molecule.positions
    if len(molecule) > _MOST_ATOMS or (positions.size and not _fits(positions)):
        label = molecule.name or "a molecule"
        raise InputError(f"{label} does not fit a PDB file (99,999 atoms, -999.999 to 9999.999 angstrom); write SDF")
    table = Chem.GetPeriodicTable()
    counts: dict[str, int] = {}
    lines = []
    for k, (number, charge) in enumerate(zip(molecule.numbers.tolist(), molecule.charges.tolist(), strict=True)):
        symbol = table.GetElementSymbol(number)
        counts[symbol] = counts.get(symbol, 0) + 1
        label = f"{symbol.upper()}{counts[symbol]}"[:4]
        name = label.ljust(4) if len(label) == 4 or len(symbol) == 2 else f" {label}".ljust(4)
        x, y, z = positions[k].tolist()
        sign = f"{abs(charge)}{'-' if charge < 0 else '+'}" if charge else "  "
        lines.append(
            f"HETATM{k + 1:5d} {name} UNL A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          "
            f"{symbol.upper():>2}{sign}"
        )
    around: dict[int, list[int]] = {}
    for i, j, _ in molecule.bonds.tolist():
        around.setdefault(i, []).append(j)
        around.setdefault(j, []).append(i)
    for i in sorted(around):
        ends = sorted(around[i])
        for start in range(0, len(ends), 4):
            lines.append(f"CONECT{i + 1:5d}" + "".join(f"{j + 1:5d}" for j in ends[start : start + 4]))
    return "".join(line + "\n" for line in lines)


def _fits(positions: np.ndarray) -> bool:
    return bool(np.isfinite(positions).all() and positions.min() > _LOWEST and positions.max() < _HIGHEST)
