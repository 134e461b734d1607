"""Named numbers of molecules, such as QM9's `gap`: a table of a column a name, NaN where a value is unknown.

Values are kept in the units of the file they come from; a unit is named where the format fixes it. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from reed_core.errors import InputError

QM9_UNITS: Mapping[str, str] = {
    "mu": "debye",
    "alpha": "bohr^3",
    "homo": "hartree",
    "lumo": "hartree",
    "gap": "hartree",
    "r2": "bohr^2",
    "zpve": "hartree",
    "U0": "hartree",
    "U": "hartree",
    "H": "hartree",
    "G": "hartree",
    "Cv": "cal/(mol K)",
}
"""The properties of QM9 by the names EDM gives them, in the order of gdb9, with the units of gdb9's own files."""


@dataclass(frozen=True)
class Table:
    """Properties of molecules, one row each.

    Attributes:
        units: The unit of each property by name, in the order of the columns; empty where it is not known.
        values: The values, NaN where unknown.
    """

    units: Mapping[str, str]
    values: Float64[np.ndarray, "n p"]

    @classmethod
    def empty(cls, count: int) -> "Table":
        """No property of some molecules."""
        return cls({}, np.zeros((count, 0)))

    @classmethod
    def joined(cls, tables: Sequence["Table"]) -> "Table":
        """One table of several, end to end, with the properties of all; what a table lacks is unknown.

        Raises:
            InputError: If a property has two units.
        """
        units: dict[str, str] = {}
        for table in tables:
            for name, unit in table.units.items():
                if units.setdefault(name, unit) != unit:
                    raise InputError(
                        f"property {name} is in {units[name] or 'an unknown unit'} in one file and in "
                        f"{unit or 'an unknown unit'} in another; prepare them apart, or convert one"
                    )
        return cls(units, np.concatenate([table.spread(tuple(units)) for table in tables]))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of the columns."""
        return tuple(self.units)

    def rows(self, items: Sequence[int] | np.ndarray) -> "Table":
        """Some of the molecules, in the order given."""
        return Table(self.units, self.values[np.asarray(items, dtype=np.int64)])

    def spread(self, names: Sequence[str]) -> Float64[np.ndarray, "n k"]:
        """The columns of some names; NaN for a name that is not there."""
        out = np.full((len(self), len(names)), np.nan)
        for column, name in enumerate(names):
            if name in self.units:
                out[:, column] = self.values[:, self.names.index(name)]
        return out

    def columns(self, names: Sequence[str]) -> Float64[np.ndarray, "n k"]:
        """The columns of some names.

        Raises:
            InputError: If one is not there.
        """
        for name in names:
            if name not in self.units:
                there = f"it holds {', '.join(self.names)}" if self.units else "it holds none"
                raise InputError(f"no property {name!r} in this set: {there}; prepare it with --property {name}")
        return self.spread(names)


def read_asked(texts: Sequence[str]) -> dict[str, float]:
    """Values by name, of texts such as gap=0.25.

    Raises:
        InputError: If a text is written otherwise, its value is no finite number, or a name comes twice.
    """
    asked: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        name = name.strip()
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not name or not np.isfinite(number):
            raise InputError(f"--property {text}: expected a name and a finite number, such as gap=0.25")
        if name in asked:
            raise InputError(f"--property {name} is given twice; a molecule has one value of it")
        asked[name] = number
    return asked
