"""Molecules around a fragment: scaffold inpainting, and linkers between pieces that keep their places to each other.

The kept atoms are the first atoms of every sample; `inpaint` imposes them along the chain. At the end a sample is
moved so that its kept atoms lie on the given ones, whose coordinates are then written as given: RMSD 0 without
superposition.

Stereo. A centre c of the fragment that lost at most one neighbour has kept its handedness if the sign of
    det(a - c, b - c, d - c),   a, b, d its last three neighbours, kept ones first
is that of the original, the new neighbour taking the place of the one that was dropped. A double bond whose
substituents are kept cannot change, as its coordinates do not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from rdkit import Chem
from reed_core.errors import InputError

from reed_molecule.build import Failure
from reed_molecule.fragment import Fragment
from reed_molecule.generate import Drawn, Generator, Request, Sizes
from reed_molecule.generated import Generated
from reed_molecule.inpaint import Given
from reed_molecule.model import MoleculeModel
from reed_molecule.molecule import Molecule

_CHIRAL = (Chem.ChiralType.CHI_TETRAHEDRAL_CW, Chem.ChiralType.CHI_TETRAHEDRAL_CCW)


@dataclass(frozen=True)
class Kept:
    """What became of the fragment in one sample.

    Attributes:
        rmsd: Of the kept atoms, angstrom, as they lie in the file, without superposition.
        stereo: Whether every centre of the fragment kept its handedness; None if it has none that can be followed.
        attached: Whether the kept atoms and all others are one molecule.
    """

    rmsd: float
    stereo: bool | None
    attached: bool

    def tags(self) -> dict[str, str | int | float | bool]:
        """What an SDF record says of it."""
        said: dict[str, str | int | float | bool] = {"kept_rmsd": self.rmsd, "attached": self.attached}
        return said if self.stereo is None else {**said, "stereo_kept": self.stereo}


def lines(outcomes: Sequence[Kept | None]) -> list[str]:
    """What became of a fragment in many samples, one figure a line."""
    there = [one for one in outcomes if one is not None]
    stereo = [one.stereo for one in there if one.stereo is not None]
    worst = max((one.rmsd for one in there), default=None)
    rows = [
        ("attached", f"{sum(one.attached for one in there):>7}  of {len(outcomes)}: one molecule with the kept atoms"),
        ("kept RMSD", f"{'-' if worst is None else f'{worst:.4f}':>7}  angstrom, the largest, without superposition"),
        ("stereo kept", f"{sum(stereo):>7}  of {len(stereo)} whose centres can be followed"),
    ]
    return [f"{name:<20}{text}" for name, text in rows]


def given_of(fragment: Fragment, model: MoleculeModel) -> Given:
    """The fragment as a model takes it.

    Raises:
        InputError: If the model does not know one of its elements or charges.
    """
    kept, vocabulary = fragment.kept, model.vocabulary
    types, charges = vocabulary.types_of(kept.numbers), vocabulary.charge_classes_of(kept.charges)
    bonds = torch.zeros(len(kept), len(kept), dtype=torch.long)
    for i, j, class_ in kept.bonds.tolist():
        bonds[i, j] = bonds[j, i] = class_
    place = torch.from_numpy(kept.positions.astype(np.float64))
    return Given(
        types=torch.from_numpy(types),
        coords=(place - place.mean(0)) / model.config.scale,
        charges=torch.from_numpy(charges),
        bonds=bonds,
        closed=torch.from_numpy(fragment.closed),
    )


def sizes_around(
    fragment: Fragment, trained: Mapping[int, int], add: Sizes | None = None, atoms: Sizes | None = None
) -> Sizes:
    """The numbers of atoms that a completion may have.

    Args:
        fragment: The fragment.
        trained: The training histogram, taken above the size of the fragment if nothing else is asked for.
        add: How many new atoms, hydrogens too.
        atoms: How many atoms in all, instead.

    Raises:
        InputError: If both are given, or a size leaves nothing to add.
    """
    k = len(fragment)
    if add is not None and atoms is not None:
        raise InputError("give the number of new atoms (--add) or of all atoms (--atoms), not both")
    if add is not None:
        return Sizes({k + count: weight for count, weight in add.counts.items()})
    if atoms is None:
        above = {size: count for size, count in trained.items() if size > k and count}
        if not above:
            raise InputError(f"{k} atoms are kept and the model was trained on up to {max(trained)}; give --add")
        return Sizes(above)
    if min(atoms.counts) <= k:
        raise InputError(f"{min(atoms.counts)} atoms with {k} kept ones leave nothing to add; expected more than {k}")
    return atoms


def complete(
    generator: Generator,
    fragment: Fragment,
    request: Request,
    add: Sizes | None = None,
    atoms: Sizes | None = None,
    progress: Callable[[int], None] | None = None,
) -> Drawn:
    """Draws molecules that hold a fragment.

    Args:
        generator: The model.
        fragment: What is kept.
        request: How many, steps, seed, resampling; its sizes and given part are set here.
        add: Numbers of new atoms, hydrogens too.
        atoms: Numbers of all atoms instead.
        progress: Called with the number of samples of each batch.

    Raises:
        InputError: If the model does not know the fragment's atoms, or there is no room for new ones.
    """
    if request.sizes is not None or request.formula is not None:
        raise InputError("a completion takes its sizes from the fragment; give --add or --atoms")
    sizes = sizes_around(fragment, generator.model.config.sizes, add, atoms)
    wanted = replace(request, given=given_of(fragment, generator.model), sizes=sizes)
    return generator.draw(wanted, progress, finish=lambda molecule: laid(molecule, fragment))


def laid(molecule: Molecule, fragment: Fragment) -> Molecule:
    """A sample moved onto its fragment, whose coordinates are written as given."""
    k = len(fragment)
    exact = molecule.positions.astype(np.float64)
    exact += fragment.kept.positions.astype(np.float64).mean(0) - exact[:k].mean(0)
    exact[:k] = fragment.kept.positions
    return replace(molecule, positions=exact.astype(np.float32))


def kept_in(sample: Generated, fragment: Fragment) -> Kept | None:
    """What became of the fragment; None if the sample has no atoms."""
    if isinstance(sample.item, Failure):
        return None
    k, molecule = len(fragment), sample.item
    apart = molecule.positions[:k].astype(np.float64) - fragment.kept.positions.astype(np.float64)
    around = _neighbours(molecule)
    seen, todo = {0}, [0]
    while todo:
        for other in around[todo.pop()]:
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return Kept(
        rmsd=float(np.sqrt(np.square(apart).sum(1).mean())),
        stereo=_stereo(molecule, fragment, around),
        attached=len(seen) == len(molecule),
    )


def _stereo(molecule: Molecule, fragment: Fragment, around: Sequence[Sequence[int]]) -> bool | None:
    """Whether followed centres kept their handedness."""
    row = {int(place): k for k, place in enumerate(fragment.places)}
    old = fragment.whole.GetConformer().GetPositions()
    outcomes = []
    for atom in fragment.whole.GetAtoms():
        if atom.GetChiralTag() not in _CHIRAL or atom.GetIdx() not in row:
            continue
        neighbours = [other.GetIdx() for other in atom.GetNeighbors()]
        stayed = [place for place in neighbours if place in row]
        lost = [place for place in neighbours if place not in row]
        centre = row[atom.GetIdx()]
        new = [place for place in around[centre] if place >= len(fragment)]
        if len(lost) > 1:
            continue
        if len(lost) != len(new):
            outcomes.append(False)
            continue
        before = _handedness(old, atom.GetIdx(), [*stayed, *lost])
        after = _handedness(molecule.positions, centre, [*(row[place] for place in stayed), *new])
        outcomes.append(before == after)
    return all(outcomes) if outcomes else None


def _handedness(positions: np.ndarray, centre: int, neighbours: Sequence[int]) -> bool:
    """The sign of the volume of the last three neighbours: it changes with the last one's side."""
    arms = positions[list(neighbours)[-3:]].astype(np.float64) - positions[centre]
    return bool(np.linalg.det(arms) > 0)


def _neighbours(molecule: Molecule) -> list[list[int]]:
    around: list[list[int]] = [[] for _ in range(len(molecule))]
    for i, j, _ in molecule.bonds.tolist():
        around[i].append(j)
        around[j].append(i)
    return [sorted(some) for some in around]
