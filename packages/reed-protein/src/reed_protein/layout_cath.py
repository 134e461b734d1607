"""The CATH sets in the JSON-lines layout of Ingraham et al.: `chain_set.jsonl` beside a file of splits.

    a line of the set    {"name": "3fkf.A", "seq": "...", "coords": {"N": [[x, y, z], ...], "CA": .., "C": .., "O": ..}}
                         (or coords as [L][4][3]: N, CA, C, O); null or NaN where a residue is unresolved
    the splits           {"train": [names], "validation": [names], "test": [names]}

Lines are read one at a time and only the wanted chains are kept: 56 bytes a residue and some, about 250 MB for the
18,024 training chains of CATH 4.2.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError

from reed_protein.complete import complete_chain
from reed_protein.dataset import ChainSet
from reed_protein.residues import AMINO_ACIDS

ATOMS = ("N", "CA", "C", "O")


class CathLayout(BaseModel):
    """Which chains of the set.

    Attributes:
        layout: "cath".
        path: The JSON-lines file; relative to REED_DATA.
        splits: The file of splits; None takes every chain.
        part: The list in it: train, validation, test, or another that is there.
        max_length: Longest sequence; None takes all.
        skip_unknown: Leave out chains with a letter that is none of the twenty, as PiFold and ProteinInvBench do.
        trim_tags: Leave out histidine tags at the ends.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal["cath"]
    path: str = "chain_set.jsonl"
    splits: str | None = "chain_set_splits.json"
    part: str = "train"
    max_length: int | None = Field(None, ge=2)
    skip_unknown: bool = False
    trim_tags: bool = False


def read_cath(layout: CathLayout, path: Path, splits: Path | None) -> ChainSet:
    """Reads the wanted chains, in the order of the file.

    Args:
        layout: Which.
        path: The JSON-lines file.
        splits: The file of splits, or None for all chains.

    Raises:
        InputError: If a file is missing or of another layout, a chain of the split is not there, or none is left.
    """
    wanted = None if splits is None else _names(splits, layout.part)
    seen: set[str] = set()
    chains = []
    for name, record in _records(path):
        if (wanted is not None and name not in wanted) or name in seen:
            continue
        seen.add(name)
        sequence = str(record["seq"])
        if len(sequence) > (layout.max_length or len(sequence)):
            continue
        if layout.skip_unknown and set(sequence) - set(AMINO_ACIDS):
            continue
        chain = complete_chain(name, sequence, _atoms(path, name, record, len(sequence)), layout.trim_tags)
        if chain is not None:
            chains.append(chain)
    if wanted is not None and wanted - seen:
        raise InputError(
            f"{path} lacks {len(wanted - seen)} chains of the split '{layout.part}' ({min(wanted - seen)}, ...); "
            "give the set that belongs to the splits"
        )
    if not chains:
        raise InputError(f"no chain of {path} passes the filters of split '{layout.part}'")
    return ChainSet(*(tuple(column) for column in zip(*chains, strict=True)))


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    yield str(record["name"]), {"seq": record["seq"], "coords": record["coords"]}
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(
                        f"line {number} of {path} is not a chain ({error}); expected JSON with name, seq and coords"
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}); expected a chain_set.jsonl") from error


def _names(path: Path, part: str) -> frozenset[str]:
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        return frozenset(map(str, splits[part]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no split '{part}' in {path} ({error}); expected JSON with a list of names") from error


def _atoms(path: Path, name: str, record: dict[str, Any], length: int) -> Float32[np.ndarray, "l 4 3"]:
    coords = record["coords"]
    try:
        if isinstance(coords, dict):
            atoms = np.stack([np.array(coords[atom], dtype=np.float32) for atom in ATOMS], axis=1)
        else:
            atoms = np.array(coords, dtype=np.float32)
        if atoms.shape != (length, 4, 3):
            raise ValueError(f"shape {atoms.shape}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"chain {name} of {path}: coords do not fit its {length} residues ({error}); expected N, CA, C, O of each"
        ) from error
    return atoms
