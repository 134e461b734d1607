"""Designs against the number of steps, on chains of known sequence: how right each residue is, and how right together.

recovery      share of the residues of known type at which one design equals the native; the median over chains
joint nll     minus log-probability of the designs under the model itself, nats per residue, residues revealed in ten
              blocks (`any_order_nll`); residues drawn without sight of each other make it larger
contacts      mean over pairs in contact (CA within 8 A, 4 or more apart) of log p(a, b) / (p(a) p(b)), with p
              counted in the contacts of training chains: letters that suit each other make it larger. No model is in it
runs          share of residues in a run of four or more equal letters
composition   half the sum of |share in designs - share in natives| over the twenty letters

All but the first are pooled over the chains. Chain i is keyed by (seed, i), so that runs of one seed differ by their
steps alone.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median
from typing import NamedTuple

import torch
from reed_core.noise import NoiseSource
from reed_core.process import Masked
from reed_core.sample.masked import Order, unmask
from reed_protein.backbone import Backbone
from reed_protein.dataset import ChainSet, collate_tokens
from reed_protein.evaluation import batches
from reed_protein.network import MASK_TOKEN, NUM_TOKENS, UNKNOWN_TOKEN, InverseFolding
from reed_protein.score import any_order_nll
from torch import Tensor

CONTACT, APART, RUN = 8.0, 4, 4


class Quality(NamedTuple):
    """The figures of one run over all chains; the docstring of the module says what they are."""

    recovery: float
    joint_nll: float
    contacts: float
    runs: float
    composition: float


Curve = dict[tuple[str, int], list[Quality]]


def contacts(backbone: Backbone, known: Tensor) -> Tensor:
    """The pairs in contact, each once, as (row, i, j), [3, c]."""
    ca = backbone.coords[:, :, 1]
    near = torch.cdist(ca, ca) < CONTACT
    near &= known[:, :, None] & known[:, None]
    apart = (backbone.position[:, None] - backbone.position[:, :, None] >= APART) | (
        backbone.chain[:, None] > backbone.chain[:, :, None]
    )
    return (near & apart).nonzero().T


def pair_table(chains: ChainSet) -> Tensor:
    """Log p(a, b) / (p(a) p(b)) of residues in contact, [20, 20], symmetric, one count added to every pair."""
    counts = torch.ones(NUM_TOKENS, NUM_TOKENS, dtype=torch.float64)
    for items in batches([len(tokens) for tokens in chains.tokens]):
        backbone = Backbone.collate([chains.arrays[item] for item in items])
        native = collate_tokens([chains.tokens[item] for item in items])
        row, i, j = contacts(backbone, backbone.mask & (native < UNKNOWN_TOKEN))
        pairs = native[row, i] * NUM_TOKENS + native[row, j]
        counts += torch.bincount(pairs, minlength=NUM_TOKENS**2).view(NUM_TOKENS, NUM_TOKENS)
    joint = (counts + counts.T) / (2 * counts.sum())
    alone = joint.sum(0)
    return (joint / (alone[:, None] * alone)).log()


def in_runs(tokens: Tensor, scored: Tensor) -> Tensor:
    """Which residues stand in a run of `RUN` or more equal letters, [b, n]."""
    found = torch.zeros_like(scored)
    windows, there = tokens.unfold(1, RUN, 1), scored.unfold(1, RUN, 1)
    start = ((windows == windows[..., :1]) & there).all(-1)
    for shift in range(RUN):
        found[:, shift : shift + start.shape[1]] |= start
    return found


class Tally:
    """Sums over chains, from which a `Quality` is made."""

    def __init__(self) -> None:
        self.recovery: list[float] = []
        self.sums = torch.zeros(5, dtype=torch.float64)  # nll, residues, in runs, pair log-odds, pairs
        self.letters = torch.zeros(2, NUM_TOKENS, dtype=torch.float64)

    def add(self, drawn: Tensor, native: Tensor, scored: Tensor, nll: Tensor, table: Tensor, pairs: Tensor) -> None:
        """Counts the designs of a batch of chains."""
        length = scored.sum(1)
        self.recovery += (((drawn == native) & scored).sum(1) / length).tolist()
        row, i, j = pairs
        suits = table[drawn[row, i], drawn[row, j]]
        runs = (in_runs(drawn, scored) & scored).sum()
        parts = ((nll * length).sum(), length.sum(), runs, suits.sum(), torch.tensor(len(suits)))
        self.sums += torch.stack([part.double() for part in parts])
        for place, tokens in enumerate((drawn, native)):
            self.letters[place] += torch.bincount(tokens[scored], minlength=NUM_TOKENS)[:NUM_TOKENS]

    def quality(self) -> Quality:
        """The figures."""
        nll, residues, runs, suits, pairs = self.sums.tolist()
        shares = self.letters / self.letters.sum(1, keepdim=True)
        distance = 0.5 * (shares[0] - shares[1]).abs().sum().item()
        return Quality(median(self.recovery), nll / residues, suits / max(1.0, pairs), runs / residues, distance)


@torch.no_grad()
def curve(
    network: InverseFolding,
    chains: ChainSet,
    table: Tensor,
    steps: Sequence[int],
    orders: Sequence[Order],
    seeds: Sequence[int],
    temperature: float,
    tick: Callable[[float], None],
) -> Curve:
    """Quality by (order, steps), one per seed; under ("native", 0) that of the natives, once.

    Args:
        network: The network, in evaluation mode.
        chains: The chains.
        table: What `pair_table` made of other chains.
        steps: Step counts.
        orders: Orders of revealing.
        seeds: Seeds.
        temperature: Of the designs.
        tick: Called with the share of the work that is done.
    """
    tallies: dict[tuple[str, int, int], Tally] = {("native", 0, 0): Tally()}
    process = Masked(NUM_TOKENS, MASK_TOKEN)
    planned = batches([len(tokens) for tokens in chains.tokens])
    total, done = sum(count + 10 for count in steps) * len(orders) * len(seeds) * len(planned), 0
    for items in planned:
        backbone = Backbone.collate([chains.arrays[item] for item in items])
        native = collate_tokens([chains.tokens[item] for item in items])
        scored = backbone.mask & (native < UNKNOWN_TOKEN)
        pairs = contacts(backbone, scored)
        encoding = network.encode(backbone)
        x = torch.where(backbone.mask, MASK_TOKEN, native)
        nll = any_order_nll(network, encoding, native, scored)
        tallies["native", 0, 0].add(native, native, scored, nll, table, pairs)
        for seed in seeds:
            for order in orders:
                for count in steps:
                    noise = NoiseSource(seed, items)
                    drawn = unmask(process, network, x, count, noise, encoding, temperature, order).tokens
                    nll = any_order_nll(network, encoding, drawn, scored)
                    tally = tallies.setdefault((order, count, seed), Tally())
                    tally.add(drawn, native, scored, nll, table, pairs)
                    done += count + 10
                    tick(done / total)
    found: Curve = {("native", 0): [tallies["native", 0, 0].quality()]}
    return found | {
        (order, count): [tallies[order, count, seed].quality() for seed in seeds] for order in orders for count in steps
    }


def shortest(chains: ChainSet, number: int) -> ChainSet:
    """The shortest chains of a set."""
    some = sorted(range(len(chains)), key=lambda item: len(chains.tokens[item]))[:number]
    return ChainSet(*(tuple(column[item] for item in some) for column in (chains.ids, chains.arrays, chains.tokens)))


def fewest(found: Mapping[tuple[str, int], Sequence[float]], order: str, within: float) -> int:
    """The smallest step count whose mean over seeds is at most `within` below that of the largest, and so all above."""
    counts = sorted(count for name, count in found if name == order)
    least = mean(found[order, counts[-1]]) - within
    good = counts[-1]
    for count in reversed(counts):
        if mean(found[order, count]) < least:
            break
        good = count
    return good
