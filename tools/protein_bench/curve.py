"""Recovery of designs against the number of steps, on chains of known sequence.

The recovery of a chain is the share of its residues of known type at which one design equals the native; the figure of
a run is the median over chains. Chain i is keyed by (seed, i), so that runs of one seed differ by their steps alone.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median

import torch
from reed_core.noise import NoiseSource
from reed_core.process import Masked
from reed_core.sample.masked import Order, unmask
from reed_protein.backbone import Backbone
from reed_protein.dataset import ChainSet, collate_tokens
from reed_protein.evaluation import batches
from reed_protein.network import MASK_TOKEN, NUM_TOKENS, UNKNOWN_TOKEN, InverseFolding

Curve = dict[tuple[str, int], list[float]]


@torch.no_grad()
def curve(
    network: InverseFolding,
    chains: ChainSet,
    steps: Sequence[int],
    orders: Sequence[Order],
    seeds: Sequence[int],
    temperature: float,
    tick: Callable[[float], None],
) -> Curve:
    """Median recovery by (order, steps), one value per seed.

    Args:
        network: The network, in evaluation mode.
        chains: The chains.
        steps: Step counts.
        orders: Orders of revealing.
        seeds: Seeds.
        temperature: Of the designs.
        tick: Called with the share of the work that is done.
    """
    found: dict[tuple[str, int, int], list[float]] = {}
    process = Masked(NUM_TOKENS, MASK_TOKEN)
    planned = batches([len(tokens) for tokens in chains.tokens])
    total, done = sum(steps) * len(orders) * len(seeds) * len(planned), 0
    for items in planned:
        backbone = Backbone.collate([chains.arrays[item] for item in items])
        native = collate_tokens([chains.tokens[item] for item in items])
        scored = backbone.mask & (native < UNKNOWN_TOKEN)
        encoding = network.encode(backbone)
        x = torch.where(backbone.mask, MASK_TOKEN, native)
        for seed in seeds:
            for order in orders:
                for count in steps:
                    noise = NoiseSource(seed, items)
                    drawn = unmask(process, network, x, count, noise, encoding, temperature, order)
                    same = (drawn.tokens == native) & scored
                    recovery = same.sum(1) / scored.sum(1)
                    found.setdefault((order, count, seed), []).extend(recovery.tolist())
                    done += count
                    tick(done / total)
    return {
        (order, count): [median(found[order, count, seed]) for seed in seeds] for order in orders for count in steps
    }


def shortest(chains: ChainSet, number: int) -> ChainSet:
    """The shortest chains of a set."""
    some = sorted(range(len(chains)), key=lambda item: len(chains.tokens[item]))[:number]
    return ChainSet(*(tuple(column[item] for item in some) for column in (chains.ids, chains.arrays, chains.tokens)))


def fewest(found: Mapping[tuple[str, int], list[float]], order: str, within: float) -> int:
    """The smallest step count whose mean over seeds is within `within` of that of the largest, and so all above it."""
    counts = sorted(count for name, count in found if name == order)
    least = mean(found[order, counts[-1]]) - within
    good = counts[-1]
    for count in reversed(counts):
        if mean(found[order, count]) < least:
            break
        good = count
    return good
