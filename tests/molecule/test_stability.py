import numpy as np
import pytest
from molecule.metric_cases import drawn, made, moved
from reed_molecule.build import Failure, FailureKind
from reed_molecule.metrics.bond_length_table import DOUBLE_PM, MARGINS_PM, SINGLE_PM, TRIPLE_PM
from reed_molecule.metrics.stability import Convention, distance_orders, stability, stable_atoms, valence_pairs
from reed_molecule.molecule import Molecule
from scipy.spatial.transform import Rotation

METHANE = Molecule(
    numbers=np.array([6, 1, 1, 1, 1]),
    positions=(np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 1.09 / 3**0.5).astype("f4"),
    charges=np.zeros(5, dtype=np.int64),
    bonds=np.array([[0, k, 1] for k in range(1, 5)]),
)


def stretched(factor: float) -> Molecule:
    return Molecule(METHANE.numbers, METHANE.positions * np.float32(factor), METHANE.charges, METHANE.bonds)


@pytest.mark.parametrize("convention", list(Convention))
def test_methane_is_stable_under_every_convention(convention):
    assert stable_atoms(METHANE, convention).all()


def test_distances_alone_decide_the_distance_convention():
    assert stability([stretched(1.09), stretched(1.10)], Convention.DISTANCES).stable_molecules == 1  # 118.8, 119.9
    assert not stable_atoms(stretched(1.2), Convention.DISTANCES).any()
    assert stable_atoms(stretched(1.2), Convention.BONDS).all()
    bare = Molecule(METHANE.numbers, METHANE.positions, METHANE.charges, METHANE.bonds[:0])
    assert stable_atoms(bare, Convention.DISTANCES).all()
    assert not stable_atoms(bare, Convention.BONDS).any()


@pytest.mark.parametrize(
    ("length", "order"), [(1.20, 3), (1.22, 3), (1.24, 2), (1.38, 2), (1.40, 1), (1.63, 1), (1.65, 0)]
)
def test_order_of_two_carbons_by_their_distance(length, order):
    pair = drawn([6, 6], [])
    pair.positions[:] = [[0, 0, 0], [length, 0, 0]]
    assert distance_orders(pair).tolist() == [[0, order], [order, 0]]


def slow_order(a: str, b: str, pm: float) -> int:
    order = 0
    for table, margin in zip((SINGLE_PM, DOUBLE_PM, TRIPLE_PM), MARGINS_PM, strict=True):
        length = table.get((a, b)) or table.get((b, a))
        if length is None or pm >= length + margin:
            break
        order += 1
    return order


def test_distance_orders_against_a_loop_over_pairs():
    molecule = made("CC(=O)Nc1ccc(S(=O)(=O)C#N)c(Cl)c1Br")
    symbols = {1: "H", 6: "C", 7: "N", 8: "O", 16: "S", 17: "Cl", 35: "Br"}
    orders = distance_orders(molecule)
    at = molecule.positions.astype(float)
    for i, a in enumerate(molecule.numbers.tolist()):
        for j, b in enumerate(molecule.numbers.tolist()):
            expected = 0 if i == j else slow_order(symbols[a], symbols[b], 100 * float(np.linalg.norm(at[i] - at[j])))
            assert orders[i, j] == expected


@pytest.mark.parametrize(
    "smiles",
    ["c1ccccc1", "c1cc[nH]c1", "c1ccncc1", "C[N+](C)(C)C", "C[N+](=O)[O-]", "c1ccoc1", "CS(=O)(=O)C", "CS", "[O-]C=O"],
)
@pytest.mark.parametrize("kekulised", [False, True])
def test_real_molecules_are_stable_by_bonds_either_way_aromatic_bonds_are_written(smiles, kekulised):
    assert stable_atoms(made(smiles, kekulised), Convention.BONDS).all()


def test_pairs_of_benzene():
    aromatic, rest = valence_pairs(made("c1ccccc1"))
    assert aromatic.tolist() == [2] * 6 + [0] * 6
    assert rest.tolist() == [1] * 12


@pytest.mark.parametrize(
    ("molecule", "corrected", "truncated", "half_fixed"),
    [
        (made("c1cc[nH]c1"), True, True, False),  # N with two aromatic bonds and one more: 2 * 1.5 + 1 = 4
        (made("[CH3]", kekulised=True), False, True, True),  # a radical: the widened table lets C have 3
        (made("C[NH]"), False, True, True),
        (drawn([7, 1, 1, 1, 1], [(0, k, 1) for k in range(1, 5)], [1, 0, 0, 0, 0]), True, True, True),  # ammonium
        (drawn([7, 1, 1, 1, 1], [(0, k, 1) for k in range(1, 5)]), False, False, False),
        (drawn([6, 1, 1, 1, 1, 1], [(0, k, 1) for k in range(1, 6)]), False, False, False),
    ],
)
def test_the_legacy_conventions_hide_errors_or_invent_them(molecule, corrected, truncated, half_fixed):
    assert stable_atoms(molecule, Convention.BONDS).all() == corrected
    assert stable_atoms(molecule, Convention.LEGACY_TRUNCATED).all() == truncated
    assert stable_atoms(molecule, Convention.LEGACY_HALF_FIXED).all() == half_fixed


def test_charge_matters_only_to_bonds():
    nitro = made("C[N+](=O)[O-]")
    neutral = Molecule(nitro.numbers, nitro.positions, np.zeros_like(nitro.charges), nitro.bonds)
    assert stable_atoms(neutral, Convention.BONDS).sum() == len(nitro) - 2
    np.testing.assert_array_equal(
        stable_atoms(neutral, Convention.DISTANCES), stable_atoms(nitro, Convention.DISTANCES)
    )


@pytest.mark.parametrize("convention", list(Convention))
def test_order_of_atoms_and_rotation_change_nothing(convention):
    molecule = made("O=C(O)c1ccc(Cl)[nH]1")
    order = np.random.default_rng(1).permutation(len(molecule))
    other = moved(molecule, order, Rotation.random(rng=2).as_matrix())
    np.testing.assert_array_equal(stable_atoms(other, convention), stable_atoms(molecule, convention)[order])


def test_failures_count_as_unstable_with_all_their_atoms():
    found = stability([METHANE, Failure(FailureKind.COORDINATES, "-", 15)], Convention.BONDS)
    assert (found.atom_fraction, found.molecule_fraction) == (0.25, 0.5)
    empty = stability([], Convention.BONDS)
    assert (empty.atom_fraction, empty.molecule_fraction) == (0.0, 0.0)


def test_published_share_of_stable_qm9_molecules(reed_data):
    data = np.load(reed_data / "molecule" / "qm9_dft.npz")
    sizes, elements, coords = (data[key][::12] for key in ("num_atoms", "charges", "positions"))
    molecules = []
    for n, z, x in zip(sizes.tolist(), elements, coords, strict=True):
        numbers, positions = z[:n].astype(np.int64), x[:n].astype(np.float32)
        molecules.append(Molecule(numbers, positions, np.zeros_like(numbers), np.zeros((0, 3), dtype=np.int64)))
    found = stability(molecules, Convention.DISTANCES)
    assert 0.985 < found.atom_fraction < 0.998
    assert 0.93 < found.molecule_fraction < 0.97  # published 95.2 %; the standard error here is 0.7 %
