"""Which molecules a model was trained on: short hashes, kept beside its weights, so that novelty needs no data set.

A molecule is its canonical SMILES without stereo; its identity is a 64-bit hash of that (`splits.identity`). Of each,
the first 40 bits are kept, sorted. A molecule that was never seen is taken for a known one with probability
n / 2^40: one in ten million for n = 100,000.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64
from reed_core.errors import InputError
from reed_core.files import write_with
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from reed_molecule.splits import identity

KNOWN = "known.safetensors"
_BYTES = 5
_ENTRY = "identities"


class Known:
    """A set of molecules by their SMILES: `smiles in known`.

    Args:
        shortened: The first 40 bits of each identity, sorted, no two alike.
    """

    def __init__(self, shortened: UInt64[np.ndarray, " n"]) -> None:
        self._shortened = shortened

    @classmethod
    def of(cls, identities: Int64[np.ndarray, " n"]) -> "Known":
        """The molecules of a prepared set."""
        return cls(np.unique(np.asarray(identities).view(np.uint64) >> np.uint64(64 - 8 * _BYTES)))

    @classmethod
    def of_smiles(cls, smiles: Iterable[str]) -> "Known":
        """Molecules given as canonical SMILES without stereo."""
        return cls.of(np.array([identity(one) for one in smiles], dtype=np.int64))

    def __len__(self) -> int:
        return len(self._shortened)

    def __contains__(self, smiles: object) -> bool:
        """Whether a canonical SMILES without stereo is among them."""
        if not isinstance(smiles, str):
            return False
        wanted = np.array([identity(smiles)], dtype=np.int64).view(np.uint64) >> np.uint64(64 - 8 * _BYTES)
        place = int(np.searchsorted(self._shortened, wanted[0]))
        return place < len(self._shortened) and bool(self._shortened[place] == wanted[0])

    def write(self, folder: Path) -> None:
        """Writes them beside the weights of a folder.

        Raises:
            InputError: If the file cannot be written.
        """
        big = self._shortened.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - _BYTES :]
        write_with(Path(folder) / KNOWN, lambda aside: save_file({_ENTRY: np.ascontiguousarray(big)}, aside))

    @classmethod
    def read(cls, folder: Path) -> "Known | None":
        """Reads what `write` wrote; None if the weights came without.

        Raises:
            InputError: If the file is damaged.
        """
        path = Path(folder) / KNOWN
        if not path.is_file():
            return None
        try:
            rows = load_file(path)[_ENTRY]
        except (SafetensorError, KeyError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} does not hold known molecules ({reason}); copy it again, or remove it") from error
        if rows.ndim != 2 or rows.shape[1] != _BYTES or rows.dtype != np.uint8:
            raise InputError(f"{path} does not hold known molecules; copy it again, or remove it")
        wide = np.zeros((len(rows), 8), dtype=np.uint8)
        wide[:, 8 - _BYTES :] = rows
        return cls(np.unique(wide.reshape(-1).view(">u8").astype(np.uint64)))
