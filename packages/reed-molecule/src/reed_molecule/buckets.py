"""Batches of similar sizes within a budget of pairs: b n^2, with n the largest molecule of the batch.

A dense network costs b n^2 whatever is real, so molecules are sorted by size inside windows of a shuffled epoch before
they are cut into batches. A window of many batches wastes little and still mixes its members from epoch to epoch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

_WINDOW = 32  # batches sorted by size together


def bucketed(sizes: Int64[np.ndarray, " n"], pairs: int, generator: np.random.Generator) -> list[list[int]]:
    """The batches of an epoch: every item in exactly one.

    Args:
        sizes: Atoms of each item.
        pairs: Largest b n^2; an item larger than it makes a batch of its own.
        generator: Decides the order.
    """
    order = generator.permutation(len(sizes))
    if not len(order):
        return []
    window = max(1, int(_WINDOW * pairs / np.mean(np.square(sizes.astype(np.float64))).clip(min=1.0)))
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        some = order[start : start + window]
        batch: list[int] = []
        for item in some[np.argsort(sizes[some], kind="stable")]:
            if batch and int(sizes[item]) ** 2 * (len(batch) + 1) > pairs:
                batches.append(batch)
                batch = []
            batch.append(int(item))
        batches.append(batch)
    return [batches[i] for i in generator.permutation(len(batches))]


def real_pairs(sizes: Int64[np.ndarray, " n"], plan: Sequence[Sequence[int]]) -> float:
    """The part of the pairs of all padded batches that joins two real atoms, an atom and itself included."""
    real = sum(float(np.square(sizes[list(batch)]).sum()) for batch in plan)
    return real / sum(len(batch) * float(sizes[list(batch)].max()) ** 2 for batch in plan)
