"""Sequences that a person gives for a structure, checked against it chain by chain.

A record of a FASTA file gives every chain of the structure, in the order of the structure's file, with `/` or `:`
between chains; a letter for each residue that has coordinates, X where it is unknown. Nothing is cut, padded or joined.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from reed_core.errors import InputError

from reed_protein.fasta import FastaRecord, Value, read_fasta, split_chains
from reed_protein.residues import ALPHABET, tokens
from reed_protein.structure import Structure


@dataclass(frozen=True)
class GivenSequence:
    """A sequence of a structure.

    Attributes:
        name: What the header calls it.
        sequence: One letter per residue of the structure, chains in its order, without separators.
        temperature: From the header; None where it does not say.
        seed: From the header.
        sample: From the header.
    """

    name: str
    sequence: str
    temperature: Value | None = None
    seed: Value | None = None
    sample: Value | None = None


def native(structure: Structure) -> GivenSequence:
    """The structure's own sequence."""
    return GivenSequence(structure.name, structure.sequence)


def read_sequences(structure: Structure, path: Path) -> list[GivenSequence]:
    """The sequences of a FASTA file, plain or gzipped.

    Args:
        structure: What they are sequences of.
        path: The file.

    Raises:
        InputError: If the file cannot be read, or a record does not fit the structure.
    """
    records = read_fasta(path)
    return [_given(structure, record, f"record {index} of {path}") for index, record in enumerate(records, start=1)]


def token_rows(given: Sequence[GivenSequence]) -> Int64[np.ndarray, "s n"]:
    """The sequences as tokens, a row each."""
    return np.stack([tokens(item.sequence) for item in given])


def _given(structure: Structure, record: FastaRecord, where: str) -> GivenSequence:
    parts = split_chains(record.sequence)
    expected = {chain: structure.chain_ids.count(chain) for chain in structure.chains}
    lengths = [len(part) for part in parts]
    if lengths != list(expected.values()):
        raise InputError(_misfit(structure, where, lengths, expected))
    for chain, part in zip(expected, parts, strict=True):
        strange = next((at for at, letter in enumerate(part) if letter not in ALPHABET), None)
        if strange is not None:
            raise InputError(
                f"{where} has '{part[strange]}' at position {strange + 1} of chain {chain}; "
                f"expected letters of {ALPHABET}, X for an unknown residue"
            )
    fields = record.fields
    return GivenSequence(
        record.name,
        "".join(parts),
        fields.get("temperature", fields.get("T")),
        fields.get("seed"),
        fields.get("sample"),
    )


def _misfit(structure: Structure, where: str, lengths: list[int], expected: dict[str, int]) -> str:
    wanted = ", ".join(f"{chain} ({length})" for chain, length in expected.items())
    got = " + ".join(map(str, lengths))
    if len(lengths) == 1 and len(expected) > 1 and lengths[0] == sum(expected.values()):
        advice = "put / or : between the chains"
    elif sorted(lengths) == sorted(expected.values()):
        advice = "give the chains in that order"
    elif len(lengths) != len(expected):
        advice = "give every chain, with / or : between chains, or choose chains with --chains"
    else:
        advice = "give a letter for each residue with coordinates, X where it is unknown"
    return f"{where} has {got} letters, {structure.name} has chains {wanted}; {advice}"
