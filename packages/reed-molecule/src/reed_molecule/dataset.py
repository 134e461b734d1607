"""Sets of molecules and their training batches: size buckets, centred coordinates, random rotations.

A batch is what a product process takes. Coordinates are in angstrom / scale with the mean of the real atoms at zero;
the rotation is uniform on SO(3), from a normal quaternion (no reflection: it would change chirality), keyed by the
sample, whatever its batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.train import Batch
from reed_core.train.order import groups, shuffler
from torch import Tensor

from reed_molecule.condition import Condition, Property, standardised
from reed_molecule.cuts import random_kept
from reed_molecule.molecule import Molecule
from reed_molecule.part import Part
from reed_molecule.splits import SPLITS, Split
from reed_molecule.stored import STEP, Stored, joined, read
from reed_molecule.vocabulary import Vocabulary


@dataclass(frozen=True)
class MoleculeSet:
    """Molecules of one geometry, read when asked for.

    Attributes:
        stored: The arrays.
    """

    stored: Stored

    @classmethod
    def read(cls, path: Path | str, split: Split | None = None) -> "MoleculeSet":
        """Maps a prepared file.

        Args:
            path: The file.
            split: The split to take; None takes all.

        Raises:
            InputError: If there is no such file, or it has no molecule in this split.
        """
        whole = cls(read(path))
        return whole if split is None else whole.of(split)

    @classmethod
    def join(cls, sets: Sequence["MoleculeSet"]) -> "MoleculeSet":
        """One set of several, in memory.

        Raises:
            InputError: If their geometry or vocabulary differ.
        """
        return cls(joined([one.stored for one in sets]))

    def of(self, split: Split) -> "MoleculeSet":
        """The molecules of one split, in memory.

        Raises:
            InputError: If there are none.
        """
        if split not in SPLITS:
            raise InputError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        items = np.flatnonzero(self.stored.split == SPLITS.index(split))
        if not len(items):
            raise InputError(f"no molecule is in the split {split!r} of this set; prepare it with another split")
        return MoleculeSet(self.stored.chosen(items))

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, item: int) -> Molecule:
        if not -len(self) <= item < len(self):
            raise IndexError(f"molecule {item} of {len(self)}")
        return self.stored.molecule(item % len(self))

    def __iter__(self) -> Iterator[Molecule]:
        return (self.stored.molecule(item) for item in range(len(self)))

    @property
    def vocabulary(self) -> Vocabulary:
        """Elements and charges the set may hold."""
        return self.stored.about.vocabulary

    @property
    def geometry(self) -> str:
        """Where the coordinates come from: `dft-b3lyp`, `mmff94s` or `file`."""
        return self.stored.about.geometry

    @property
    def fingerprint(self) -> str:
        """Changes whenever a molecule does."""
        return self.stored.fingerprint

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " n"]:
        """Atoms of each molecule."""
        return self.stored.sizes

    @property
    def identities(self) -> Int64[np.ndarray, " n"]:
        """Hashes of the canonical SMILES without stereo (`splits.identity`)."""
        return self.stored.identities

    def property_values(self, names: Sequence[str]) -> Float64[np.ndarray, "n p"]:
        """Properties of each molecule, a column a name; NaN where unknown.

        Raises:
            InputError: If the set has no such property.
        """
        return self.stored.properties.columns(names)

    def property_of(self, name: str) -> Property:
        """A property as a model of this set is told it.

        Raises:
            InputError: If the set has no such property, or its values do not differ.
        """
        values = self.property_values([name])[:, 0]
        return Property.of(name, self.stored.properties.units[name], values)

    def spread(self) -> float:
        """Standard deviation of all coordinates about the centres of their molecules, angstrom: a natural scale."""
        if not len(self.stored.numbers):
            raise InputError("an empty set of molecules has no spread")
        place = np.asarray(self.stored.positions, dtype=np.float64)
        return float(np.sqrt(np.square(place).mean()) * STEP)


@dataclass(frozen=True)
class TrainingData:
    """A `DataSource` over molecules: every molecule of an epoch in exactly one batch, sizes alike in each.

    Attributes:
        molecules: The molecules.
        seed: Seeds the order.
        pairs: Largest b n^2 of a batch, n its largest molecule (a larger molecule makes a batch of its own).
        scale: Angstrom of one model unit.
        rotate: Whether each molecule is turned at random.
        conditions: Properties of the molecules that a batch tells.
        parts: Share of the molecules of which a part is given (`cuts`); 0 gives none.
    """

    molecules: MoleculeSet
    seed: int
    pairs: int
    scale: float = 1.0
    rotate: bool = True
    conditions: tuple[Property, ...] = ()
    parts: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.molecules):
            raise InputError("a set without molecules cannot train a model; prepare another one")
        if self.pairs < 1 or not 0 < self.scale < float("inf"):
            raise InputError(f"pairs {self.pairs}, scale {self.scale}: expected positive numbers")
        self.molecules.property_values([one.name for one in self.conditions])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the molecules."""
        return self.molecules.fingerprint

    def plan(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, by (seed, epoch) alone."""
        return groups(self.molecules.sizes, self.pairs, "quadratic", shuffler(self.seed, epoch))

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """Fields and masks of some molecules; `noise` turns them and chooses what is given of them.

        Masks say where a loss is due: at tokens that are not given.
        """
        molecules = [self.molecules[item] for item in items]
        x_0, mask = collate(molecules, self.molecules.vocabulary)
        coords = x_0["coords"]
        if self.rotate:
            coords = coords @ random_rotations(noise).transpose(1, 2)
        x_0["coords"] = centre(coords / self.scale, mask["coords"])
        if not self.conditions and not self.parts:
            return Batch(x_0=x_0, mask=mask)
        told = Condition(mask["types"])
        if self.conditions:
            values = self.molecules.stored.properties.rows(items).columns([one.name for one in self.conditions])
            told = replace(told, properties=standardised(self.conditions, values))
        if self.parts:
            part = Part.kept(x_0, given_atoms(molecules, self.parts, noise, mask["types"]), mask["bonds"])
            told, mask = replace(told, part=part), part.unknown(mask)
        return Batch(x_0=x_0, c=told, mask=mask)


def given_atoms(
    molecules: Sequence[Molecule], share: float, noise: NoiseSource, exists: Bool[Tensor, "b n"]
) -> Bool[Tensor, "b n"]:
    """Atoms that are given, of about a share of the molecules; each molecule's by its own stream."""
    out = torch.zeros_like(exists)
    for row, (molecule, drawn) in enumerate(zip(molecules, noise.uniform((2,)).tolist(), strict=True)):
        if drawn[0] < share:
            kept = random_kept(molecule, np.random.default_rng(int(drawn[1] * 2**53)))
            out[row, : len(molecule)] = torch.from_numpy(kept)
    return out


def collate(molecules: Sequence[Molecule], vocabulary: Vocabulary) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Molecules side by side, padded: coordinates and types 0, charge 0, no bonds.

    Returns:
        Fields `coords` [b, n, 3] angstrom as given, `types` [b, n], `charges` [b, n] as classes, `bonds` [b, n, n]
        symmetric with a zero diagonal; and for each where it is real: atoms, and pairs of two different atoms.

    Raises:
        InputError: If the vocabulary lacks an element or a charge.
    """
    b, n = len(molecules), max((len(molecule) for molecule in molecules), default=0)
    coords = torch.zeros(b, n, 3)
    types = torch.zeros(b, n, dtype=torch.int64)
    charges = torch.full((b, n), vocabulary.charge_class(0), dtype=torch.int64)
    bonds = torch.zeros(b, n, n, dtype=torch.int64)
    atoms = torch.zeros(b, n, dtype=torch.bool)
    for row, molecule in enumerate(molecules):
        size = len(molecule)
        coords[row, :size] = torch.from_numpy(molecule.positions)
        types[row, :size] = torch.from_numpy(vocabulary.types_of(molecule.numbers))
        charges[row, :size] = torch.from_numpy(vocabulary.charge_classes_of(molecule.charges))
        i, j, class_ = torch.from_numpy(molecule.bonds).unbind(1)
        bonds[row, i, j] = bonds[row, j, i] = class_
        atoms[row, :size] = True
    pairs = atoms[:, :, None] & atoms[:, None, :] & ~torch.eye(n, dtype=torch.bool)
    x_0 = {"coords": coords, "types": types, "charges": charges, "bonds": bonds}
    return x_0, {"coords": atoms, "types": atoms, "charges": atoms, "bonds": pairs}


def centre(coords: Float[Tensor, "b n 3"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n 3"]:
    """Moves the mean of the real atoms to zero; padding is zero."""
    real = mask[..., None].to(coords.dtype)
    mean = (coords * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1.0)
    return (coords - mean) * real


def random_rotations(noise: NoiseSource) -> Float[Tensor, "b 3 3"]:
    """One rotation per sample, uniform on SO(3): the quaternion of four normal numbers, normalised."""
    w, x, y, z = torch.nn.functional.normalize(noise.normal((4,)), dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
