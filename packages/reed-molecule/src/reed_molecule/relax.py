"""Relaxing generated molecules: MMFF94s, or GFN2-xTB through tblite (an optional package). Bonds never change.

GFN2-xTB is minimised by L-BFGS over the coordinates that may move, with the analytic gradient of tblite, until the
largest component of the gradient is below 1e-3 hartree / bohr. Energies are differences, in kcal/mol, in vacuum.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from rdkit import Chem
from reed_core.errors import InputError
from scipy.optimize import minimize

from reed_molecule.metrics.geometry import BOHR_IN_ANGSTROM, heavy_rmsd
from reed_molecule.metrics.geometry import relax as mmff
from reed_molecule.molecule import Molecule

Method = Literal["mmff", "xtb"]
METHODS: tuple[Method, ...] = ("mmff", "xtb")
KCAL_IN_HARTREE = 627.509474
_GRADIENT = 1e-3  # hartree / bohr
_STEPS = 300


@dataclass(frozen=True)
class Relaxation:
    """A molecule after relaxation.

    Attributes:
        molecule: It, with new positions.
        gained: How far the energy fell, kcal/mol.
        moved: How far its heavy atoms moved after superposition, angstrom.
        converged: Whether the minimiser was done.
    """

    molecule: Molecule
    gained: float
    moved: float
    converged: bool


def check_method(method: str) -> Method:
    """One of `METHODS`, whose packages are there.

    Raises:
        InputError: If it is unknown, or tblite is absent.
    """
    for known in METHODS:
        if method == known:
            if method == "xtb":
                _calculator()
            return known
    raise InputError(f"--relax {method}: expected {' or '.join(METHODS)}")


def relaxed(molecule: Molecule, mol: Chem.Mol, method: Method, fixed: Sequence[int] = ()) -> Relaxation | str:
    """Relaxes a molecule, or says why it could not.

    Args:
        molecule: The molecule.
        mol: The same as RDKit has it, sanitised, in the same order.
        method: How.
        fixed: Atoms that stay exactly where they are.

    Raises:
        InputError: If the package of the method is absent.
    """
    if method == "mmff":
        found = mmff(mol, fixed=fixed)
        if isinstance(found, str):
            return found
        places, gained, converged = found.mol.GetConformer().GetPositions(), found.before - found.after, found.converged
    else:
        outcome = _gfn2(mol, fixed)
        if isinstance(outcome, str):
            return outcome
        places, gained, converged = outcome
    positions = places.astype(np.float32)
    positions[list(fixed)] = molecule.positions[list(fixed)]
    after = Chem.Mol(mol)
    after.GetConformer().SetPositions(positions.astype(np.float64))
    return Relaxation(replace(molecule, positions=positions), float(gained), heavy_rmsd(mol, after), bool(converged))


def _gfn2(mol: Chem.Mol, fixed: Sequence[int]) -> tuple[np.ndarray, float, bool] | str:
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    start = mol.GetConformer().GetPositions() / BOHR_IN_ANGSTROM
    free = np.setdiff1d(np.arange(len(numbers)), np.array(fixed, dtype=np.int64))
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    charge = float(Chem.GetFormalCharge(mol))
    calculator = _calculator()

    def energy(flat: np.ndarray) -> tuple[float, np.ndarray]:
        place = start.copy()
        place[free] = flat.reshape(-1, 3)
        calculation = calculator("GFN2-xTB", numbers, place, charge=charge, uhf=unpaired)
        calculation.set("verbosity", 0)
        result = calculation.singlepoint()
        return float(result.get("energy")), np.asarray(result.get("gradient"))[free].reshape(-1)

    try:
        before, _ = energy(start[free].reshape(-1))
        if not len(free):
            return start * BOHR_IN_ANGSTROM, 0.0, True
        done = minimize(
            energy, start[free].reshape(-1), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "gtol": _GRADIENT}
        )
    except (RuntimeError, ValueError):
        return "GFN2-xTB failed"
    if not np.isfinite(done.fun) or not np.isfinite(done.x).all():
        return "GFN2-xTB diverged"
    place = start.copy()
    place[free] = done.x.reshape(-1, 3)
    return place * BOHR_IN_ANGSTROM, KCAL_IN_HARTREE * (before - float(done.fun)), bool(done.success)


def _calculator() -> Any:
    try:
        from tblite.interface import Calculator
    except ImportError as error:
        raise InputError(f"GFN2-xTB needs tblite ({error}); install reed-molecule[xtb], or relax with mmff") from error
    return Calculator
