"""Is the geometry that of a molecule: strain by MMFF94s, the checks of PoseBusters, the energy by GFN2-xTB.

    strain = E(as generated) - E(relaxed in place, MMFF94s),  kcal/mol, >= 0, of one conformer, in vacuum

What a force field cannot judge is counted by reason and takes no part in a mean. PoseBusters and tblite are optional
packages, imported when asked for.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers
from reed_core.errors import InputError

VARIANT = "MMFF94s"
BOHR_IN_ANGSTROM = 0.529177210903


@dataclass(frozen=True, eq=False)
class Strain:
    """Strain of the molecules that could be relaxed.

    Attributes:
        kcal: Strain of each, kcal/mol, in the order given, without the failures.
        rmsd: How far its heavy atoms moved after superposition, angstrom, likewise.
        unconverged: How many of them had not converged: their strain is a lower bound.
        failures: How many could not be judged, by reason.
    """

    kcal: Float[np.ndarray, " m"]
    rmsd: Float[np.ndarray, " m"]
    unconverged: int
    failures: Mapping[str, int] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        """Median strain, kcal/mol; None if nothing was judged."""
        return float(np.median(self.kcal)) if len(self.kcal) else None

    @property
    def failed(self) -> int:
        """How many could not be judged."""
        return sum(self.failures.values())


@dataclass(frozen=True)
class Checks:
    """Outcome of PoseBusters.

    Attributes:
        config: Which set of checks.
        molecules: How many were checked.
        passed_all: How many passed every check.
        passed: How many passed each check, by its name.
    """

    config: str
    molecules: int
    passed_all: int
    passed: Mapping[str, int]


def strain(mols: Sequence[Chem.Mol], max_steps: int = 2000) -> Strain:
    """Relaxes copies of molecules with MMFF94s and compares the energies.

    Args:
        mols: Sanitised molecules of explicit atoms with a conformer. Not changed.
        max_steps: Most steps of the minimiser; it stops sooner when converged.
    """
    kcal: list[float] = []
    moved: list[float] = []
    failures: Counter[str] = Counter()
    unconverged = 0
    for mol in mols:
        relaxed = relax(mol, max_steps)
        if isinstance(relaxed, str):
            failures[relaxed] += 1
            continue
        unconverged += not relaxed.converged
        kcal.append(relaxed.before - relaxed.after)
        moved.append(heavy_rmsd(mol, relaxed.mol))
    return Strain(np.array(kcal, dtype=float), np.array(moved, dtype=float), unconverged, dict(failures))


@dataclass(frozen=True)
class Relaxed:
    """A molecule after minimisation: energies in kcal/mol before and after, and whether it converged."""

    mol: Chem.Mol
    before: float
    after: float
    converged: bool


def relax(mol: Chem.Mol, max_steps: int = 2000, fixed: Sequence[int] = ()) -> Relaxed | str:
    """Minimises a copy with MMFF94s, or says why it could not.

    Args:
        mol: A sanitised molecule of explicit atoms with a conformer. Not changed.
        max_steps: Most steps of the minimiser.
        fixed: Atoms that stay where they are.
    """
    copy = Chem.Mol(mol)
    with rdBase.BlockLogs():
        try:
            properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(copy, mmffVariant=VARIANT)
            if properties is None:
                return "no MMFF94s parameters"
            forces = rdForceFieldHelpers.MMFFGetMoleculeForceField(copy, properties, ignoreInterfragInteractions=False)
            if forces is None:
                return "no MMFF94s force field"
            before = forces.CalcEnergy()
            if not np.isfinite(before):
                return "energy not finite"
            for atom in fixed:
                forces.AddFixedPoint(atom)
            more = forces.Minimize(maxIts=max_steps)
            after = forces.CalcEnergy()
        except (RuntimeError, ValueError):
            return "MMFF94s failed"
    if not np.isfinite(after) or not np.isfinite(copy.GetConformer().GetPositions()).all():
        return "relaxation diverged"
    return Relaxed(copy, float(before), float(after), converged=more == 0)


def heavy_rmsd(first: Chem.Mol, second: Chem.Mol) -> float:
    """RMSD of two conformers of one molecule in the same atom order, heavy atoms, superposed; angstrom.

    All atoms count where there are fewer than three heavy ones.
    """
    heavy = [atom.GetIdx() for atom in first.GetAtoms() if atom.GetAtomicNum() > 1]
    rows = heavy if len(heavy) > 2 else list(range(first.GetNumAtoms()))
    a, b = (mol.GetConformer().GetPositions()[rows] for mol in (first, second))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    u, s, vt = np.linalg.svd(a.T @ b)
    s[-1] *= np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0
    squared = (a**2).sum() + (b**2).sum() - 2 * s.sum()
    return float(np.sqrt(max(squared, 0.0) / len(rows)))


def posebusters(mols: Sequence[Chem.Mol], config: str = "mol_fast") -> Checks:
    """Runs the checks of PoseBusters (Buttenschoen et al. 2024) on molecules alone.

    Args:
        mols: Sanitised molecules with a conformer.
        config: "mol_fast", about 10 to 50 ms a molecule, or "mol", seconds a molecule, with the energy ratio.

    Raises:
        InputError: If the package is absent, or the configuration is not one of these.
    """
    if config not in ("mol_fast", "mol"):
        raise InputError(f"PoseBusters configuration {config!r}; expected 'mol_fast' or 'mol'")
    try:
        from posebusters import PoseBusters
    except ImportError as error:
        raise InputError(f"PoseBusters cannot be imported ({error}); install it, or leave its checks out") from error
    if not mols:
        return Checks(config, 0, 0, {})
    with rdBase.BlockLogs():
        table = PoseBusters(config=config).bust(list(mols)).astype(bool)
    passed = {str(name): int(table[name].sum()) for name in table.columns}
    return Checks(config, len(mols), int(table.all(axis=1).sum()), passed)


def gfn2_energies(mols: Sequence[Chem.Mol]) -> list[float | None]:
    """GFN2-xTB energies in hartree, single points; None where the calculation does not converge.

    Args:
        mols: Molecules with explicit atoms and a conformer; charge and unpaired electrons are theirs.

    Raises:
        InputError: If tblite is absent.
    """
    try:
        from tblite.interface import Calculator
    except ImportError as error:
        raise InputError(f"tblite cannot be imported ({error}); install it, or leave GFN2-xTB out") from error
    return [_gfn2(mol, Calculator) for mol in mols]


def _gfn2(mol: Chem.Mol, calculator: Any) -> float | None:
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    positions = mol.GetConformer().GetPositions() / BOHR_IN_ANGSTROM
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    try:
        calculation = calculator("GFN2-xTB", numbers, positions, charge=float(Chem.GetFormalCharge(mol)), uhf=unpaired)
        calculation.set("verbosity", 0)
        energy = float(calculation.singlepoint().get("energy"))
    except (RuntimeError, ValueError):
        return None
    return energy if np.isfinite(energy) else None
