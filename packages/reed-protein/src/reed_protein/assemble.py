"""From a table of atoms to a `Structure`: which residues the model sees, and a note for everything it does not.

Kept: every residue of a polymer with N, CA and C, in file order, chain by chain. Modified residues stand for their
parent, other amino acids become X; a HETATM outside its chain's polymer is kept only if a peptide bond (C-N <= 2.0 A)
ties it to another residue of its chain. Left out and counted: residues without N, CA or C, waters, ligands, ions,
nucleotides, and all models but one. Kept and noted: atoms of zero occupancy, odd bond lengths. A missing O is
placed by `oxygen.place_oxygen`. Refused: CA-only chains, coordinates that are not finite or reach 9999 A (a placeholder
of old programs), a residue given twice, fewer than two residues. Atoms that the model does not see are not checked.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from reed_core.errors import InputError

from reed_protein import reader_notes, residues
from reed_protein.atom_table import Atom, AtomTable
from reed_protein.conformer import BACKBONE, Kind, Residue, choose, kind
from reed_protein.oxygen import place_oxygen
from reed_protein.structure import LINK_ANGSTROM, MIN_RESIDUES, Structure, Unseen, check_chains

PLACEHOLDER_ANGSTROM = 9999.0
_SHORTEST_BOND = 0.1


class _Sorted(NamedTuple):
    amino_acids: dict[tuple[str, str, str], list[list[Atom]]]
    others: Counter[str]
    molecules: list[tuple[str, list[Atom]]]


def structure(name: str, table: AtomTable, chains: Sequence[str] | None) -> Structure:
    """The backbone of a table of atoms.

    Args:
        name: The structure's name, for it and for messages.
        table: One model of a file.
        chains: Author chain ids to keep; all if None.

    Raises:
        InputError: As the module says.
    """
    if not table.atoms:
        raise InputError(f"{name} has no atoms, only a header; give a file with a model of a protein in it")
    found = _sort(table.atoms)
    there = tuple(dict.fromkeys(chain for chain, _, _ in found.amino_acids))
    if not there:
        rest = reader_notes.counted(found.others)
        raise InputError(f"{name} has no protein, only {rest}; give a file with a protein chain in it")
    wanted = frozenset(there) if chains is None else check_chains(name, chains, there)
    chosen = [groups for key, groups in found.amino_acids.items() if key[0] in wanted]
    positions = [_residue(key, groups) for key, groups in found.amino_acids.items() if key[0] in wanted]
    whole = [residue for residue in positions if not residue.conformer.missing]
    xyz = _coordinates(whole)
    bonded = _bonded(whole, xyz)
    ligands = [residue for residue, link in zip(whole, bonded, strict=True) if not (residue.polymer or link)]
    rank = {chain: index for index, chain in enumerate(there)}
    order = [index for index, residue in enumerate(whole) if residue.polymer or bonded[index]]
    order.sort(key=lambda index: rank[whole[index].chain])
    kept, xyz = [whole[index] for index in order], xyz[order]
    broken = [residue for residue in positions if residue.conformer.missing and residue.polymer]
    if chains is not None:
        for chain in sorted(wanted, key=rank.__getitem__):
            kept_here = [residue for residue in kept if residue.chain == chain]
            broken_here = [residue for residue in broken if residue.chain == chain]
            _check_enough(f"chain {chain} of {name}", kept_here, broken_here, 1)
    _check_enough(name, kept, broken, MIN_RESIDUES)
    _check_unique(kept)
    _check_bonds(kept, xyz)

    letters = [residues.one_letter(residue.conformer.residue) or residues.UNKNOWN for residue in kept]
    result = Structure(
        name=name,
        coords=_with_oxygen(kept, xyz).astype(np.float32),
        sequence="".join(letters),
        chain_ids=tuple(residue.chain for residue in kept),
        residue_ids=tuple(residue.id for residue in kept),
        residue_numbers=np.array([residue.number for residue in kept], dtype=np.int32),
    )
    others = found.others + Counter(residue.conformer.residue for residue in ligands)
    left_out = {residue.id for residue in ligands}
    unseen = _unseen(found.molecules)
    for (chain, _, _), groups in found.amino_acids.items():
        if chain not in wanted:
            unseen += _unseen((reader_notes.OTHER_CHAIN, group) for group in groups)
    for residue, groups in zip(positions, chosen, strict=True):
        if residue.id in left_out:
            unseen += _unseen((residue.conformer.residue, group) for group in groups)
    notes = (*table.notes, *reader_notes.notes(result, table, kept, broken, others))
    return replace(result, notes=notes, unseen=tuple(unseen))


def _sort(atoms: Sequence[Atom]) -> _Sorted:
    groups: dict[tuple[str, str, str, str], list[Atom]] = {}
    runs: Counter[tuple[str, str, str, str]] = Counter()
    last = None
    for atom in atoms:
        key = (atom.chain, atom.number, atom.insertion, atom.residue)
        groups.setdefault(key, []).append(atom)
        if key != last:
            runs[key] += 1
            last = key
    amino_acids: dict[tuple[str, str, str], list[list[Atom]]] = {}
    others: Counter[str] = Counter()
    molecules: list[tuple[str, list[Atom]]] = []
    for key, group in groups.items():
        match kind(group):
            case Kind.AMINO_ACID:
                amino_acids.setdefault(key[:3], []).append(group)
            case Kind.WATER:
                others["water"] += runs[key]
            case Kind.NUCLEOTIDE:
                others["nucleotide"] += 1
                molecules.append(("nucleotide", group))
            case Kind.OTHER:
                others[key[3] or "unnamed"] += 1
                molecules.append((key[3] or "unnamed", group))
    return _Sorted(amino_acids, others, molecules)


def _unseen(molecules: Iterable[tuple[str, list[Atom]]]) -> list[Unseen]:
    """Molecules with those of their atoms that have a place; what cannot be read there is nobody's concern."""
    found = []
    for name, atoms in molecules:
        points = [point for atom in atoms if (point := _place(atom)) is not None]
        if points:
            found.append(Unseen(name, np.array(points, dtype=np.float32)))
    return found


def _place(atom: Atom) -> tuple[float, float, float] | None:
    try:
        point = float(atom.x), float(atom.y), float(atom.z)
    except ValueError:
        return None
    return point if all(abs(value) < PLACEHOLDER_ANGSTROM for value in point) else None


def _residue(key: tuple[str, str, str], groups: list[list[Atom]]) -> Residue:
    chain, text, insertion = key
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise InputError(
            f"residue {groups[0][0].residue} of chain {chain} is numbered '{text}'; "
            "an author residue number is an integer: renumber the residues"
        )
    number = int(text)
    full = residues.residue_id(chain, number, insertion)
    if not re.fullmatch(r"[A-Za-z]?", insertion):
        raise InputError(f"residue {full} has insertion code '{insertion}', it must be one letter; renumber it")
    polymer = any(atom.polymer for group in groups for atom in group)
    return Residue(chain, number, full, polymer, choose(full, groups))


def _coordinates(whole: Sequence[Residue]) -> Float64[np.ndarray, "l 3 3"]:
    """N, CA and C of whole residues."""
    xyz = np.empty((len(whole), 3, 3))
    for index, residue in enumerate(whole):
        for place, name in enumerate(BACKBONE):
            xyz[index, place] = _point(residue, name)
    return xyz


def _point(residue: Residue, name: str) -> tuple[float, float, float]:
    atom = residue.conformer.atoms[name]
    point = _place(atom)
    if point is None:
        raise InputError(
            f"atom {atom.name} of residue {residue.id} is at ({atom.x}, {atom.y}, {atom.z}); "
            f"expected three finite numbers below {PLACEHOLDER_ANGSTROM:.0f} angstrom: correct or delete that residue"
        )
    return point


def _bonded(whole: Sequence[Residue], xyz: Float64[np.ndarray, "l 3 3"]) -> list[bool]:
    """Whether a peptide bond ties each residue that is not in a polymer to another one of its chain."""
    chains = np.array([residue.chain for residue in whole])
    bonded = []
    for index, residue in enumerate(whole):
        if residue.polymer:
            bonded.append(True)
            continue
        same = chains == residue.chain
        same[index] = False
        before = np.linalg.norm(xyz[same, 2] - xyz[index, 0], axis=-1)
        after = np.linalg.norm(xyz[same, 0] - xyz[index, 2], axis=-1)
        bonded.append(bool(((before <= LINK_ANGSTROM) | (after <= LINK_ANGSTROM)).any()))
    return bonded


def _with_oxygen(kept: Sequence[Residue], xyz: Float64[np.ndarray, "l 3 3"]) -> Float64[np.ndarray, "l 4 3"]:
    full = np.empty((len(kept), 4, 3))
    full[:, :3] = xyz
    for index, residue in enumerate(kept):
        if "O" in residue.conformer.atoms:
            full[index, 3] = _point(residue, "O")
        else:
            n, ca, c = xyz[index]
            full[index, 3] = place_oxygen(n, ca, c, xyz[index + 1, 0] if _linked(kept, xyz, index) else None)
    return full


def _linked(kept: Sequence[Residue], xyz: Float64[np.ndarray, "l 3 3"], index: int) -> bool:
    """Whether a residue is bonded to the next one."""
    if index + 1 == len(kept) or kept[index].chain != kept[index + 1].chain:
        return False
    return bool(np.linalg.norm(xyz[index, 2] - xyz[index + 1, 0]) <= LINK_ANGSTROM)


def _check_enough(name: str, kept: Sequence[Residue], broken: Sequence[Residue], least: int) -> None:
    if len(kept) >= least:
        return
    if not kept and broken and all(residue.conformer.missing == ["N", "C"] for residue in broken):
        raise InputError(
            f"{name} has CA atoms only ({len(broken)} residues); CA-only input is not supported by this model: "
            "give N, CA and C of each residue, for example by rebuilding the backbone"
        )
    count = len(kept) + len(broken)
    whole = f"{len(kept)} of them ({kept[0].id})" if kept else "none of them"
    raise InputError(
        f"{name} has {count} protein residue{'s' * (count != 1)}, {whole} with N, CA and C; "
        f"this model needs {least} or more: give a larger or more complete structure"
    )


def _check_unique(kept: Sequence[Residue]) -> None:
    for full, count in Counter(residue.id for residue in kept).items():
        if count > 1:
            raise InputError(f"residue {full} is given {count} times; give each chain an id of its own")


def _check_bonds(kept: Sequence[Residue], xyz: Float64[np.ndarray, "l 3 3"]) -> None:
    short = np.flatnonzero((_bonds(xyz) < _SHORTEST_BOND).any(axis=1))
    if len(short):
        raise InputError(
            f"atoms N, CA and C of residue {kept[short[0]].id} lie on one another; "
            "correct its coordinates or delete that residue"
        )


def _bonds(xyz: Float64[np.ndarray, "l 3 3"]) -> Float64[np.ndarray, "l 2"]:
    return np.linalg.norm(np.diff(xyz, axis=1), axis=-1)
