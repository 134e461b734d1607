"""3Di, the structural alphabet of Foldseek (doi 10.1038/s41587-023-01773-0), read from a FASTA file of its letters.

A letter of 3Di is a function of the backbone, which the network is given: I(z; x | c) = 0 (c is everything that says
more about x at no cost, THEORY section 0), so it tells nothing about the sequence that the condition does not. What it
can do is to teach the encoder where to look. Compare it with the shuffled control before believing in it.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from reed_core.errors import InputError
from reed_core.latent import Representation
from torch import Tensor

LETTERS = "ACDEFGHIKLMNPQRSTVWY"  # the twenty states; X and - are unknown


class StructuralAlphabet:
    """States as z: classes 0..19, one per resolved residue, found by the name of the chain.

    Args:
        path: A FASTA file: `>id` (up to the first space), then the letters, upper or lower case.
        name: A short name.

    Raises:
        InputError: If the file cannot be read or holds a letter that is no state.
    """

    dim = len(LETTERS)
    level: Literal["token"] = "token"

    def __init__(self, path: Path, name: str = "3di") -> None:
        self.name, self.path = name, Path(path)
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read 3Di states from {path} ({error}); give a FASTA file") from error
        self.fingerprint = "3di 1 " + hashlib.sha256(text.encode()).hexdigest()
        self._states: dict[str, str] = {}
        for entry in text.split(">")[1:]:
            header, *lines = entry.splitlines()
            states = "".join("".join(lines).split()).upper()
            odd = set(states) - set(LETTERS) - {"X", "-"}
            if odd or not header.split():
                raise InputError(
                    f"{path}: '{header[:40]}' holds {', '.join(sorted(odd)) or 'no name'}; give 3Di letters"
                )
            self._states[header.split()[0]] = states

    def __call__(
        self, x_0: Int[Tensor, "b n"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Looks a batch up.

        Raises:
            InputError: If a chain is not in the file, or has another length there.
        """
        z = torch.full(x_0.shape, -1)
        for row, name in enumerate(c.ids):
            states, length = self._states.get(name), int(c.mask[row].sum())
            if states is None:
                raise InputError(f"{self.path} has no 3Di states for chain {name}; add them, or leave the chain out")
            if len(states) != length:
                raise InputError(
                    f"{self.path} has {len(states)} 3Di states for the {length} resolved residues of chain {name}; "
                    "make them from the same coordinates"
                )
            z[row, c.mask[row]] = torch.tensor([LETTERS.find(letter) for letter in states])
        return Representation(z, z >= 0)
