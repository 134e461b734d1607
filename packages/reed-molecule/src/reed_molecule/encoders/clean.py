"""Molecules as an encoder gets them: clean, in angstrom, named, whatever the units and the noise of training.

x_0 is a mapping: `coords` [b, n, 3] angstrom, `numbers` [b, n] atomic numbers, `charges` [b, n] formal charges, `bonds`
[b, n, n] classes, symmetric. Elements are numbers, so an encoder does not depend on the vocabulary of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from reed_core.train import Batch
from torch import Tensor

from reed_molecule.dataset import MoleculeSet, collate
from reed_molecule.molecule import Molecule
from reed_molecule.vocabulary import Vocabulary

FIELDS = ("coords", "numbers", "charges", "bonds")


@dataclass(frozen=True)
class Named:
    """The condition of an encoder: what is not a tensor.

    Attributes:
        molecules: The molecules.
        items: Their places in the set.
    """

    molecules: tuple[Molecule, ...]
    items: tuple[int, ...]


@dataclass(frozen=True)
class CleanMolecules:
    """The items that a cache is written of.

    Attributes:
        molecules: The set.
    """

    molecules: MoleculeSet

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the molecules."""
        return self.molecules.fingerprint

    def __len__(self) -> int:
        return len(self.molecules)

    def batch(self, items: Sequence[int]) -> Batch:
        """Fields as x_0, a `Named` as c, and where atoms exist."""
        chosen = tuple(self.molecules[item] for item in items)
        fields, masks = collate(chosen, self.molecules.vocabulary)
        mask = masks["types"]
        kinds, charges = self.molecules.vocabulary.numbers_of, self.molecules.vocabulary.charges_of
        x_0 = {
            "coords": fields["coords"],
            "numbers": torch.from_numpy(kinds(fields["types"].numpy())) * mask,
            "charges": torch.from_numpy(charges(fields["charges"].numpy())) * mask,
            "bonds": fields["bonds"],
        }
        return Batch(x_0=x_0, c=Named(chosen, tuple(items)), mask=mask)


def pairs_of(mask: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n n"]:
    """True for pairs of two different existing atoms."""
    different = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    return mask[:, :, None] & mask[:, None, :] & different


def types_of(numbers: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"], elements: tuple[str, ...]) -> Int[Tensor, "b n"]:
    """Places of atomic numbers among some elements; 0 in the padding.

    Raises:
        InputError: If one is not among them.
    """
    known = Vocabulary(elements, (0,))
    first = known.number_of(0)
    found = known.types_of(torch.where(mask, numbers, first).cpu().numpy())
    return torch.from_numpy(found).to(numbers.device) * mask
