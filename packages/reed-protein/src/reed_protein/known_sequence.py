"""A partly known sequence for a structure: letters that stand, X where to design.

`MKV..` is text or a FASTA file of one record (or one record per chain). Chains are parted by `/` or `:`, in the order
of the file. There is a letter for each residue that the structure has: residues missing from the file have none.
"""

from pathlib import Path

from reed_core.errors import InputError

from reed_protein import residues
from reed_protein.fasta import read_fasta, split_chains
from reed_protein.structure import Structure


def read_sequence(text: str) -> str:
    """The sequence of an option: the text itself, or what the FASTA file of that name holds, chains joined by `/`.

    Raises:
        InputError: If it is neither.
    """
    plain = "".join(text.split()).upper()
    if plain and all(letter in residues.ALPHABET + "/:" for letter in plain) and not Path(text).is_file():
        return plain
    if not Path(text).is_file():
        raise InputError(
            f"--sequence {text[:60]}: neither a FASTA file nor a sequence of {residues.ALPHABET} (X where to design)"
        )
    return "/".join(record.sequence for record in read_fasta(text))


def fitted(structure: Structure, sequence: str) -> str:
    """The sequence as one letter per residue.

    Args:
        structure: The structure.
        sequence: Letters, chains parted.

    Raises:
        InputError: If a chain has another number of residues, or a letter is unknown.
    """
    there = {chain: len(letters) for chain, letters in structure.chain_sequences().items()}
    parts = split_chains(sequence)
    given = [len(part) for part in parts]
    whole = "".join(parts)
    if given != list(there.values()):
        sizes = ", ".join(f"{chain} {count}" for chain, count in there.items())
        raise InputError(
            f"the sequence has {' + '.join(map(str, given))} letters, {structure.name} has residues {sizes}; "
            "give one letter for each residue that is there, X where to design, / between chains"
        )
    residues.tokens(whole)
    return whole
