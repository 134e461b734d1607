"""The file of a prepared set: one safetensors file, arrays end to end, read through a memory map. Imports no torch.

array           type         what
numbers         U8  [A]      atomic numbers
charges         I8  [A]      formal charges
positions       I16 [A, 3]   angstrom / 0.001, each molecule centred: exact to 0.0005, up to 32.7 from its centre
bonds           I16 [B, 3]   i, j within the molecule, class 1 to 4
offsets         I64 [n + 1]  where the atoms of each molecule begin
bond_offsets    I64 [n + 1]  its bonds
identities      I64 [n]      hash of the canonical SMILES without stereo
split           U8  [n]      0 train, 1 valid, 2 test
texts           U8  [C]      name, a newline, SMILES: UTF-8
text_offsets    I64 [n + 1]
properties      F64 [n, p]   named numbers, NaN where unknown; absent where there are none
The metadata has one entry, `reed_molecule`: JSON of `format`, `geometry`, `symbols`, `charges`, `split`, `sources`,
`dropped`, and of the units of the `properties` by name, in the order of their columns, where there are some.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8, Int16, Int64, Integer, UInt8
from reed_core.errors import InputError
from reed_core.files import write_with
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from reed_molecule.molecule import Molecule
from reed_molecule.properties import Table
from reed_molecule.readers.source import GEOMETRIES, Geometry
from reed_molecule.vocabulary import AROMATIC, MAX_ATOMIC_NUMBER, Vocabulary

FORMAT = "reed-molecule set 1"
_ENTRY = "reed_molecule"
STEP = 0.001  # angstrom of one unit of `positions`
REACH = 32.767  # angstrom from the centre that positions can hold
_TYPES = {
    "numbers": np.uint8,
    "charges": np.int8,
    "positions": np.int16,
    "bonds": np.int16,
    "offsets": np.int64,
    "bond_offsets": np.int64,
    "identities": np.int64,
    "split": np.uint8,
    "texts": np.uint8,
    "text_offsets": np.int64,
}
_PROPERTIES = "properties"
_DTYPES = {"F64": np.float64, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "I64": np.int64}


@dataclass(frozen=True)
class About:
    """What a set says of itself.

    Attributes:
        geometry: Where all of its coordinates come from.
        vocabulary: Elements and charges it may hold.
        split: How it was split, in words.
        sources: The files it was made of, in words.
        dropped: How many records were not used, by reason.
    """

    geometry: Geometry
    vocabulary: Vocabulary
    split: str = ""
    sources: tuple[str, ...] = ()
    dropped: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Stored:
    """The arrays of a set, in memory or mapped from its file; see the table above.

    Attributes:
        numbers: Atomic numbers.
        charges: Formal charges.
        positions: Coordinates in steps of `STEP` angstrom.
        bonds: Bonds within each molecule.
        offsets: Where atoms begin.
        bond_offsets: Where bonds begin.
        identities: Which molecule each is.
        split: Which split each is in.
        texts: Names and SMILES.
        text_offsets: Where they begin.
        about: What the set says of itself.
        properties: Named numbers of each molecule.
    """

    numbers: UInt8[np.ndarray, " A"]
    charges: Int8[np.ndarray, " A"]
    positions: Int16[np.ndarray, "A 3"]
    bonds: Int16[np.ndarray, "B 3"]
    offsets: Int64[np.ndarray, " n_1"]
    bond_offsets: Int64[np.ndarray, " n_1"]
    identities: Int64[np.ndarray, " n"]
    split: UInt8[np.ndarray, " n"]
    texts: UInt8[np.ndarray, " C"]
    text_offsets: Int64[np.ndarray, " n_1"]
    about: About
    properties: Table

    def __len__(self) -> int:
        return len(self.identities)

    def molecule(self, i: int) -> Molecule:
        """One molecule, centred at the mean of its atoms."""
        atoms = slice(self.offsets[i], self.offsets[i + 1])
        bonds = slice(self.bond_offsets[i], self.bond_offsets[i + 1])
        text = bytes(self.texts[self.text_offsets[i] : self.text_offsets[i + 1]]).decode()
        name, _, smiles = text.partition("\n")
        return Molecule(
            numbers=self.numbers[atoms].astype(np.int64),
            positions=self.positions[atoms].astype(np.float32) * np.float32(STEP),
            charges=self.charges[atoms].astype(np.int64),
            bonds=self.bonds[bonds].astype(np.int64),
            name=name,
            smiles=smiles,
        )

    @property
    def sizes(self) -> Int64[np.ndarray, " n"]:
        """Atoms of each molecule."""
        return np.diff(self.offsets)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the molecules: arrays, geometry and vocabulary, without `properties`."""
        about = self.about
        digest = hashlib.sha256(f"{about.geometry} {about.vocabulary.symbols} {about.vocabulary.charges}".encode())
        for name, array in self._arrays().items():
            digest.update(f" {name} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def with_split(self, split: UInt8[np.ndarray, " n"], how: str) -> "Stored":
        """The same molecules in other splits."""
        return replace(self, split=split, about=replace(self.about, split=how))

    def chosen(self, items: Integer[np.ndarray, " k"]) -> "Stored":
        """Some of the molecules, copied, in the order given."""
        atoms, offsets = _spans(self.offsets, items)
        bonds, bond_offsets = _spans(self.bond_offsets, items)
        texts, text_offsets = _spans(self.text_offsets, items)
        return Stored(
            self.numbers[atoms], self.charges[atoms], self.positions[atoms], self.bonds[bonds], offsets, bond_offsets,
            self.identities[items], self.split[items], self.texts[texts], text_offsets, self.about,
            self.properties.rows(items),
        )  # fmt: skip

    def write(self, path: Path | str) -> None:
        """Writes the file, whole or not at all.

        Raises:
            InputError: If it cannot be written.
        """
        about = self.about
        # One entry, because safetensors writes several in no fixed order: the same set is the same file.
        described: dict[str, Any] = {
            "format": FORMAT,
            "geometry": about.geometry,
            "symbols": about.vocabulary.symbols,
            "charges": about.vocabulary.charges,
            "split": about.split,
            "sources": about.sources,
            "dropped": dict(about.dropped or {}),
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        if self.properties.units:
            described[_PROPERTIES] = dict(self.properties.units)
            arrays[_PROPERTIES] = np.ascontiguousarray(self.properties.values)
        write_with(path, lambda aside: save_file(arrays, aside, {_ENTRY: json.dumps(described)}))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in _TYPES}


def pack(
    molecules: Sequence[Molecule], identities: Sequence[int], about: About, properties: Table | None = None
) -> Stored:
    """Packs molecules, all in the split "train" until they are assigned.

    Args:
        molecules: The molecules.
        identities: The identity of each (`splits.identity`).
        about: What the set says of itself.
        properties: Named numbers of each; None for none.

    Raises:
        InputError: If a molecule reaches further than `REACH`, or has what the vocabulary lacks.
    """
    numbers = _joined([molecule.numbers for molecule in molecules], np.zeros(0, dtype=np.int64))
    charges = _joined([molecule.charges for molecule in molecules], np.zeros(0, dtype=np.int64))
    about.vocabulary.types_of(numbers)
    about.vocabulary.charge_classes_of(charges)
    positions = [centred(molecule.positions) for molecule in molecules]
    for molecule, place in zip(molecules, positions, strict=True):
        if not (np.abs(place) <= REACH).all():
            raise InputError(f"{molecule.name or 'a molecule'} reaches further than {REACH} angstrom from its centre")
    texts = [" ".join(molecule.name.split()).encode() + b"\n" + molecule.smiles.encode() for molecule in molecules]
    return Stored(
        numbers=numbers.astype(np.uint8),
        charges=charges.astype(np.int8),
        positions=np.rint(_joined(positions, np.zeros((0, 3))) / STEP).astype(np.int16),
        bonds=_joined([molecule.bonds for molecule in molecules], np.zeros((0, 3))).astype(np.int16),
        offsets=_ends([len(molecule) for molecule in molecules]),
        bond_offsets=_ends([len(molecule.bonds) for molecule in molecules]),
        identities=np.array(identities, dtype=np.int64),
        split=np.zeros(len(molecules), dtype=np.uint8),
        texts=np.frombuffer(b"".join(texts), dtype=np.uint8),
        text_offsets=_ends([len(text) for text in texts]),
        about=about,
        properties=Table.empty(len(molecules)) if properties is None else properties,
    )


def joined(parts: Sequence[Stored]) -> Stored:
    """One set of several, in memory.

    Raises:
        InputError: If there is none, or geometry or vocabulary differ, or units of a property: MMFF and DFT coordinates
            never mix.
    """
    if not parts:
        raise InputError("no set of molecules to join; give at least one")
    first = parts[0].about
    for part in parts[1:]:
        if part.about.geometry != first.geometry:
            raise InputError(
                f"sets of {first.geometry} and {part.about.geometry} geometry do not mix: a model would learn both; "
                "prepare and train them apart"
            )
        if part.about.vocabulary != first.vocabulary:
            raise InputError("sets of different vocabularies do not mix; prepare them with the same one")
    dropped: dict[str, int] = {}
    for part in parts:
        for reason, count in (part.about.dropped or {}).items():
            dropped[reason] = dropped.get(reason, 0) + count
    sources = tuple(dict.fromkeys(source for part in parts for source in part.about.sources))
    ways = "; ".join(dict.fromkeys(part.about.split for part in parts if part.about.split))
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _TYPES if "offsets" not in name}
    ends = {
        name: _ends(np.concatenate([np.diff(getattr(part, name)) for part in parts]))
        for name in _TYPES
        if "offsets" in name
    }
    about = replace(first, dropped=dropped, sources=sources, split=ways)
    return Stored(**whole, **ends, about=about, properties=Table.joined([part.properties for part in parts]))


def read(path: Path | str) -> Stored:
    """Maps a file written by `Stored.write`.

    Raises:
        InputError: If it is missing or not such a file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            said = json.loads((file.metadata() or {}).get(_ENTRY, "{}"))
        if said.get("format") != FORMAT:
            raise InputError(f"{path} is not a prepared set of this version; make it with `reed-molecule prepare`")
        if said["geometry"] not in GEOMETRIES:
            raise InputError(f"{path}: geometry {said['geometry']!r} is not one of {', '.join(GEOMETRIES)}")
        vocabulary = Vocabulary(tuple(said["symbols"]), tuple(said["charges"]))
        about = About(said["geometry"], vocabulary, said["split"], tuple(said["sources"]), said["dropped"])
        units = dict(said.get(_PROPERTIES, {}))
        arrays = _mapped(Path(path), {**_TYPES, _PROPERTIES: np.float64} if units else _TYPES)
        _check(path, arrays)
        values = arrays.pop(_PROPERTIES, np.zeros((len(arrays["identities"]), 0)))
        if values.shape != (len(arrays["identities"]), len(units)):
            raise InputError(f"{path}: its properties do not fit its molecules; prepare it again")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"no prepared set at {path}; make one with `reed-molecule prepare`") from error
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a prepared set ({error}); make it with `reed-molecule prepare`") from error
    return Stored(**arrays, about=about, properties=Table(units, values))


def is_stored(path: Path | str) -> bool:
    """Whether a file looks like one that `Stored.write` wrote."""
    try:
        with safe_open(path, framework="numpy") as file:
            return _ENTRY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def centred(positions: np.ndarray) -> np.ndarray:
    """Positions about the mean of the atoms, computed in float64."""
    exact = positions.astype(np.float64)
    return exact - exact.mean(axis=0, keepdims=True) if len(exact) else exact


def _mapped(path: Path, types: Mapping[str, Any]) -> dict[str, np.ndarray]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    arrays: dict[str, np.ndarray] = {}
    for name, expected in types.items():
        entry, kind = header[name], np.dtype(expected)
        if _DTYPES.get(entry["dtype"]) != kind:
            raise InputError(f"{path}: `{name}` is {entry['dtype']}; expected {kind.name}")
        shape, start = tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        empty = 0 in shape
        arrays[name] = np.zeros(shape, kind) if empty else np.memmap(path, kind, "r", start, shape)
    return arrays


def _check(path: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    n, atoms = len(arrays["identities"]), len(arrays["numbers"])
    lengths = {"offsets": atoms, "bond_offsets": len(arrays["bonds"]), "text_offsets": len(arrays["texts"])}
    whole = arrays["positions"].shape == (atoms, 3) and arrays["charges"].shape == (atoms,)
    whole &= arrays["bonds"].shape[1:] == (3,) and arrays["split"].shape == (n,)
    for name, total in lengths.items():
        ends = arrays[name]
        whole &= ends.shape == (n + 1,) and ends[0] == 0 and ends[-1] == total and bool((np.diff(ends) >= 0).all())
    if not whole or (atoms and not 1 <= arrays["numbers"].min() <= arrays["numbers"].max() <= MAX_ATOMIC_NUMBER):
        raise InputError(f"{path}: its arrays do not fit each other; prepare it again")
    bonds = arrays["bonds"]
    owner = np.repeat(np.diff(arrays["offsets"]), np.diff(arrays["bond_offsets"]))
    inside = (bonds[:, :2] >= 0).all() and (bonds[:, :2] < owner[:, None]).all()
    if not inside or not ((bonds[:, 2] >= 1) & (bonds[:, 2] <= AROMATIC)).all():
        raise InputError(f"{path}: a bond names an atom or a class that does not exist; prepare it again")


def _spans(ends: Int64[np.ndarray, " n_1"], items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of some items, end to end, and where each begins among them."""
    lengths = np.diff(ends)[items]
    fresh = _ends(lengths)
    return np.repeat(ends[:-1][items] - fresh[:-1], lengths) + np.arange(fresh[-1]), fresh


def _ends(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _joined(arrays: Sequence[np.ndarray], empty: np.ndarray) -> np.ndarray:
    return np.concatenate(arrays) if arrays else empty
