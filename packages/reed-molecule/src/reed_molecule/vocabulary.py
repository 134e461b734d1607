"""Which elements and formal charges a model knows, and the classes of bonds.

Types and charge classes are positions in two tuples. Bond classes are fixed for every vocabulary: 0 none, 1 single,
2 double, 3 triple, 4 aromatic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, Integer
from rdkit import Chem
from reed_core.errors import InputError

NO_BOND, SINGLE, DOUBLE, TRIPLE, AROMATIC = range(5)
BONDS = 5
MAX_ATOMIC_NUMBER = 118

_ABSENT = -1


@dataclass(frozen=True)
class Vocabulary:
    """Elements and formal charges, numbered by their place.

    Attributes:
        symbols: Element symbols; the place of one is its type.
        charges: Formal charges in increasing order; the place of one is its class.
    """

    symbols: tuple[str, ...]
    charges: tuple[int, ...]
    _numbers: Int64[np.ndarray, " k"] = field(init=False, repr=False, compare=False)
    _types: Int64[np.ndarray, " z"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = Chem.GetPeriodicTable()
        known = {table.GetElementSymbol(number): number for number in range(1, MAX_ATOMIC_NUMBER + 1)}
        strange = [symbol for symbol in self.symbols if symbol not in known]
        if strange or not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise InputError(f"elements {self.symbols}: expected different element symbols, such as ('H', 'C', 'N')")
        if 0 not in self.charges or list(self.charges) != sorted(set(self.charges)):
            raise InputError(f"charges {self.charges}: expected increasing whole numbers with 0 among them")
        numbers = np.array([known[symbol] for symbol in self.symbols], dtype=np.int64)
        types = np.full(MAX_ATOMIC_NUMBER + 1, _ABSENT, dtype=np.int64)
        types[numbers] = np.arange(len(numbers))
        object.__setattr__(self, "_numbers", numbers)
        object.__setattr__(self, "_types", types)

    def type_of(self, atomic_number: int) -> int:
        """The type of an element.

        Raises:
            InputError: If the vocabulary lacks it.
        """
        return int(self.types_of(np.array([atomic_number]))[0])

    def number_of(self, type_: int) -> int:
        """The atomic number of a type."""
        return int(self.numbers_of(np.array([type_]))[0])

    def charge_class(self, charge: int) -> int:
        """The class of a formal charge.

        Raises:
            InputError: If the vocabulary lacks it.
        """
        return int(self.charge_classes_of(np.array([charge]))[0])

    def charge_of(self, class_: int) -> int:
        """The formal charge of a class."""
        return int(self.charges_of(np.array([class_]))[0])

    def types_of(self, numbers: Integer[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Types of many atomic numbers.

        Raises:
            InputError: If the vocabulary lacks one of them.
        """
        within = (numbers >= 0) & (numbers <= MAX_ATOMIC_NUMBER)
        types = np.where(within, self._types[np.where(within, numbers, 0)], _ABSENT)
        if (types == _ABSENT).any():
            wrong = _listed(np.unique(numbers[types == _ABSENT]))
            raise InputError(f"atomic number {wrong} is not among the elements {' '.join(self.symbols)}")
        return types

    def numbers_of(self, types: Integer[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Atomic numbers of many types."""
        if types.size and (types.min() < 0 or types.max() >= len(self.symbols)):
            raise IndexError(f"types must be in 0..{len(self.symbols) - 1}")
        return self._numbers[types]

    def charge_classes_of(self, charges: Integer[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Classes of many formal charges.

        Raises:
            InputError: If the vocabulary lacks one of them.
        """
        known = np.array(self.charges, dtype=np.int64)
        places = np.searchsorted(known, charges).clip(max=len(known) - 1)
        wrong = known[places] != charges
        if wrong.any():
            raise InputError(f"formal charge {_listed(np.unique(charges[wrong]))} is not among {self.charges}")
        return places.astype(np.int64)

    def charges_of(self, classes: Integer[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Formal charges of many classes."""
        if classes.size and (classes.min() < 0 or classes.max() >= len(self.charges)):
            raise IndexError(f"charge classes must be in 0..{len(self.charges) - 1}")
        return np.array(self.charges, dtype=np.int64)[classes]


def _listed(values: Sequence[int] | Integer[np.ndarray, " n"]) -> str:
    return ", ".join(str(int(value)) for value in values)


QM9 = Vocabulary(("H", "C", "N", "O", "F"), (-1, 0, 1))
DRUGS = Vocabulary(("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I", "B", "Si"), (-2, -1, 0, 1, 2))
