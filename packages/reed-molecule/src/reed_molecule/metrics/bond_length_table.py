"""Bond lengths and valences of the EDM convention of stability: published numbers, no code of their own.

Lengths in pm, from the two tables that the EDM code names (wiredchemist "Bond energies and bond lengths";
chemistry-reference "Bond lengths and enthalpies"); margins 10, 5 and 3 pm and valences as in Hoogeboom et al. 2022,
"Equivariant diffusion for molecule generation in 3D", tuned there on QM9. They are kept as published, sulfur's
valence of 4 included, though it makes every thiol unstable: that is what the convention measures.
"""

from typing import Final

MARGINS_PM: Final = (10, 5, 3)

SINGLE_PM: Final = {
    ("H", "H"): 74, ("H", "C"): 109, ("H", "N"): 101, ("H", "O"): 96, ("H", "F"): 92, ("H", "B"): 119,
    ("H", "Si"): 148, ("H", "P"): 144, ("H", "As"): 152, ("H", "S"): 134, ("H", "Cl"): 127, ("H", "Br"): 141,
    ("H", "I"): 161,
    ("C", "C"): 154, ("C", "N"): 147, ("C", "O"): 143, ("C", "F"): 135, ("C", "Si"): 185, ("C", "P"): 184,
    ("C", "S"): 182, ("C", "Cl"): 177, ("C", "Br"): 194, ("C", "I"): 214,
    ("N", "N"): 145, ("N", "O"): 140, ("N", "F"): 136, ("N", "Cl"): 175, ("N", "Br"): 214, ("N", "S"): 168,
    ("N", "I"): 222, ("N", "P"): 177,
    ("O", "O"): 148, ("O", "F"): 142, ("O", "Br"): 172, ("O", "S"): 151, ("O", "P"): 163, ("O", "Si"): 163,
    ("O", "Cl"): 164, ("O", "I"): 194,
    ("F", "F"): 142, ("F", "S"): 158, ("F", "Si"): 160, ("F", "Cl"): 166, ("F", "Br"): 178, ("F", "P"): 156,
    ("F", "I"): 187,
    ("B", "Cl"): 175,
    ("Si", "Si"): 233, ("Si", "S"): 200, ("Si", "Cl"): 202, ("Si", "Br"): 215, ("Si", "I"): 243,
    ("P", "P"): 221, ("P", "Cl"): 203, ("P", "S"): 210, ("P", "Br"): 222,
    ("S", "S"): 204, ("S", "Cl"): 207, ("S", "Br"): 225, ("S", "I"): 234,
    ("Cl", "Cl"): 199, ("Cl", "Br"): 214,
    ("Br", "Br"): 228,
    ("I", "I"): 266,
}  # fmt: skip

DOUBLE_PM: Final = {
    ("C", "C"): 134, ("C", "N"): 129, ("C", "O"): 120, ("C", "S"): 160,
    ("N", "N"): 125, ("N", "O"): 121,
    ("O", "O"): 121, ("O", "P"): 150,
    ("P", "S"): 186,
}  # fmt: skip

TRIPLE_PM: Final = {("C", "C"): 120, ("C", "N"): 116, ("C", "O"): 113, ("N", "N"): 110}

VALENCES: Final = {
    "H": (1,), "C": (4,), "N": (3,), "O": (2,), "F": (1,), "B": (3,), "Al": (3,), "Si": (4,), "P": (3, 5), "S": (4,),
    "Cl": (1,), "As": (3,), "Br": (1,), "I": (1,), "Hg": (1, 2), "Bi": (3, 5),
}  # fmt: skip
