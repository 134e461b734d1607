from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from molecule_cases import SMILES, molecule, single_atom
from rdkit import Chem
from reed_core.errors import InputError
from reed_molecule.molecule import Molecule, flat_smiles


@given(smiles=st.sampled_from(SMILES), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_rdkit_and_back_in_any_order_and_place(smiles: str, seed: int) -> None:
    """Atoms renumbered, the molecule turned and moved: the same molecule comes back, arrays equal."""
    rng = np.random.default_rng(seed)
    given_ = molecule(smiles)
    order = rng.permutation(len(given_))
    place = np.argsort(order)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    ends = np.sort(place[given_.bonds[:, :2]], axis=1)
    bonds = np.column_stack([ends, given_.bonds[:, 2]])
    moved = replace(
        given_,
        numbers=given_.numbers[order],
        charges=given_.charges[order],
        positions=(given_.positions[order] @ turn + rng.normal(size=3)).astype(np.float32),
        bonds=bonds[np.lexsort(bonds.T[::-1])],
    )
    back = Molecule.from_rdkit(moved.to_rdkit())
    np.testing.assert_array_equal(back.numbers, moved.numbers)
    np.testing.assert_array_equal(back.charges, moved.charges)
    np.testing.assert_array_equal(back.bonds, moved.bonds)
    np.testing.assert_allclose(back.positions, moved.positions, atol=1e-6)
    assert back.smiles == given_.smiles == Chem.CanonSmiles(smiles)
    assert back.name == smiles


def test_a_mirror_image_is_the_other_stereoisomer() -> None:
    one = molecule("C[C@H](O)F")
    mirrored = Molecule.from_rdkit(replace(one, positions=one.positions * np.float32([-1, 1, 1])).to_rdkit())
    assert mirrored.smiles == Chem.CanonSmiles("C[C@@H](O)F") != one.smiles
    assert flat_smiles(mirrored.smiles) == flat_smiles(one.smiles)


def test_a_radical_and_a_metal_atom_pass() -> None:
    oxygen = single_atom(8).to_rdkit()
    assert oxygen.GetAtomWithIdx(0).GetNumRadicalElectrons() == 2
    assert Molecule.from_rdkit(single_atom(30).to_rdkit()).smiles == "[Zn]"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bonds": np.array([[0, 0, 1]])}, "itself"),
        ({"bonds": np.array([[0, 9, 1]])}, "itself or to none"),
        ({"bonds": np.array([[0, 1, 1], [1, 0, 2]])}, "two bonds"),
        ({"bonds": np.array([[0, 1, 5]])}, "class"),
        ({"bonds": np.array([[0, 1, 4]])}, "sanitise"),
        ({"bonds": np.array([[0, 1, 3], [0, 2, 3]])}, "sanitise"),
        ({"numbers": np.array([0, 1, 1])}, "atomic number"),
        ({"positions": np.full((3, 3), np.nan, dtype=np.float32)}, "finite"),
    ],
)
def test_what_is_no_molecule_is_refused_in_one_line(changes: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        replace(molecule("O"), **changes).to_rdkit()
    assert "\n" not in str(caught.value)


def test_rdkit_molecules_that_are_incomplete_are_refused() -> None:
    with pytest.raises(InputError, match="3D"):
        Molecule.from_rdkit(Chem.AddHs(Chem.MolFromSmiles("CO")))
    with pytest.raises(InputError, match="no atoms"):
        Molecule.from_rdkit(Chem.Mol())
    with pytest.raises(InputError, match="hydrogens"):
        Molecule.from_rdkit(Chem.RemoveHs(molecule("CO").to_rdkit()))
    with pytest.raises(InputError, match="SMILES"):
        flat_smiles("C(C")
