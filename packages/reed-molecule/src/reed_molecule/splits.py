"""Which molecules train, choose and test: by molecule, never by conformer.

A molecule is its canonical SMILES without stereo. Its identity is a 64-bit hash of that text, so all conformers and
stereoisomers, from whatever file, are on one side, and adding molecules moves none of those already there.

EDM's split of QM9 is by gdb9 number: of 133,885 molecules the 3,054 uncharacterised ones are left out, the others are
permuted by numpy's legacy generator at seed 0, and cut into 100,000, the rest, and a tenth. MiDi's permutes all 133,885
at seed 42, cuts them likewise, and leaves the uncharacterised out afterwards: its splits hold other molecules.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from reed_core.errors import InputError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_GDB9 = 133_885
_EDM_TRAIN = 100_000
_UNCHARACTERISED = 3_054


@dataclass(frozen=True)
class Shares:
    """The part of the molecules that each split gets, on average.

    Attributes:
        train: For training.
        valid: For choosing.
        test: For the last word.
    """

    train: float = 0.9
    valid: float = 0.05
    test: float = 0.05

    def __post_init__(self) -> None:
        parts = (self.train, self.valid, self.test)
        if min(parts) < 0 or abs(sum(parts) - 1) > 1e-9:
            raise InputError(f"shares {parts}: expected three parts, none negative, that sum to 1")


def identity(flat: str) -> int:
    """The identity of a molecule: 64 bits, signed, of a canonical SMILES without stereo."""
    return int.from_bytes(hashlib.sha256(flat.encode()).digest()[:8], "big", signed=True)


def by_hash(identities: Int64[np.ndarray, " n"], shares: Shares) -> UInt8[np.ndarray, " n"]:
    """Assigns molecules by their identity alone.

    Returns:
        The place of each one's split in `SPLITS`.
    """
    uniform = identities.view(np.uint64).astype(np.float64) / 2.0**64
    return (
        np.searchsorted([shares.train, shares.train + shares.valid], uniform, side="right").clip(max=2).astype(np.uint8)
    )


def without_leaks(identities: Int64[np.ndarray, " n"], splits: UInt8[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """What to keep so that no molecule is in two splits: of several, the last of train, valid, test keeps it.

    Conformers within one split all stay.
    """
    _, group = np.unique(identities, return_inverse=True)
    last = np.zeros(group.max() + 1 if len(group) else 0, dtype=np.uint8)
    np.maximum.at(last, group, splits)
    return splits == last[group]


def edm(numbers: Int64[np.ndarray, " n"], uncharacterised: Collection[int]) -> UInt8[np.ndarray, " n"]:
    """EDM's split of QM9.

    Args:
        numbers: gdb9 numbers, from 1.
        uncharacterised: The gdb9 numbers that QM9's authors list as uncharacterised.

    Returns:
        The place of each one's split in `SPLITS`.

    Raises:
        InputError: If a number is not in 1..133885, or is uncharacterised, or too many are.
    """
    outside = _checked(uncharacterised)
    included = np.setdiff1d(np.arange(1, _GDB9 + 1), outside)
    test = len(included) // 10
    order = np.random.RandomState(0).permutation(len(included))
    assigned = np.full(_GDB9 + 1, len(SPLITS), dtype=np.uint8)
    assigned[included[order]] = SPLITS.index("valid")
    assigned[included[order[:_EDM_TRAIN]]] = SPLITS.index("train")
    assigned[included[order[len(order) - test :]]] = SPLITS.index("test")
    return _looked_up(assigned, numbers, "EDM's")


def midi(numbers: Int64[np.ndarray, " n"], uncharacterised: Collection[int]) -> UInt8[np.ndarray, " n"]:
    """MiDi's split of QM9; arguments, result and errors as of `edm`."""
    outside = _checked(uncharacterised)
    order = np.random.RandomState(42).permutation(_GDB9) + 1
    assigned = np.full(_GDB9 + 1, SPLITS.index("test"), dtype=np.uint8)
    assigned[order[:_EDM_TRAIN]] = SPLITS.index("train")
    assigned[order[_EDM_TRAIN : _GDB9 - _GDB9 // 10]] = SPLITS.index("valid")
    assigned[[0, *outside]] = len(SPLITS)
    return _looked_up(assigned, numbers, "MiDi's")


def _checked(uncharacterised: Collection[int]) -> list[int]:
    outside = sorted(set(uncharacterised))
    if len(outside) != _UNCHARACTERISED or outside[0] < 1 or outside[-1] > _GDB9:
        raise InputError(f"{len(outside)} uncharacterised molecules; expected the 3,054 that QM9 lists")
    return outside


def _looked_up(
    assigned: UInt8[np.ndarray, " m"], numbers: Int64[np.ndarray, " n"], whose: str
) -> UInt8[np.ndarray, " n"]:
    inside = (numbers >= 1) & (numbers <= _GDB9)
    found = assigned[np.where(inside, numbers, 0)]
    if (found == len(SPLITS)).any():
        wrong = int(numbers[found == len(SPLITS)][0])
        raise InputError(f"molecule {wrong} is not in {whose} QM9: not a gdb9 number, or uncharacterised")
    return found
