import numpy as np
import pytest
import torch
from molecule.metric_cases import drawn, made
from rdkit import Chem
from reed_molecule.build import MAX_RINGS, Failure, FailureKind, all_rdkit, independent_rings, rdkit_of, to_molecules
from reed_molecule.molecule import Molecule
from reed_molecule.vocabulary import DRUGS, QM9, Vocabulary

SCALE = 1.7


def state_of(molecules: list[Molecule], vocabulary: Vocabulary, pad: int = 3):
    """A padded state, with rubbish in the padding."""
    n = max(len(m) for m in molecules) + pad
    b = len(molecules)
    state = {
        "coords": torch.full((b, n, 3), 99.0),
        "types": torch.full((b, n), 77),
        "charges": torch.full((b, n), -5),
        "bonds": torch.full((b, n, n), 3),
    }
    real = torch.zeros(b, n, dtype=torch.bool)
    for k, m in enumerate(molecules):
        rows = slice(0, len(m))
        real[k, rows] = True
        state["coords"][k, rows] = torch.from_numpy(m.positions) / SCALE
        state["types"][k, rows] = torch.from_numpy(vocabulary.types_of(m.numbers))
        state["charges"][k, rows] = torch.from_numpy(vocabulary.charge_classes_of(m.charges))
        matrix = torch.zeros(len(m), len(m), dtype=torch.long)
        for i, j, class_ in m.bonds.tolist():
            matrix[i, j] = matrix[j, i] = class_
        state["bonds"][k, rows, rows] = matrix
    return state, {"coords": real}


def test_molecules_come_back_from_a_padded_state():
    given = [made("C"), made("c1ccccc1[N+](=O)[O-]"), made("C[NH3+]"), made("FC#N")]
    state, mask = state_of(given, DRUGS)
    for m, back in zip(given, to_molecules(state, mask, DRUGS, SCALE), strict=True):
        assert isinstance(back, Molecule)
        np.testing.assert_array_equal(back.numbers, m.numbers)
        np.testing.assert_array_equal(back.charges, m.charges)
        np.testing.assert_array_equal(back.bonds, m.bonds)
        np.testing.assert_allclose(back.positions, m.positions, atol=1e-5)
        found = rdkit_of(back)
        assert isinstance(found, Chem.Mol)
        assert Molecule.from_rdkit(found).smiles == m.smiles


@pytest.mark.parametrize(
    ("part", "place", "value", "kind"),
    [
        ("coords", (0, 1, 2), float("nan"), FailureKind.COORDINATES),
        ("coords", (0, 0, 0), float("inf"), FailureKind.COORDINATES),
        ("types", (0, 2), 5, FailureKind.CLASS),
        ("charges", (0, 0), -1, FailureKind.CLASS),
        ("bonds", (0, 0, 1), 5, FailureKind.CLASS),
        ("bonds", (0, 1, 2), 2, FailureKind.ASYMMETRIC),
        ("bonds", (0, 1, 1), 1, FailureKind.SELF_BOND),
    ],
)
def test_a_spoiled_state_is_a_named_failure_and_spoils_no_other(part, place, value, kind):
    state, mask = state_of([made("C"), made("O")], QM9)
    state[part][place] = value
    spoiled, whole = to_molecules(state, mask, QM9, SCALE)
    assert isinstance(spoiled, Failure)
    assert (spoiled.kind, spoiled.atoms) == (kind, 5)
    assert isinstance(whole, Molecule)


def test_an_empty_mask_is_a_failure():
    state, mask = state_of([made("C")], QM9)
    mask["coords"][:] = False
    (found,) = to_molecules(state, mask, QM9, SCALE)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.EMPTY


@pytest.mark.parametrize(
    ("molecule", "kind"),
    [
        (drawn([6, 1, 1, 1, 1, 1], [(0, k, 1) for k in range(1, 6)]), FailureKind.VALENCE),
        (drawn([6, 6, 6, 6, 6], [(0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 4, 4), (0, 4, 4)]), FailureKind.KEKULE),
        (drawn([6, 6], [(0, 1, 4)]), FailureKind.KEKULE),
        (drawn([6] * 14, [(i, j, 1) for i in range(14) for j in range(i)]), FailureKind.RINGS),
        (drawn([6, 6], [(0, 1, 1), (1, 0, 1)]), FailureKind.SANITISE),
    ],
)
def test_what_rdkit_refuses_is_named(molecule, kind):
    found = rdkit_of(molecule)
    assert isinstance(found, Failure)
    assert found.kind is kind
    assert found.atoms == len(molecule)
    assert "\n" not in found.message


def test_random_states_never_raise():
    generator = torch.Generator().manual_seed(3)
    n, b = 24, 60
    state = {
        "coords": torch.randn(b, n, 3, generator=generator),
        "types": torch.randint(0, 5, (b, n), generator=generator),
        "charges": torch.randint(0, 3, (b, n), generator=generator),
    }
    density = torch.rand(b, 1, 1, generator=generator) * 0.3
    upper = torch.where(
        torch.rand(b, n, n, generator=generator) < density, torch.randint(1, 5, (b, n, n), generator=generator), 0
    ).triu(1)
    state["bonds"] = upper + upper.transpose(1, 2)
    mask = {"coords": torch.rand(b, n, generator=generator) < 0.8}
    items = to_molecules(state, mask, QM9, 1.0)
    assert all(isinstance(item, Molecule) for item in items)
    outcomes = all_rdkit(items)
    assert len(outcomes) == b
    assert any(isinstance(outcome, Failure) for outcome in outcomes)


@pytest.mark.parametrize(("smiles", "rings"), [("CC", 0), ("c1ccccc1", 1), ("c1ccc2ccccc2c1", 2), ("C.C1CC1", 1)])
def test_independent_rings(smiles, rings):
    assert independent_rings(made(smiles)) == rings <= MAX_RINGS
