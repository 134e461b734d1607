"""Representations that were computed elsewhere (Uni-Mol, a force field's states), read from npz or safetensors.

one file for each molecule      the path holds {index} (the molecule's place in its split, from 0) or {name}:
                                KEY [n, d] (token) or [d] (global), and if it is there `numbers` [n]
one file for all of a split     KEY [atoms, d] with `offsets` [molecules + 1] (token), or [molecules, d] (global),
                                and if it is there `numbers` [atoms]
What was computed for other atoms is refused: a row for each atom, hydrogen included, in the order of the prepared set;
with `atoms="heavy"` a row for each atom that is not hydrogen, and hydrogen is unknown. `numbers` are atomic numbers and
must agree.
"""

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import named
from reed_core.state import State
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from reed_molecule.encoders.clean import Named
from reed_molecule.molecule import Molecule

Atoms = Literal["all", "heavy"]


class ArrayEncoder:
    """Arrays on disk as z.

    Args:
        path: The file, or the pattern of the files.
        key: The array in it.
        dim: Its width.
        level: "token" or "global".
        atoms: Which atoms have a row.
        version: Change it when the files change; part of the fingerprint.
    """

    name = "arrays"

    def __init__(
        self,
        path: str,
        key: str,
        dim: int,
        level: Literal["token", "global"] = "token",
        atoms: Atoms = "all",
        version: str = "",
    ) -> None:
        self.path, self.key, self.dim, self.level, self.atoms, self.version = path, key, dim, level, atoms, version
        self.single = "{index}" not in path and "{name}" not in path
        self._whole: dict[str, np.ndarray] | None = None

    @property
    def fingerprint(self) -> str:
        """Path, key, rows and version: the files themselves are not read for it."""
        rows = f"{self.dim},{self.level},{self.atoms}"
        return named({"code": "arrays-1", "path": self.path, "key": self.key, "rows": rows, "version": self.version})

    def __call__(self, x_0: State, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """Reads the molecules named in c.

        Raises:
            InputError: If a file is missing, damaged, or of other atoms than its molecule.
        """
        assert isinstance(c, Named)
        found = [self._rows(item, molecule) for item, molecule in zip(c.items, c.molecules, strict=True)]
        if self.level == "global":
            return Representation(torch.from_numpy(np.stack(found)))
        longest = max(len(molecule) for molecule in c.molecules) if mask is None else mask.shape[1]
        z, known = torch.zeros(len(found), longest, self.dim), torch.zeros(len(found), longest, dtype=torch.bool)
        for row, (molecule, values) in enumerate(zip(c.molecules, found, strict=True)):
            places = torch.from_numpy(self._places(molecule))
            z[row, places] = torch.from_numpy(values)
            known[row, places] = True
        return Representation(z, known)

    def _places(self, molecule: Molecule) -> np.ndarray:
        """The atoms that have a row."""
        return np.flatnonzero(molecule.numbers > (1 if self.atoms == "heavy" else 0))

    def _rows(self, item: int, molecule: Molecule) -> np.ndarray:
        label = f"molecule {item}" + (f" ({molecule.name})" if molecule.name else "")
        path = self.path.replace("{index}", str(item)).replace("{name}", molecule.name)
        arrays = self._opened(path, label)
        values, numbers = arrays[self.key], arrays.get("numbers")
        if self.single:
            if self.level == "global":
                if item >= len(values):
                    raise InputError(f"{path} has {len(values)} rows, none for {label}; compute it for this split")
                values = values[item]
            else:
                if "offsets" not in arrays or item + 1 >= len(arrays["offsets"]):
                    raise InputError(f"`offsets` of {path} name no rows for {label}; compute it for this split")
                start, end = (int(place) for place in arrays["offsets"][item : item + 2])
                values, numbers = values[start:end], None if numbers is None else numbers[start:end]
        if values.ndim != (2 if self.level == "token" else 1) or values.shape[-1] != self.dim:
            want = f"[n, {self.dim}]" if self.level == "token" else f"[{self.dim}]"
            raise InputError(f"'{self.key}' of {path} has shape {list(values.shape)} for {label}; expected {want}")
        if self.level == "token":
            self._check_atoms(path, label, molecule, len(values), numbers)
        return values.astype(np.float32)

    def _check_atoms(self, path: str, label: str, molecule: Molecule, rows: int, numbers: np.ndarray | None) -> None:
        own = molecule.numbers[self._places(molecule)]
        if rows != len(own):
            heavy, hydrogens = int((molecule.numbers > 1).sum()), int((molecule.numbers == 1).sum())
            advice = "compute it for the atoms of the prepared set"
            if self.atoms == "all" and rows == heavy:
                advice = 'it was computed without hydrogen: compute it with, or set atoms = "heavy"'
            elif self.atoms == "heavy" and rows == len(molecule):
                advice = 'it was computed with hydrogen: set atoms = "all"'
            raise InputError(
                f"{path} has {rows} rows for {label}, which has {heavy} heavy atoms and {hydrogens} hydrogens; {advice}"
            )
        if numbers is not None and not np.array_equal(numbers, own):
            raise InputError(
                f"{path} lists other elements than {label}, or in another order; compute it for the prepared set"
            )

    def _opened(self, path: str, label: str) -> dict[str, np.ndarray]:
        """The arrays of a file; one for all molecules is kept."""
        if self._whole is not None:
            return self._whole
        try:
            if path.endswith(".safetensors"):
                arrays = load_file(path)
            else:
                with np.load(path, allow_pickle=False) as data:
                    arrays = {name: data[name] for name in data.files}
        except FileNotFoundError as error:
            raise InputError(f"no file {path} for {label}; compute it, or leave the latent out") from error
        except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, SafetensorError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{Path(path)} cannot be read ({reason}); compute it again") from error
        if self.key not in arrays:
            raise InputError(f"{path} holds no array '{self.key}' but {', '.join(sorted(arrays))}; choose another key")
        if self.single:
            self._whole = arrays
        return arrays
