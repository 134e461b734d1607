import sys

import numpy as np
import pytest
from molecule.metric_cases import drawn, made, moved
from reed_core.errors import InputError
from reed_molecule.build import rdkit_of
from reed_molecule.metrics.geometry import gfn2_energies, heavy_rmsd, posebusters, relax, strain
from scipy.spatial.transform import Rotation


def test_strain_of_a_relaxed_molecule_is_nothing_and_of_a_distorted_one_is_not():
    relaxed = relax(rdkit_of(made("CCO")))
    again, distorted = relax(relaxed.mol), made("CCO")
    assert again.before - again.after == pytest.approx(0, abs=1e-3)
    distorted.positions[0] += [0.3, 0.0, 0.0]
    found = strain([relaxed.mol, rdkit_of(distorted)])
    assert found.kcal[0] == pytest.approx(0, abs=1e-3)
    assert found.kcal[1] > 5
    assert found.rmsd[0] < 0.01
    assert (found.failed, found.unconverged) == (0, 0)


def test_strain_is_that_of_the_molecule_however_it_is_turned():
    molecule = made("CC(=O)O")
    order = np.random.default_rng(1).permutation(len(molecule))
    a, b = strain([rdkit_of(molecule), rdkit_of(moved(molecule, order, Rotation.random(rng=2).as_matrix()))]).kcal
    assert a == pytest.approx(b, rel=0.02)


def test_what_mmff_cannot_judge_is_counted_and_not_averaged():
    odd = rdkit_of(drawn([5, 1, 1, 1], [(0, 1, 1), (0, 2, 1), (0, 3, 1)]))
    found = strain([odd, rdkit_of(made("CC"))])
    assert found.failures == {"no MMFF94s parameters": 1}
    assert len(found.kcal) == 1
    assert np.isfinite(found.median)
    assert strain([odd]).median is None


def test_a_minimiser_stopped_early_is_counted():
    assert strain([rdkit_of(made("CCCCO"))], max_steps=1).unconverged == 1


def test_rmsd_ignores_motion_but_not_mirrors():
    mol = rdkit_of(made("C[C@H](N)O"))
    turned, mirrored = made("C[C@H](N)O"), made("C[C@H](N)O")
    turned.positions[:] = turned.positions @ Rotation.random(rng=3).as_matrix() + 5
    mirrored.positions[:, 0] *= -1
    assert heavy_rmsd(mol, rdkit_of(turned)) < 1e-3
    assert heavy_rmsd(mol, rdkit_of(mirrored)) > 0.1


@pytest.mark.parametrize(("package", "call"), [("posebusters", posebusters), ("tblite.interface", gfn2_energies)])
def test_an_absent_extra_is_one_clear_line(monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match="install it"):
        call([rdkit_of(made("C"))])


def test_posebusters_passes_a_real_molecule_and_not_a_squeezed_one():
    pytest.importorskip("posebusters")
    squeezed = made("CCO")
    squeezed.positions[:] *= 0.6
    found = posebusters([rdkit_of(made("CCO")), rdkit_of(squeezed)])
    assert (found.molecules, found.passed_all) == (2, 1)
    with pytest.raises(InputError, match="expected"):
        posebusters([], config="dock")


def test_gfn2_energy_of_water():
    pytest.importorskip("tblite.interface")
    relaxed = relax(rdkit_of(made("O")))
    (energy,) = gfn2_energies([relaxed.mol])
    assert energy == pytest.approx(-5.07, abs=0.01)
