"""A protein backbone as the model sees it, and the way to read one from a file.

A `Structure` is L residues in file order with four atoms each (N, CA, C, O; angstrom), a letter each, and the author's
chain ids and numbers. Nothing in it is invented: a residue without N, CA or C is not there. Two residues are linked
when the peptide bond between them is there: same chain and |C_i - N_{i+1}| <= 2.0 A (the bond is 1.33 A long);
everything else is a break.

Residue ids are `A52`, `H100A` (insertion code A); chain ids of several characters come from mmCIF (`AA52`). The rule,
with its one exception for chain ids that end in a digit (`A1:52`), is `residues.residue_id`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64
from reed_core.errors import InputError

from reed_protein import residues

MIN_RESIDUES = 2
LINK_ANGSTROM = 2.0


@dataclass(frozen=True, eq=False)
class Unseen:
    """A molecule, an ion or a residue that the file holds and the model does not see.

    Attributes:
        name: Its residue name (`ZN`), or what it is (`nucleotide`).
        coords: Its atoms, angstrom, finite.
    """

    name: str
    coords: Float32[np.ndarray, "a 3"]


@dataclass(frozen=True, eq=False)
class Structure:
    """A backbone: L residues of one or more chains, in file order.

    Attributes:
        name: File stem or entry id.
        coords: Atoms N, CA, C, O of each residue, angstrom, finite.
        sequence: L letters of `residues.ALPHABET`.
        chain_ids: Author chain id of each residue; a chain's residues stand together.
        residue_ids: Author id of each residue (`A52`, `H100A`), unique.
        residue_numbers: Author number of each residue.
        notes: What the reader mapped, skipped or chose, one short line each.
        unseen: What else the file holds near the protein and the model does not see (waters apart), with its atoms.
    """

    name: str
    coords: Float32[np.ndarray, "l 4 3"]
    sequence: str
    chain_ids: tuple[str, ...]
    residue_ids: tuple[str, ...]
    residue_numbers: Int32[np.ndarray, " l"]
    notes: tuple[str, ...] = ()
    unseen: tuple["Unseen", ...] = ()

    def __post_init__(self) -> None:
        lengths = {
            "coords": len(self.coords),
            "sequence": len(self.sequence),
            "chain_ids": len(self.chain_ids),
            "residue_ids": len(self.residue_ids),
            "residue_numbers": len(self.residue_numbers),
        }
        if len(set(lengths.values())) != 1:
            raise InputError(f"a structure needs one length for all of its columns, got {lengths}")
        if self.coords.shape[1:] != (4, 3):
            raise InputError(f"coords must have shape [L, 4, 3] (N, CA, C, O), got {list(self.coords.shape)}")
        if not np.isfinite(self.coords).all():
            raise InputError(f"coordinates of {self.name} are not all finite; correct or delete those residues")
        residues.tokens(self.sequence)

    def __len__(self) -> int:
        return len(self.sequence)

    @cached_property
    def chains(self) -> tuple[str, ...]:
        """The chain ids, each once, in file order."""
        return tuple(dict.fromkeys(self.chain_ids))

    @cached_property
    def place_of(self) -> dict[str, int]:
        """The place of each residue by its author id."""
        return {residue: place for place, residue in enumerate(self.residue_ids)}

    @cached_property
    def chain_index(self) -> Int64[np.ndarray, " l"]:
        """The chain of each residue as an index into `chains`."""
        order = {chain: index for index, chain in enumerate(self.chains)}
        return np.array([order[chain] for chain in self.chain_ids], dtype=np.int64)

    @cached_property
    def breaks(self) -> Bool[np.ndarray, " l"]:
        """True where a residue is not peptide-bonded to the one before it; the first residue of each chain is True."""
        linked = np.zeros(len(self), dtype=bool)
        if len(self) > 1:
            gap = np.linalg.norm(self.coords[1:, 0] - self.coords[:-1, 2], axis=-1)
            linked[1:] = (gap <= LINK_ANGSTROM) & (self.chain_index[1:] == self.chain_index[:-1])
        return ~linked

    @cached_property
    def insertion_codes(self) -> tuple[str, ...]:
        """The insertion code of each residue, a letter or the empty string."""
        plain = map(residues.residue_id, self.chain_ids, (int(number) for number in self.residue_numbers))
        return tuple(full[len(stem) :] for full, stem in zip(self.residue_ids, plain, strict=True))

    def chain_sequences(self) -> dict[str, str]:
        """The sequence of each chain, in file order."""
        parts: dict[str, list[str]] = {chain: [] for chain in self.chains}
        for chain, letter in zip(self.chain_ids, self.sequence, strict=True):
            parts[chain].append(letter)
        return {chain: "".join(letters) for chain, letters in parts.items()}

    def select(self, chains: Sequence[str]) -> "Structure":
        """The residues of some chains, still in file order.

        Args:
            chains: Chain ids of this structure, in any order.

        Raises:
            InputError: If one of them is not there, or none is given.
        """
        wanted = check_chains(self.name, chains, self.chains)
        keep = [index for index, chain in enumerate(self.chain_ids) if chain in wanted]
        return replace(
            self,
            coords=self.coords[keep],
            sequence="".join(self.sequence[index] for index in keep),
            chain_ids=tuple(self.chain_ids[index] for index in keep),
            residue_ids=tuple(self.residue_ids[index] for index in keep),
            residue_numbers=self.residue_numbers[keep],
        )


def check_chains(name: str, wanted: Sequence[str], there: Sequence[str]) -> frozenset[str]:
    """The wanted chain ids as a set, if all of them are there.

    Raises:
        InputError: If a chain is not there (the message lists those that are), or `wanted` is empty or a bare string.
    """
    if isinstance(wanted, str):
        raise InputError(f"chains must be a list of chain ids, got the text '{wanted}'; give ['A', 'B']")
    if not wanted:
        raise InputError(f"no chain was asked for; {name} has {', '.join(there)}: name some, or leave chains out")
    absent = [chain for chain in dict.fromkeys(wanted) if chain not in there]
    if absent:
        plural = "chains" if len(absent) > 1 else "chain"
        raise InputError(
            f"{plural} {', '.join(absent)} not among the protein chains of {name}, which are {', '.join(there)}; "
            "choose from those"
        )
    return frozenset(wanted)


def single_chain(
    name: str,
    coords: Float32[np.ndarray, "l 4 3"],
    sequence: str,
    chain: str = "A",
    numbers: Int32[np.ndarray, " l"] | None = None,
) -> Structure:
    """A structure of one chain from arrays.

    Args:
        name: Its name.
        coords: N, CA, C, O, angstrom.
        sequence: Letters of `residues.ALPHABET`.
        chain: The chain id.
        numbers: Author numbers; 1 to L if absent.
    """
    if numbers is None:
        numbers = np.arange(1, len(coords) + 1, dtype=np.int32)
    return Structure(
        name=name,
        coords=coords,
        sequence=sequence,
        chain_ids=(chain,) * len(coords),
        residue_ids=tuple(residues.residue_id(chain, int(number)) for number in numbers),
        residue_numbers=numbers,
    )


def read_structure(path: str | Path, chains: Sequence[str] | None = None, model: int = 1) -> Structure:
    """Reads the protein backbone of a PDB or mmCIF file, plain or gzipped.

    The format is told by the first line and by the suffix (.pdb, .ent, .pdb1, .cif, .mmcif, each also .gz). What is
    kept, mapped and left out is described in `reed_protein.assemble`; the structure's `notes` say what happened.

    Args:
        path: The file.
        chains: Author chain ids to keep; all protein chains if None.
        model: Which model of the file, counted from 1 in its order.

    Raises:
        InputError: If the file cannot be read, holds no usable backbone, or lacks a wanted chain or that model.
    """
    from reed_protein import assemble, read_mmcif, read_pdb, structure_file

    source = structure_file.load(Path(path))
    if model < 1:
        raise InputError(f"model is {model}; expected 1 or more, counted in the order of the file")
    table = (read_mmcif if source.format == "mmcif" else read_pdb).atoms(source, model)
    if not table.atoms and table.models:
        raise InputError(f"{source.name} has {table.models} model{'s' * (table.models > 1)}, no model {model}")
    return assemble.structure(source.name, table, chains)
