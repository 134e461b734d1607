"""Chains from arrays of atoms: what every training layout has in common once its files are read.

A residue without all of N, CA, C and O is left out, and its place in the chain stays open: `position` counts the
residues of the sequence, resolved or not.
"""

import re

import numpy as np
import torch
from jaxtyping import Float32

from reed_protein.backbone import ResidueArrays
from reed_protein.dataset import Chain
from reed_protein.residues import AMINO_ACIDS, UNKNOWN, tokens

LEAST = 2  # residues a chain needs
_TAG, _REACH = 6, 20


def complete_chain(name: str, sequence: str, atoms: Float32[np.ndarray, "l a 3"], trim_tags: bool) -> Chain | None:
    """A chain of the residues whose backbone is complete, or None if there are fewer than two.

    Args:
        name: Its name.
        sequence: One letter per residue; letters that are none of the twenty become unknown.
        atoms: N, CA, C, O (and more, which are not looked at), angstrom; not finite where unresolved.
        trim_tags: Leave out histidine tags at the ends (`tag_free`).
    """
    kept = np.isfinite(atoms[:, :4]).all(axis=(1, 2))
    if trim_tags:
        free = tag_free(sequence)
        kept[: free.start] = kept[free.stop :] = False
    where = np.flatnonzero(kept)
    if len(where) < LEAST:
        return None
    letters = "".join(letter if letter in AMINO_ACIDS else UNKNOWN for letter in sequence)
    known = torch.from_numpy(tokens(letters)[where])
    arrays = ResidueArrays(
        np.ascontiguousarray(atoms[where, :4], dtype=np.float32),
        where.astype(np.int64),
        np.zeros(len(where), dtype=np.int64),
    )
    return Chain(name, arrays, known)


def tag_free(sequence: str) -> range:
    """What a sequence is without histidine tags: six H or more within 20 residues of an end, and that end, are cut."""
    start, stop = 0, len(sequence)
    for found in re.finditer(f"H{{{_TAG},}}", sequence):
        if found.start() <= _REACH:
            start = found.end()
        elif len(sequence) - found.end() <= _REACH:
            stop = found.start()
            break
    return range(start, max(start, stop))
