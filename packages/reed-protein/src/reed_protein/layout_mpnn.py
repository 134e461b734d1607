"""The training set of ProteinMPNN as it is published (`pdb_2021aug02`), read chain by chain.

    list.csv             CHAINID, DEPOSITION, RESOLUTION, HASH, CLUSTER, SEQUENCE; one line per chain
    valid_clusters.txt   numbers of the clusters for validation; test_clusters.txt likewise
    pdb/XX/ID_CHAIN.pt   a dict with `seq` (a string) and `xyz` [L, 14, 3] (N, CA, C, O first, NaN where unresolved)

An epoch sees one chain of each cluster. Only the table is held in memory, without its sequences; a chain's file is
opened when the chain is asked for, as tensors, numpy arrays and plain values alone (`weights_only`). Chains are read by
themselves: assemblies (`ID.pt`) are not.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64
from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError

from reed_protein.complete import complete_chain
from reed_protein.dataset import Chain
from reed_protein.restricted import load_restricted

COLUMNS = ("CHAINID", "RESOLUTION", "CLUSTER", "SEQUENCE")
_TRIES = 1000
_RECONSTRUCT = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
SAFE: list[Any] = [
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")),
]


class MpnnLayout(BaseModel):
    """Which chains of the set.

    Attributes:
        layout: "proteinmpnn".
        folder: The unpacked archive; relative to REED_DATA.
        table: The table in it: list.csv, or list_filtered.csv of DRAKES and REED.
        part: Clusters named in valid_clusters.txt, in test_clusters.txt, or in neither.
        resolution: Worst resolution, angstrom; chains without one are left out. None takes all.
        max_length: Longest sequence, unresolved residues included; None takes all.
        min_length: Shortest sequence.
        members: An epoch sees a random member of each cluster, or always the first that passes.
        trim_tags: Leave out histidine tags at the ends.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal["proteinmpnn"]
    folder: str = "pdb_2021aug02"
    table: str = "list.csv"
    part: Literal["train", "valid", "test"] = "train"
    resolution: float | None = Field(3.5, gt=0)
    max_length: int | None = Field(None, ge=2)
    min_length: int = Field(2, ge=2)
    members: Literal["random", "first"] = "random"
    trim_tags: bool = False


class MpnnChains:
    """The chains of a part of the set.

    A chain with fewer than two complete residues is not usable, which shows only when it is read: the next one in the
    table, usually of the same cluster, takes its place.

    Args:
        layout: Which chains.
        folder: Where the set lies.

    Raises:
        InputError: If a table is missing or of another layout, or no chain passes.
    """

    def __init__(self, layout: MpnnLayout, folder: Path) -> None:
        self.layout, self.folder = layout, Path(folder)
        chosen = sorted(self._rows(), key=lambda row: (row[1], row[0]))
        if layout.members == "first":
            chosen = [row for place, row in enumerate(chosen) if not place or chosen[place - 1][1] != row[1]]
        if not chosen:
            raise InputError(f"no chain of {self.folder / layout.table} passes the filters of part {layout.part}")
        self.ids = tuple(row[0] for row in chosen)
        self._groups = np.array([row[1] for row in chosen], dtype=np.int64)
        self._lengths = np.array([row[2] for row in chosen], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Length of each sequence, unresolved residues included."""
        return self._lengths

    @property
    def groups(self) -> Int64[np.ndarray, " n"]:
        """The cluster of each chain."""
        return self._groups

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the chosen rows and the settings; the files of the chains are not opened for it."""
        digest = hashlib.sha256(json.dumps(self.layout.model_dump(exclude={"folder"}), sort_keys=True).encode())
        for name, length in zip(self.ids, self._lengths, strict=True):
            digest.update(f"{name} {length}\n".encode())
        return digest.hexdigest()

    def chain(self, item: int) -> Chain:
        """Reads one chain, or the next usable one.

        Raises:
            InputError: If its file is missing or is not what the layout says.
        """
        for step in range(min(_TRIES, len(self))):
            found = self._read(self.ids[(item + step) % len(self)])
            if found is not None:
                return found
        raise InputError(f"no chain of {self.folder} after {self.ids[item]} has two complete residues; check the files")

    def _read(self, name: str) -> Chain | None:
        path = self.folder / "pdb" / name[1:3] / f"{name}.pt"
        content = load_restricted(path, SAFE, "a chain of ProteinMPNN's training set")
        try:
            sequence, atoms = content["seq"], np.asarray(content["xyz"], dtype=np.float32)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"{path} lacks seq or xyz ({_brief(error)}); unpack the training set again") from error
        if not isinstance(sequence, str) or atoms.ndim != 3 or atoms.shape[0] != len(sequence) or atoms.shape[1] < 4:
            raise InputError(
                f"{path} holds atoms {list(atoms.shape)} for {len(sequence)} residues; expected [L, 14, 3]"
            )
        return complete_chain(name, sequence, atoms, self.layout.trim_tags)

    def _rows(self) -> Iterator[tuple[str, int, int]]:
        layout = self.layout
        valid, test = (_clusters(self.folder / f"{part}_clusters.txt") for part in ("valid", "test"))
        path = self.folder / layout.table
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                reader = csv.DictReader(stream)
                lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
                if lacking:
                    raise InputError(
                        f"{path} has no column {', '.join(lacking)}; expected those of ProteinMPNN's list.csv"
                    )
                for row in reader:
                    cluster, length = int(row["CLUSTER"]), len(row["SEQUENCE"])
                    part = "valid" if cluster in valid else "test" if cluster in test else "train"
                    if part != layout.part or not layout.min_length <= length <= (layout.max_length or length):
                        continue
                    if layout.resolution is not None and not 0 <= _number(row["RESOLUTION"]) <= layout.resolution:
                        continue
                    yield row["CHAINID"], cluster, length
        except FileNotFoundError as error:
            raise InputError(f"no table {path}; give the folder of the unpacked ProteinMPNN training set") from error
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise InputError(f"{path} cannot be read ({_brief(error)}); expected ProteinMPNN's list.csv") from error


def _clusters(path: Path) -> frozenset[int]:
    try:
        return frozenset(int(line) for line in path.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({_brief(error)}); expected one cluster number a line") from error


def _number(text: str) -> float:
    return float(text) if text.strip() else float("nan")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
