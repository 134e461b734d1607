"""Valences allowed to an atom by its element and formal charge: published numbers, no code of their own.

`AROMATIC_AND_REST` is the corrected table of Nikitin et al. 2025, "GEOM-Drugs revisited": each allowed pair is (number
of aromatic bonds, integer valence of all other bonds); an aromatic bond is never given an order. `LEGACY` is the table
of MiDi (Vignac et al. 2023), also used by later systems: one integer, widened until it agreed with aromatic bonds
that were meant to count 1.5 and were truncated to 1. It is kept only to compare with their published figures. An
integer entry of the published table ("B": 3) allows that valence at any charge, and a charge the table lacks falls
back to charge 0; both are written out by `None` here.
"""

from typing import Final

AROMATIC_AND_REST: Final = {
    ("H", 0): ((0, 1),),
    ("C", 0): ((0, 4), (2, 2), (2, 1), (3, 0)),
    ("C", -1): ((0, 3), (2, 1), (3, 0)),
    ("C", 1): ((0, 3), (2, 1), (3, 0)),
    ("N", 0): ((0, 3), (2, 0), (2, 1), (3, 0)),
    ("N", 1): ((0, 4), (2, 0), (2, 1), (2, 2), (3, 0)),
    ("N", -1): ((0, 2), (2, 0)),
    ("N", -2): ((0, 1),),
    ("O", 0): ((0, 2), (2, 0)),
    ("O", -1): ((0, 1),),
    ("O", 1): ((0, 3),),
    ("F", 0): ((0, 1),),
    ("S", 0): ((0, 2), (0, 3), (0, 6), (2, 0)),
    ("S", 1): ((0, 3), (2, 0), (2, 1), (3, 0)),
    ("S", 2): ((0, 4), (2, 1), (2, 2)),
    ("S", 3): ((0, 2), (0, 5)),
    ("S", -1): ((0, 1),),
    ("P", 0): ((0, 3), (0, 5)),
    ("P", 1): ((0, 4),),
    ("Cl", 0): ((0, 1),),
    ("Cl", 1): ((0, 2),),
    ("Br", 0): ((0, 1),),
    ("Br", 1): ((0, 2),),
    ("I", 0): ((0, 1),),
    ("I", 1): ((0, 2),),
    ("I", 2): ((0, 3),),
    ("B", 0): ((0, 3),),
    ("B", -1): ((0, 4),),
    ("Si", 0): ((0, 4),),
    ("Si", 1): ((0, 5),),
    ("Bi", 0): ((0, 3),),
    ("Bi", 2): ((0, 5),),
}

LEGACY: Final[dict[str, dict[int | None, tuple[int, ...]]]] = {
    "H": {None: (1,), 1: (0,), -1: (0,)},
    "C": {None: (3, 4), 1: (3,), -1: (3,)},
    "N": {None: (2, 3), 1: (2, 3, 4), -1: (2,)},
    "O": {None: (2,), 1: (3,), -1: (1,)},
    "F": {None: (1,), -1: (0,)},
    "B": {None: (3,)},
    "Al": {None: (3,)},
    "Si": {None: (4,)},
    "P": {None: (3, 5), 1: (4,)},
    "S": {None: (2, 6), 1: (2, 3), 2: (4,), 3: (5,), -1: (3,)},
    "Cl": {None: (1,)},
    "As": {None: (3,)},
    "Br": {None: (1,), 1: (2,)},
    "I": {None: (1,)},
    "Hg": {None: (1, 2)},
    "Bi": {None: (3, 5)},
    "Se": {None: (2, 4, 6)},
}
