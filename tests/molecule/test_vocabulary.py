import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem
from reed_core.errors import InputError
from reed_molecule.vocabulary import DRUGS, QM9, Vocabulary


@pytest.mark.parametrize("vocabulary", [QM9, DRUGS])
def test_types_and_charges_go_both_ways(vocabulary: Vocabulary) -> None:
    for type_, symbol in enumerate(vocabulary.symbols):
        assert Chem.GetPeriodicTable().GetElementSymbol(vocabulary.number_of(type_)) == symbol
        assert vocabulary.type_of(vocabulary.number_of(type_)) == type_
    for class_, charge in enumerate(vocabulary.charges):
        assert vocabulary.charge_of(class_) == charge
        assert vocabulary.charge_class(charge) == class_


@given(st.integers(-10, 300), st.integers(-9, 9))
def test_what_is_not_known_is_named(number: int, charge: int) -> None:
    if number in (1, 6, 7, 8, 9):
        assert QM9.number_of(QM9.type_of(number)) == number
    else:
        with pytest.raises(InputError, match=str(number)):
            QM9.type_of(number)
    if charge in (-1, 0, 1):
        assert QM9.charge_of(QM9.charge_class(charge)) == charge
    else:
        with pytest.raises(InputError, match=str(charge)):
            QM9.charge_class(charge)


def test_arrays_keep_their_shape() -> None:
    numbers = np.array([[1, 6], [9, 8]])
    np.testing.assert_array_equal(QM9.numbers_of(QM9.types_of(numbers)), numbers)
    assert QM9.types_of(np.zeros(0, dtype=np.int64)).shape == (0,)
    with pytest.raises(IndexError):
        QM9.numbers_of(np.array([5]))
    with pytest.raises(IndexError):
        QM9.charges_of(np.array([-1]))


@pytest.mark.parametrize(
    ("symbols", "charges"), [(("H", "H"), (0,)), (("Xx",), (0,)), ((), (0,)), (("H",), (1,)), (("H",), (1, 0))]
)
def test_a_wrong_vocabulary_is_refused(symbols: tuple[str, ...], charges: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        Vocabulary(symbols, charges)
