"""Figures of generated molecules as JSON, and shares with their intervals."""

from collections.abc import Container, Sequence
from math import sqrt
from typing import Any

from reed_molecule.build import Failure
from reed_molecule.metrics.report import evaluate
from reed_molecule.metrics.stability import MEASURES, Convention
from reed_molecule.molecule import Molecule

SHORT = {Convention.BONDS: "bonds", Convention.DISTANCES: "distances"}
_NORMAL = 1.959964  # the 97.5 % point of the normal distribution


def interval(successes: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not trials:
        return 0.0, 1.0
    p, square = successes / trials, _NORMAL**2 / trials
    middle = (p + square / 2) / (1 + square)
    half = sqrt(square) * sqrt(p * (1 - p) + square / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def percent(successes: float, trials: int) -> str:
    """A share and its 95 % interval, in percent."""
    if not trials:
        return "-"
    low, high = interval(successes, trials)
    return f"{100 * successes / trials:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def figures(
    items: Sequence[Molecule | Failure], known: Container[str] | None = None, strain: bool = True
) -> dict[str, Any]:
    """Counts of a set of molecules: stability in both conventions, validity, and the median strain in kcal/mol."""
    report = evaluate(items, known=known, with_strain=strain)
    found: dict[str, Any] = {}
    for counted in report.stability:
        if counted.convention in MEASURES:
            name = SHORT[counted.convention]
            found |= {f"atoms_{name}": counted.stable_atoms, f"molecules_{name}": counted.stable_molecules}
            found["atoms"] = counted.atoms
    seen = report.validity
    found |= {"drawn": seen.drawn, "valid": seen.valid, "closed": seen.closed, "connected": seen.connected}
    found |= {"unique": seen.unique, "novel": seen.novel}
    return {**found, "strain": None if report.strain is None else report.strain.median}
