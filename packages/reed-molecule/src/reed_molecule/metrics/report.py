"""All metrics of a set of molecules, and a table that puts several sets side by side, such as generated and real."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from rdkit import Chem

from reed_molecule.build import Failure, all_rdkit
from reed_molecule.metrics.distribution import Distances, Weighted, distances
from reed_molecule.metrics.geometry import Checks, Strain, posebusters, strain
from reed_molecule.metrics.stability import Convention, Stability, stability
from reed_molecule.metrics.validity import Validity, validity
from reed_molecule.molecule import Molecule

_NONE = "-"


@dataclass(frozen=True)
class Report:
    """Metrics of one set; what was not asked for is None. Stability is given under every convention, by name."""

    stability: tuple[Stability, ...]
    validity: Validity
    distances: Distances | None
    strain: Strain | None
    checks: Checks | None

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each metric, as printed; the names are the same for every report."""
        rows = [("drawn", str(self.validity.drawn))]
        for counted in self.stability:
            rows += [
                (f"atom stable % ({counted.convention})", _percent(counted.atom_fraction)),
                (f"molecule stable % ({counted.convention})", _percent(counted.molecule_fraction)),
            ]
        stereo = "with stereo" if self.validity.stereo else "without stereo"
        rows += [
            ("valid %", _percent(self.validity.valid_fraction)),
            ("valid, no radical %", _percent(self.validity.closed_fraction)),
            ("connected % of valid", _percent(self.validity.connected_fraction)),
            (f"unique % of connected ({stereo})", _percent(self.validity.unique_fraction)),
            (f"novel % of unique ({stereo})", _percent(self.validity.novel_fraction)),
        ]
        found = self.distances
        rows += [
            ("elements, TV", _NONE if found is None else f"{found.elements:.4f}"),
            ("charges, TV", _NONE if found is None else f"{found.charges:.4f}"),
            ("bond classes, TV", _NONE if found is None else f"{found.bond_classes:.4f}"),
            ("atoms, W1", _NONE if found is None else f"{found.sizes:.3f}"),
            ("bond lengths, W1 angstrom", _NONE if found is None else _weighted(found.lengths, 4)),
            ("angles, W1 degrees", _NONE if found is None else _weighted(found.angles, 2)),
            ("valences, W1", _NONE if found is None else _weighted(found.valences, 4)),
        ]
        median = None if self.strain is None else self.strain.median
        checks = self.checks
        whole = None if checks is None or not checks.molecules else checks.passed_all / checks.molecules
        rows += [
            ("strain, median kcal/mol (MMFF94s)", _NONE if median is None else f"{median:.1f}"),
            ("strain, not judged", _NONE if self.strain is None else str(self.strain.failed)),
            ("strain, not converged", _NONE if self.strain is None else str(self.strain.unconverged)),
            ("PoseBusters, all checks % of valid", _percent(whole)),
        ]
        return rows


def evaluate(
    items: Sequence[Molecule | Failure],
    *,
    reference: Sequence[Molecule] | None = None,
    known: Container[str] | None = None,
    stereo: bool = False,
    with_strain: bool = True,
    with_posebusters: bool = False,
) -> Report:
    """Measures a set of molecules.

    Args:
        items: Molecules, and failures where none could be built.
        reference: Real molecules to compare distributions with.
        known: SMILES of the molecules trained on, from `metrics.validity.identity_of_smiles` with the same `stereo`.
        stereo: Whether uniqueness and novelty tell stereoisomers apart.
        with_strain: Relax the valid, connected molecules.
        with_posebusters: Run the fast checks of PoseBusters on the valid molecules.

    Raises:
        InputError: If PoseBusters is asked for and absent.
    """
    outcomes = all_rdkit(items)
    mols = [outcome for outcome in outcomes if not isinstance(outcome, Failure)]
    whole = [mol for mol in mols if len(Chem.GetMolFrags(mol)) == 1]
    built = [item for item in items if not isinstance(item, Failure)]
    return Report(
        stability=tuple(stability(items, convention) for convention in Convention),
        validity=validity(outcomes, reference=known, stereo=stereo),
        distances=None if reference is None else distances(built, reference),
        strain=strain(whole) if with_strain else None,
        checks=posebusters(mols) if with_posebusters else None,
    )


def table(columns: Sequence[tuple[str, Report]]) -> str:
    """A plain-text table, one column for each named report."""
    rows = [report.rows() for _, report in columns]
    names = list(dict.fromkeys(name for report in rows for name, _ in report))
    values = [dict(report) for report in rows]
    cells = [["", *(name for name, _ in columns)]]
    cells += [[name, *(value.get(name, _NONE) for value in values)] for name in names]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
             for row in cells]  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)


def _percent(fraction: float | None) -> str:
    return _NONE if fraction is None else f"{100 * fraction:.1f}"


def _weighted(found: Weighted, digits: int) -> str:
    if found.distance is None:
        return _NONE
    note = "" if found.covered == 1 else f" ({100 * found.covered:.1f} % covered)"
    return f"{found.distance:.{digits}f}{note}"
