"""A tiny random model, a model that knows one molecule by heart, and the command line called in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from molecule_cases import molecule
from rdkit import Chem
from reed_core.hub import save_pretrained
from reed_molecule.dataset import collate
from reed_molecule.known import Known
from reed_molecule.model import MoleculeModel, new_config
from reed_molecule.molecule import Molecule, flat_smiles
from reed_molecule.network import NetworkConfig
from reed_molecule.process import Discrete, centre
from reed_molecule.vocabulary import QM9, Vocabulary

TINY = NetworkConfig(width=16, vectors=4, pairs=8, blocks=2, heads=2, radial=6)
Call = Callable[..., int]


def tiny(
    counts: tuple[int, ...] = (6, 7, 7, 9),
    discrete: Discrete = "uniform",
    vocabulary: Vocabulary = QM9,
    parts: bool = False,
) -> MoleculeModel:
    """A model with random weights, which may read given parts."""
    torch.manual_seed(0)
    sizes = TINY.model_copy(update={"parts": parts})
    return MoleculeModel(new_config(vocabulary, 1.5, counts, sizes, discrete)).eval()


def saved(folder: Path, *known: str) -> Path:
    """A folder of random weights that says it was trained on these SMILES."""
    save_pretrained(tiny(), folder)
    if known:
        Known.of_smiles(flat_smiles(smiles) for smiles in known).write(folder)
    return folder


class ByHeart(MoleculeModel):
    """A denoiser that always says one molecule, in the frame it was given in."""

    def __init__(self, told: Molecule) -> None:
        super().__init__(new_config(QM9, 1.5, [len(told)], TINY, "uniform"))
        fields, mask = collate([told], QM9)
        self.told = {**fields, "coords": centre(fields["coords"] / 1.5, mask["coords"])}
        self.eval()

    def forward(self, x_t: dict, t: torch.Tensor, c: object = None, guess: object = None) -> dict:  # type: ignore[override]
        sure = {
            name: 200.0 * torch.nn.functional.one_hot(self.told[name], size).float().expand(len(t), *shape, size)
            for name, size, shape in (
                ("types", 5, (-1,)), ("charges", 3, (-1,)), ("bonds", 5, (-1, -1)),
            )
        }  # fmt: skip
        return {"coords": (x_t["coords"] - self.told["coords"]) / t[:, None, None], **sure}


def write_sdf(path: Path, *smiles: str) -> Path:
    """An SDF of molecules that RDKit made."""
    path.write_text("".join(f"{Chem.MolToMolBlock(molecule(one).to_rdkit())}$$$$\n" for one in smiles))
    return path


def caller(monkeypatch: pytest.MonkeyPatch) -> Call:
    """A function that runs the program in this process and returns its exit code."""
    from reed_molecule.cli import main

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["reed-molecule", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return call
