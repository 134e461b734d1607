"""Rows of one shape, in mapped files or on a device, and their gather into a batch.

A mapped file costs memory only for the pages that are read, and those are shared by the processes of a machine.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reed_core.errors import InputError


def mapped(path: Path | str) -> dict[str, Tensor]:
    """The arrays of a file, mapped into memory: writing to them changes this process's copy alone.

    Args:
        path: A .safetensors file, or a .npy file, whose one array is named as the file.

    Raises:
        InputError: If it cannot be read, or is neither.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as held:
                return {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
        if path.suffix == ".npy":
            return {path.stem: torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))}
    except (OSError, EOFError, ValueError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read arrays from {path}: {reason}; write it again") from error
    raise InputError(f"cannot read arrays from {path}: expected a .npy or .safetensors file")


class Rows:
    """Rows of one shape and type, from one tensor or several in a row.

    Args:
        parts: Tensors [n_i, ...]; row 0 of a part follows the last row of the part before.

    Raises:
        InputError: If there is no part, or parts differ in the shape of a row, type or device.
    """

    def __init__(self, *parts: Shaped[Tensor, "_ ..."]) -> None:
        kinds = {(part.shape[1:], part.dtype, part.device) for part in parts}
        if len(kinds) != 1:
            found = "; ".join(f"{list(shape)} {dtype} on {device}" for shape, dtype, device in kinds) or "no array"
            raise InputError(f"arrays of one kind need rows of one shape, type and device, got {found}")
        self.parts = parts
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    @classmethod
    def read(cls, *paths: Path | str, name: str | None = None) -> "Rows":
        """Maps the array of a name from one file or several.

        Args:
            paths: .npy or .safetensors files, in the order of their rows.
            name: Which array; None where each file has just one.

        Raises:
            InputError: If a file cannot be read or has no such array, or they do not fit.
        """
        return cls(*(_one(path, name) for path in paths))

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> torch.Size:
        """The shape of a row."""
        return self.parts[0].shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the values."""
        return self.parts[0].dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.parts[0].device

    def gather(self, rows: Int64[Tensor, " b"]) -> Shaped[Tensor, "b ..."]:
        """Copies some rows into a new tensor, on the device of the rows.

        Args:
            rows: Numbers of rows, on the CPU.

        Raises:
            IndexError: If there is no such row.
        """
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"row {int(rows.min())} or {int(rows.max())} of {len(self)}")
        if len(self.parts) == 1:
            return self.parts[0].index_select(0, rows.to(self.device))
        out = torch.empty(len(rows), *self.shape, dtype=self.dtype, device=self.device)
        owner = torch.searchsorted(self._ends, rows, right=True)
        for index in owner.unique().tolist():
            places = (owner == index).nonzero()[:, 0]
            part = self.parts[index]
            own = rows[places] - (self._ends[index] - len(part))
            out.index_copy_(0, places.to(self.device), part.index_select(0, own.to(self.device)))
        return out

    def to(self, device: torch.device | str) -> "Rows":
        """All rows on a device, in one tensor."""
        return Rows(torch.cat([part.to(device) for part in self.parts]))


def _one(path: Path | str, name: str | None) -> Any:
    held = mapped(path)
    if name is None and len(held) == 1:
        return next(iter(held.values()))
    if name not in held:
        asked = "name one of them" if name is None else f"there is no '{name}'"
        raise InputError(f"{path} holds {', '.join(sorted(held)) or 'nothing'}; {asked}")
    return held[name]
