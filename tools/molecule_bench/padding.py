"""How much of a batch is real: with size buckets as trained on, and with batches in the order of chance."""

from collections.abc import Sequence
from statistics import mean

import numpy as np
from jaxtyping import Int64
from reed_core.train.order import shuffler
from reed_molecule.dataset import MoleculeSet, TrainingData


def real_share(plan: Sequence[Sequence[int]], sizes: Int64[np.ndarray, " n"]) -> float:
    """Ordered pairs of atoms of one molecule, over those of the padded batches: sum of n_i^2 over sum of b n_max^2."""
    real = sum(int(np.square(sizes[items]).sum()) for items in plan)
    return real / sum(len(items) * int(sizes[items].max()) ** 2 for items in plan)


def unsorted(sizes: Int64[np.ndarray, " n"], budget: int, seed: int) -> list[list[int]]:
    """Batches in a random order, each filled until the next molecule would go beyond the budget b n_max^2."""
    batches: list[list[int]] = [[]]
    largest = 0
    for item in shuffler(seed, 0).permutation(len(sizes)).tolist():
        larger = max(largest, int(sizes[item]))
        if batches[-1] and (len(batches[-1]) + 1) * larger**2 > budget:
            batches.append([])
            larger = int(sizes[item])
        batches[-1].append(item)
        largest = larger
    return batches


def shares(known: MoleculeSet, budget: int, epochs: int) -> list[tuple[str, float, float, float]]:
    """For both kinds of batches: name, mean share of real pairs over epochs, least share, mean molecules of a batch."""
    data = TrainingData(known, 0, budget)
    plans = {
        "size buckets": [data.plan(epoch) for epoch in range(epochs)],
        "unsorted": [unsorted(known.sizes, budget, seed) for seed in range(epochs)],
    }
    out = []
    for name, found in plans.items():
        values = [real_share(plan, known.sizes) for plan in found]
        out.append((name, mean(values), min(values), mean(len(known) / len(plan) for plan in found)))
    return out
