import numpy as np
import pytest
from molecule.metric_cases import drawn, made, moved
from rdkit import Chem
from reed_molecule.build import Failure, FailureKind, all_rdkit
from reed_molecule.metrics.validity import identity, identity_of_smiles, validity
from scipy.spatial.transform import Rotation

BROKEN = Failure(FailureKind.COORDINATES, "-", 4)


def test_counts_on_hand_made_molecules():
    items = [
        made("C"),
        made("C"),
        made("CO"),
        made("C.O"),  # two fragments
        drawn([6, 1, 1, 1], [(0, 1, 1), (0, 2, 1), (0, 3, 1)]),  # a radical
        drawn([8, 1, 1, 1], [(0, 1, 1), (0, 2, 1), (0, 3, 1)]),  # valence
        BROKEN,
    ]
    found = validity(all_rdkit(items), reference={"C"})
    assert (found.drawn, found.valid, found.closed, found.connected, found.unique, found.novel) == (7, 5, 4, 4, 3, 2)
    assert found.valid_fraction == 5 / 7
    assert found.connected_fraction == 4 / 5
    assert found.unique_fraction == 3 / 4
    assert found.novel_fraction == 2 / 3


def test_no_reference_is_not_novelty_of_one():
    assert validity(all_rdkit([made("C")])).novel_fraction is None


def test_nothing_drawn_is_zero_not_an_error():
    assert validity([]).valid_fraction == 0.0
    assert validity([BROKEN], reference=set()).novel_fraction == 0.0


def test_stereo_is_told_apart_only_where_asked():
    pair = all_rdkit([made("C[C@H](N)O"), made("C[C@@H](N)O"), made("F/C=C/F"), made("F/C=C\\F")])
    assert validity(pair).unique == 2
    assert validity(pair, stereo=True).unique == 4


@pytest.mark.parametrize("smiles", ["c1ccc2[nH]ccc2c1", "C[N+](=O)[O-]", "O=C([O-])C[NH3+]", "[H][H]", "C[C@H](N)O"])
@pytest.mark.parametrize("stereo", [False, True])
def test_identity_ignores_order_rotation_and_how_rings_are_written(smiles, stereo):
    molecule = made(smiles)
    order = np.random.default_rng(5).permutation(len(molecule))
    versions = [molecule, moved(molecule, order, Rotation.random(rng=6).as_matrix()), made(smiles, kekulised=True)]
    outcomes = all_rdkit(versions)
    assert all(isinstance(outcome, Chem.Mol) for outcome in outcomes)
    assert {identity(outcome, stereo=stereo) for outcome in outcomes} == {identity_of_smiles(smiles, stereo=stereo)}


def test_an_unreadable_smiles_has_no_identity():
    assert identity_of_smiles("C(") is None
