"""The placed oxygen: its angles by construction, and what must not matter."""

import numpy as np
import pytest
from reed_protein.oxygen import dihedral, place_oxygen


def angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    one, other = a - b, c - b
    return float(np.degrees(np.arccos(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))))


def test_dihedral_of_known_points() -> None:
    a, b, c = np.array([1.0, 0, 0]), np.zeros(3), np.array([0, 0, 1.0])
    for degrees in (-170.0, -90.0, -1.0, 0.0, 45.0, 90.0, 180.0):
        turned = np.radians(degrees)
        # Looking along b -> c, a clockwise turn is positive.
        d = np.array([np.cos(turned), np.sin(turned), 1.0])
        assert np.degrees(dihedral(a, b, c, d)) == pytest.approx(degrees, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_bond_angle_plane_and_rigid_motion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, ca, c, following = rng.normal(size=(4, 3))
    o = place_oxygen(n, ca, c, following)
    assert np.linalg.norm(o - c) == pytest.approx(1.231)
    assert angle(ca, c, o) == pytest.approx(120.1)
    # In the plane of CA, C and the next N, on the other side of the axis CA-C.
    assert np.linalg.det(np.stack([ca - c, following - c, o - c])) == pytest.approx(0.0, abs=1e-9)
    difference = dihedral(n, ca, c, o) - dihedral(n, ca, c, following)
    assert np.cos(difference) == pytest.approx(-1.0)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.linalg.det(rotation)
    moved = place_oxygen(*(point @ rotation.T + 3.0 for point in (n, ca, c, following)))
    np.testing.assert_allclose(moved, o @ rotation.T + 3.0, atol=1e-9)


def test_without_a_next_residue_and_in_a_straight_line_it_is_still_a_place() -> None:
    n, ca, c = np.array([1.46, 0, 0]), np.zeros(3), np.array([-0.55, 1.42, 0])
    o = place_oxygen(n, ca, c, None)
    assert angle(ca, c, o) == pytest.approx(120.1)
    assert np.degrees(dihedral(n, ca, c, o)) == pytest.approx(140.0)
    straight = place_oxygen(np.zeros(3), np.eye(3)[0], 2 * np.eye(3)[0], None)
    assert np.linalg.norm(straight - 2 * np.eye(3)[0]) == pytest.approx(1.231)
