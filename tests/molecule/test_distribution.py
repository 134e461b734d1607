import dataclasses

import numpy as np
import pytest
from molecule.metric_cases import drawn, made, moved
from reed_molecule.build import Failure, FailureKind
from reed_molecule.metrics.distribution import (
    bond_angles,
    bond_lengths,
    distances,
    total_variation,
    valences,
    weighted_wasserstein,
)
from reed_molecule.metrics.report import evaluate, table
from reed_molecule.metrics.stability import Convention
from scipy.spatial.transform import Rotation


def test_a_set_is_at_no_distance_from_itself_turned_and_reordered():
    molecules = [made("CCO"), made("c1ccncc1")]
    turned = [
        moved(m, np.random.default_rng(k).permutation(len(m)), Rotation.random(rng=k).as_matrix())
        for k, m in enumerate(molecules)
    ]
    found = distances(turned, molecules)
    assert (found.elements, found.charges, found.bond_classes, found.sizes) == (0, 0, 0, 0)
    assert found.lengths.distance == pytest.approx(0, abs=1e-5)
    assert found.angles.distance == pytest.approx(0, abs=1e-2)
    assert found.valences.distance == 0
    assert found.lengths.covered == found.angles.covered == 1


def test_longer_bonds_are_as_far_as_they_are_longer():
    molecule = made("CCO")
    longer = dataclasses.replace(molecule, positions=molecule.positions * np.float32(1.1))
    found = distances([longer], [molecule])
    expected = 0.1 * np.mean(np.concatenate(list(bond_lengths([molecule]).values())))
    assert found.lengths.distance == pytest.approx(expected, rel=1e-3)
    assert found.angles.distance == pytest.approx(0, abs=1e-2)


def test_lengths_angles_and_valences_of_a_known_shape():
    water = drawn([8, 1, 1], [(0, 1, 1), (0, 2, 1)])
    water.positions[:] = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert bond_lengths([water])[(1, 8, 1)] == pytest.approx([1, 1])
    assert bond_angles([water])[8] == pytest.approx([90])
    assert {k: v.tolist() for k, v in valences([water]).items()} == {8: [2], 1: [1, 1]}
    assert set(valences([made("c1ccccc1")])[6]) == {4.0}


def test_a_kind_that_is_missing_is_said_not_hidden():
    found = weighted_wasserstein({"a": np.array([1.0])}, {"a": np.array([3.0, 3.0, 3.0]), "b": np.array([0.0])})
    assert (found.distance, found.covered) == (2.0, 0.75)
    assert weighted_wasserstein({}, {"a": np.array([1.0])}).distance is None


def test_total_variation():
    assert total_variation([1, 2], [1, 2, 2, 1]) == 0
    assert total_variation([1], [2]) == 1
    assert total_variation([1, 1, 1, 2], [1, 2]) == 0.25
    assert total_variation([], [1]) == 1


def test_atoms_on_one_point_and_empty_sets_are_no_error():
    flat = drawn([6, 6, 6], [(0, 1, 1), (1, 2, 1)])
    flat.positions[:] = 0
    assert bond_angles([flat]) == {}
    assert distances([flat], [made("CC")]).angles.covered == 0
    assert distances([], [flat]) is None


def test_the_table_names_every_convention_and_has_a_column_for_each_set():
    real = [made("CCO"), made("CC")]
    drawn_items = [made("CCO"), Failure(FailureKind.COORDINATES, "-", 9)]
    text = table([("generated", evaluate(drawn_items, reference=real)), ("real", evaluate(real, with_strain=False))])
    lines = text.splitlines()
    assert lines[0].split() == ["generated", "real"]
    for convention in Convention:
        (line,) = [line for line in lines if line.startswith(f"molecule stable % ({convention})")]
        assert line.split()[-2] == "50.0"
    (valid,) = [line for line in lines if line.startswith("valid %")]
    assert valid.split()[-2:] == ["50.0", "100.0"]
    (missing,) = [line for line in lines if line.startswith("strain, median")]
    assert missing.split()[-1] == "-"


def test_nothing_generated_still_makes_a_report():
    assert "drawn" in table([("none", evaluate([], reference=[made("CC")], known=set()))])
