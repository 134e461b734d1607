"""Relaxing: energies fall, fixed atoms stay, and a missing package is said in one line."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from molecule_cases import molecule, single_atom
from reed_core.errors import InputError
from reed_molecule.build import rdkit_of
from reed_molecule.molecule import Molecule
from reed_molecule.relax import Relaxation, check_method, relaxed


def bent(smiles: str) -> Molecule:
    """A molecule with its atoms shaken."""
    whole = molecule(smiles)
    shake = np.random.default_rng(0).normal(0, 0.05, whole.positions.shape).astype(np.float32)
    return replace(whole, positions=whole.positions + shake)


def test_mmff_lowers_the_energy_and_keeps_what_is_fixed() -> None:
    start = bent("C[C@H](O)F")
    free = relaxed(start, start.to_rdkit(), "mmff")
    held = relaxed(start, start.to_rdkit(), "mmff", fixed=[0, 1, 2])
    assert isinstance(free, Relaxation)
    assert isinstance(held, Relaxation)
    assert free.gained > held.gained > 0
    assert free.moved > 0
    assert np.array_equal(held.molecule.positions[:3], start.positions[:3])
    assert np.abs(held.molecule.positions[3:] - start.positions[3:]).max() > 1e-3
    assert np.array_equal(held.molecule.bonds, start.bonds)


def test_what_has_no_parameters_says_so() -> None:
    metal = single_atom(26)
    mol = rdkit_of(metal)
    assert relaxed(metal, mol, "mmff") == "no MMFF94s parameters"  # type: ignore[arg-type]


def test_xtb_needs_tblite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(InputError, match=r"reed-molecule\[xtb\]"):
        check_method("xtb")
    with pytest.raises(InputError, match="mmff or xtb"):
        check_method("dft")
    assert check_method("mmff") == "mmff"


def test_xtb_minimises_what_tblite_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a harmonic well in the place of GFN2: atoms that may move fall to its floor, the others stay."""
    start = bent("CO")
    floor = molecule("CO").positions.astype(float) / 0.529177210903
    calls: list[float] = []

    class Well:
        def __init__(self, method: str, numbers: np.ndarray, place: np.ndarray, charge: float, uhf: int) -> None:
            assert (method, charge, uhf) == ("GFN2-xTB", 0.0, 0)
            self.off = place - floor

        def set(self, name: str, value: int) -> None:
            pass

        def singlepoint(self) -> SimpleNamespace:
            calls.append(float(np.square(self.off).sum()))
            values = {"energy": 0.5 * calls[-1], "gradient": self.off}
            return SimpleNamespace(get=values.get)

    module = ModuleType("tblite.interface")
    module.Calculator = Well  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tblite", ModuleType("tblite"))
    monkeypatch.setitem(sys.modules, "tblite.interface", module)
    done = relaxed(start, start.to_rdkit(), "xtb", fixed=[0])
    assert isinstance(done, Relaxation)
    assert done.converged
    assert np.array_equal(done.molecule.positions[0], start.positions[0])
    assert np.abs(done.molecule.positions[1:] - molecule("CO").positions[1:]).max() < 2e-3
    assert done.gained == pytest.approx(627.509474 * 0.5 * (calls[0] - calls[-1]), rel=0.05)
