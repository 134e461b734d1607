"""Small sets of molecules, and what may be done to them, that the tests of encoders, latents and pretraining share."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from molecule.metric_cases import made
from reed_core.train import Batch
from reed_molecule.dataset import MoleculeSet
from reed_molecule.encoders.clean import CleanMolecules
from reed_molecule.molecule import Molecule
from reed_molecule.splits import SPLITS
from reed_molecule.stored import About, pack
from reed_molecule.vocabulary import QM9

SMILES = ("CO", "C#N", "c1ccccc1", "CC(=O)[O-]", "C[NH3+]", "FC=O", "CC", "OC", "N", "C1CC1", "CC=O", "NC=O")


@cache
def molecules(smiles: tuple[str, ...] = SMILES) -> tuple[Molecule, ...]:
    return tuple(made(one) for one in smiles)


def make_set(folder: Path, held_out: int = 3) -> MoleculeSet:
    """Writes `set.reed` with a training and a validation split, and returns the training split."""
    chosen = molecules()
    whole = pack(chosen, range(len(chosen)), About("mmff94s", QM9))
    split = np.zeros(len(chosen), dtype=whole.split.dtype)
    split[-held_out:] = SPLITS.index("valid")
    replace(whole, split=split).write(folder / "set.reed")
    return MoleculeSet.read(folder / "set.reed", "train")


def clean_batch(items: Sequence[int], smiles: tuple[str, ...] = SMILES) -> Batch:
    """Clean molecules in float64."""
    chosen = molecules(smiles)
    batch = CleanMolecules(MoleculeSet(pack(chosen, range(len(chosen)), About("mmff94s", QM9)))).batch(items)
    return replace(batch, x_0={**batch.x_0, "coords": batch.x_0["coords"].double()})


def turned(batch: Batch, reflect: bool) -> Batch:
    """Rotated (and reflected), each molecule moved elsewhere."""
    generator = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn) * (-1.0 if reflect else 1.0)
    shift = torch.randn(len(batch.mask), 1, 3, generator=generator, dtype=torch.float64)
    return replace(batch, x_0={**batch.x_0, "coords": batch.x_0["coords"] @ turn + 4.0 * shift})


def reordered(batch: Batch, order: torch.Tensor) -> Batch:
    """The same places of all molecules in another order."""
    x_0 = {name: value[:, order] for name, value in batch.x_0.items()}
    x_0["bonds"] = x_0["bonds"][:, :, order]
    return replace(batch, x_0=x_0, mask=batch.mask[:, order])


def padded(batch: Batch, more: int) -> Batch:
    """With places that hold nonsense and do not exist."""
    b, n = batch.mask.shape
    x_0 = {}
    for name, value in batch.x_0.items():
        shape = (b, n + more, n + more) if name == "bonds" else (b, n + more, *value.shape[2:])
        wide = torch.full(shape, 3, dtype=value.dtype)
        wide[(slice(None), slice(n), slice(n))[: 3 if name == "bonds" else 2]] = value
        x_0[name] = wide
    mask = torch.cat([batch.mask, torch.zeros(b, more, dtype=torch.bool)], 1)
    return replace(batch, x_0=x_0, mask=mask)
