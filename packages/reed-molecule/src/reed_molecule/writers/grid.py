"""A PNG picture of molecules in two dimensions, in a grid; hydrogens are left out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D
from reed_core.errors import InputError
from reed_core.files import write_with

from reed_molecule.build import Failure, rdkit_of
from reed_molecule.molecule import Molecule

MOST = 400


def write_grid(
    path: Path | str,
    molecules: Sequence[Molecule],
    legends: Sequence[str] | None = None,
    columns: int = 5,
    size: int = 240,
) -> None:
    """Draws molecules; one that RDKit refuses is a cell that says so.

    Args:
        path: The PNG file.
        molecules: What to draw, by rows; at most 400.
        legends: A line under each; None takes the names.
        columns: Cells in a row.
        size: Width and height of a cell, pixels.

    Raises:
        InputError: If there is nothing to draw, too much, or the legends do not fit; if the file cannot be written.
    """
    legends = [molecule.name for molecule in molecules] if legends is None else legends
    if not molecules or len(molecules) > MOST or columns < 1 or size < 1:
        raise InputError(f"a grid of {len(molecules)} molecules in {columns} columns; expected 1 to {MOST} molecules")
    if len(legends) != len(molecules):
        raise InputError(f"{len(legends)} legends for {len(molecules)} molecules; expected one for each")
    cells = [_flat(molecule) for molecule in molecules]
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    canvas = rdMolDraw2D.MolDraw2DCairo(columns * size, rows * size, size, size)
    options: Any = canvas.drawOptions()
    options.legendFontSize, options.drawMolsSameScale, options.padding = 14, False, 0.08
    with rdBase.BlockLogs():
        canvas.DrawMolecules(cells, legends=list(legends))
    canvas.FinishDrawing()
    content = canvas.GetDrawingText()
    write_with(path, lambda aside: aside.write_bytes(content))


def _flat(molecule: Molecule) -> Chem.Mol:
    found = rdkit_of(molecule)
    if isinstance(found, Failure):
        return _note("not valid")
    with rdBase.BlockLogs():
        flat = Chem.RemoveHs(found)
        rdDepictor.Compute2DCoords(flat)
        return rdMolDraw2D.PrepareMolForDrawing(flat, addChiralHs=False)


def _note(text: str) -> Chem.Mol:
    """A molecule of one dummy atom whose label is the text."""
    note = Chem.RWMol()
    note.AddAtom(Chem.Atom(0))
    note.GetAtomWithIdx(0).SetProp("atomLabel", text)
    note.UpdatePropertyCache()
    rdDepictor.Compute2DCoords(note)
    return note.GetMol()
