"""The order in which data is seen: permutations and batches that are a function of (seed, epoch) alone.

A run is entered anywhere by its epoch and its place in the epoch's plan; nothing of the order has to be saved.

Ragged items are batched with others of their size within a budget. With padding to the largest of a batch of k items,

    linear      k n_max    <= budget      tokens of a network that is linear in n
    quadratic   k n_max^2  <= budget      pairs of a network that is quadratic in n

A shuffled epoch is cut into windows of about `window` batches, each window is sorted by size and cut into batches, and
the batches are shuffled: little padding, and other companions in every epoch.
"""

from typing import Literal

import numpy as np
from jaxtyping import Int64

from reed_core.noise import mix_seed

Cost = Literal["linear", "quadratic"]


def shuffler(seed: int, epoch: int) -> np.random.Generator:
    """The generator that decides everything about an epoch's order."""
    return np.random.default_rng(mix_seed(seed, epoch))


def permutation(seed: int, epoch: int, count: int) -> Int64[np.ndarray, " n"]:
    """The items 0 .. count - 1 in the order of an epoch."""
    return shuffler(seed, epoch).permutation(count)


def groups(
    sizes: Int64[np.ndarray, " n"],
    budget: int,
    cost: Cost,
    generator: np.random.Generator,
    order: Int64[np.ndarray, " m"] | None = None,
    window: int = 32,
) -> list[list[int]]:
    """The batches of an epoch: every item of the order in exactly one, sizes alike in each.

    Args:
        sizes: The size of each item, by its number.
        budget: Largest cost of a batch, padding included; an item beyond it makes a batch of its own.
        cost: How the cost grows with the size.
        generator: Shuffles; `shuffler(seed, epoch)`.
        order: The items of the epoch, shuffled; None takes all, shuffled by `generator`.
        window: Batches whose items are sorted by size together, about.
    """
    if order is None:
        order = generator.permutation(len(sizes))
    if not len(order):
        return []
    costs = np.square(sizes) if cost == "quadratic" else sizes
    width = max(1, int(window * budget / costs[order].mean().clip(min=1.0)))
    batches: list[list[int]] = []
    for start in range(0, len(order), width):
        some = order[start : start + width]
        some = some[np.argsort(sizes[some], kind="stable")]
        each, first = costs[some], 0
        while first < len(some):
            # Costs rise, so a batch from `first` has at most as many items as its cheapest one would allow.
            rest = len(some) - first
            most = min(rest, max(1, budget // int(each[first]))) if each[first] else rest
            over = each[first : first + most] * np.arange(1, most + 1) > budget
            count = max(1, int(np.searchsorted(over, True)))
            batches.append(some[first : first + count].tolist())
            first += count
    return [batches[place] for place in generator.permutation(len(batches))]


def even(order: Int64[np.ndarray, " n"], size: int, whole: bool = False) -> list[list[int]]:
    """Batches of equal size, in order.

    Args:
        order: The items of the epoch.
        size: Items of a batch.
        whole: Leave out a last batch that is smaller (its items come in other epochs), unless it is the only one.
    """
    batches = [order[start : start + size].tolist() for start in range(0, len(order), size)]
    return batches[:-1] if whole and len(batches) > 1 and len(batches[-1]) < size else batches
