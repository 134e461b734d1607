"""Memory that is used again: a batch's buffer, once nobody holds it any more.

New memory costs a page fault for every page, about as much as the reading itself; memory that was touched before costs
nothing. A buffer counts its holders as any Python object does: it is free when the pool alone is left.
"""

import math
import sys
import threading
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from numpy.typing import DTypeLike

_KEPT = 6  # buffers: z and what it is decoded from, for a batch in use and two that are made ahead
_LEAST = 1 << 20  # bytes below which memory is asked of the system


class Pool:
    """Buffers of one reader."""

    def __init__(self) -> None:
        self._held: list[np.ndarray] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Pool"], tuple[()]]:
        return Pool, ()

    def take(self, shape: Sequence[int], dtype: DTypeLike) -> Shaped[np.ndarray, "..."]:
        """An array of any content, over memory that nothing else refers to."""
        kind = np.dtype(dtype)
        needed = math.prod(shape) * kind.itemsize
        if needed < _LEAST:
            return np.empty(shape, kind)
        with self._lock:
            free = [count <= _ALONE for count in _holders(self._held)]
            fits = [place for place, one in enumerate(self._held) if free[place] and needed <= len(one) <= 2 * needed]
            if fits:
                buffer = self._held[fits[0]]
            else:
                buffer = np.empty(needed + needed // 4, np.uint8)  # ragged batches differ a little
                if len(self._held) >= _KEPT:
                    self._held = [one for place, one in enumerate(self._held) if not free[place]]
                if len(self._held) < _KEPT:
                    self._held.append(buffer)
        return buffer[:needed].view(kind).reshape(shape)


def _holders(buffers: list[np.ndarray]) -> list[int]:
    """What `getrefcount` says of each buffer of a list."""
    return [sys.getrefcount(one) for one in buffers]


_ALONE = _holders([np.empty(1, np.uint8)])[0]
