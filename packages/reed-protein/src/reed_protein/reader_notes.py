"""What a reader tells the person: one short line for each thing it mapped, chose, placed or left out."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from reed_protein import residues
from reed_protein.atom_table import BLANK_CHAIN, AtomTable
from reed_protein.conformer import Residue
from reed_protein.structure import Structure

OTHER_CHAIN = "residue of a chain not read"
_LISTED = 5
# Engh & Huber: N-CA 1.46 A, CA-C 1.53 A; a bond this far off is worth a note.
_IDEAL_BONDS = np.array([1.46, 1.53])
_ODD_BOND = 0.3


def notes(
    structure: Structure, table: AtomTable, kept: Sequence[Residue], broken: Sequence[Residue], others: Counter[str]
) -> list[str]:
    """The notes on a structure.

    Args:
        structure: The structure itself.
        table: The atoms it was made of.
        kept: Its residues, in its order.
        broken: Residues left out because N, CA or C is missing.
        others: What else the file holds: counts by name.
    """
    lines = []
    if table.models > 1:
        which = "the first" if table.model == 1 else f"number {table.model}"
        lines.append(f"{which} of {table.models} models is read")
    if BLANK_CHAIN in structure.chains:
        lines.append(f"the chain whose id the file leaves blank is called {BLANK_CHAIN}")
    alternatives = [residue.id for residue in kept if residue.conformer.alternatives > 1]
    if alternatives:
        lines.append(f"alternate locations, the one of highest occupancy is read: {listed(alternatives)}")
    lines += _mapped(structure, kept)
    zero = [residue.id for residue in kept if residue.conformer.zero_occupancy]
    if zero:
        lines.append(f"backbone atoms of zero occupancy are kept: {listed(zero)}")
    placed = [residue.id for residue in kept if "O" not in residue.conformer.atoms]
    if placed:
        lines.append(f"O is missing and placed by ideal geometry: {listed(placed)}")
    if broken:
        lacking = [f"{residue.id} (no {', '.join(residue.conformer.missing)})" for residue in broken]
        lines.append(f"residues without N, CA or C are left out: {listed(lacking)}")
    lines += _chain_breaks(structure)
    odd = np.flatnonzero((np.abs(_bonds(structure.coords) - _IDEAL_BONDS) > _ODD_BOND).any(axis=1))
    if len(odd):
        ids = [structure.residue_ids[index] for index in odd]
        lines.append(f"odd bond lengths (N-CA or CA-C more than {_ODD_BOND} A off): {listed(ids)}")
    if others:
        lines.append(f"not seen by this model: {counted(others)}")
    return lines


def listed(items: Sequence[str]) -> str:
    """A few items by name and the number of all: `A1, A2, A3, A4, A5 and 12 more`."""
    if len(items) <= _LISTED:
        return ", ".join(items)
    return f"{', '.join(items[:_LISTED])} and {len(items) - _LISTED} more"


def counted(counts: Counter[str]) -> str:
    """Counts by name, commonest first: `88 waters, 2 ZN`."""
    plural = {"water": "waters", "nucleotide": "nucleotides", OTHER_CHAIN: "residues of chains not read"}
    return listed([f"{count} {plural.get(name, name) if count > 1 else name}" for name, count in counts.most_common()])


def _mapped(structure: Structure, kept: Sequence[Residue]) -> Iterable[str]:
    by_name: dict[str, list[str]] = {}
    for residue, letter in zip(kept, structure.sequence, strict=True):
        if residues.STANDARD.get(residue.conformer.residue) != letter:
            by_name.setdefault(f"{residue.conformer.residue or 'unnamed'} is read as {letter}", []).append(residue.id)
    return (f"{mapping}: {listed(ids)}" for mapping, ids in by_name.items())


def _chain_breaks(structure: Structure) -> Iterable[str]:
    ids, chains = structure.residue_ids, structure.chain_ids
    inside = [index for index in np.flatnonzero(structure.breaks) if index and chains[index] == chains[index - 1]]
    if inside:
        yield f"chain breaks: {listed([f'{ids[index - 1]} to {ids[index]}' for index in inside])}"


def _bonds(coords: Float[np.ndarray, "l 4 3"]) -> Float[np.ndarray, "l 2"]:
    return np.linalg.norm(np.diff(coords[:, :3], axis=1), axis=-1)
