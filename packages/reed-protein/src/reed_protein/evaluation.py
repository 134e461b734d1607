"""How good is a network on chains of known sequence? Recovery of designs, and perplexity, each named.

recovery     share of residues of known type at which a design equals the native, for one design of each chain: median
             and mean over chains (each chain one value), and pooled over residues
perplexity   exp of the mean negative log-likelihood of native residues, pooled: any-order, ELBO and one-shot
             (`reed_protein.score`)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from reed_core.bound.estimate import BoundEstimate
from reed_core.bound.evaluate import evaluate_bound
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Masked
from reed_core.sample.masked import Order, unmask
from reed_core.train.data import Batch
from rich.console import Console
from rich.progress import track

from reed_protein.backbone import Backbone
from reed_protein.dataset import ChainSet, collate_tokens
from reed_protein.network import MASK_TOKEN, NUM_TOKENS, UNKNOWN_TOKEN, InverseFolding
from reed_protein.score import any_order_nll, elbo_nll, one_shot_nll

_BATCH_RESIDUES = 4000


@dataclass(frozen=True)
class Evaluation:
    """Figures of a network on a set of chains; recoveries and shares in 0..1.

    Attributes:
        recovery: Recovery of each chain, in the order of the set.
        median_recovery: Median over chains.
        mean_recovery: Mean over chains.
        pooled_recovery: Over all residues.
        perplexity_any_order: exp of the any-order score.
        perplexity_elbo: exp of the ELBO per residue.
        perplexity_one_shot: exp of the one-shot score.
        composition_distance: Total variation distance between the designs' and the natives' composition, 0..1.
    """

    recovery: tuple[float, ...]
    median_recovery: float
    mean_recovery: float
    pooled_recovery: float
    perplexity_any_order: float
    perplexity_elbo: float
    perplexity_one_shot: float
    composition_distance: float


@torch.no_grad()
def evaluate(
    network: InverseFolding,
    chains: ChainSet,
    temperature: float = 0.1,
    steps: int = 20,
    seed: int = 0,
    order: Order = "random",
    progress: bool = False,
) -> Evaluation:
    """Designs one sequence for every chain and scores every native.

    Args:
        network: The network, in evaluation mode.
        chains: The chains.
        temperature: Of the designs.
        steps: Of the designs.
        seed: Of the designs; chain i is keyed by (seed, i), whatever the batches.
        order: Of the designs.
        progress: Show a progress bar on standard error.
    """
    device = next(network.parameters()).device
    process = Masked(NUM_TOKENS, MASK_TOKEN)
    recovery: dict[int, float] = {}
    hits = total = 0
    nll = torch.zeros(3, dtype=torch.float64)
    designed, natural = torch.zeros(NUM_TOKENS), torch.zeros(NUM_TOKENS)
    planned = batches([len(tokens) for tokens in chains.tokens])
    bar = Console(stderr=True)
    for items in track(planned, "evaluating", console=bar, transient=True, disable=not progress):
        backbone = Backbone.collate([chains.arrays[item] for item in items]).to(device)
        native = collate_tokens([chains.tokens[item] for item in items]).to(device)
        scored = backbone.mask & (native < UNKNOWN_TOKEN)
        encoding = network.encode(backbone)
        x = torch.where(backbone.mask, MASK_TOKEN, native)
        drawn = unmask(process, network, x, steps, NoiseSource(seed, items), encoding, temperature, order).tokens
        same = (drawn == native) & scored
        length = scored.sum(1)
        for row, item in enumerate(items):
            recovery[item] = (same[row].sum() / length[row].clamp(min=1)).item()
        hits, total = hits + int(same.sum()), total + int(length.sum())
        designed += torch.bincount(drawn[scored].cpu(), minlength=NUM_TOKENS)[:NUM_TOKENS]
        natural += torch.bincount(native[scored].cpu(), minlength=NUM_TOKENS)[:NUM_TOKENS]
        kinds = (any_order_nll, elbo_nll, one_shot_nll)
        nll += torch.stack([(kind(network, encoding, native, scored) * length).sum().double().cpu() for kind in kinds])
    values = tuple(recovery[item] for item in range(len(chains)))
    each = torch.tensor(values, dtype=torch.float64)
    any_order, elbo, one_shot = (nll / total).exp().tolist()
    distance = 0.5 * (designed / designed.sum() - natural / natural.sum()).abs().sum().item()
    return Evaluation(
        values, each.quantile(0.5).item(), each.mean().item(), hits / total, any_order, elbo, one_shot, distance
    )


@torch.no_grad()
def bound_of(network: InverseFolding, chains: ChainSet, seed: int = 0, progress: bool = False) -> BoundEstimate:
    """The variational bound of the natives, without latents: their heads belong to training and are not saved.

    Args:
        network: The network.
        chains: The chains.
        seed: Of the draws.
        progress: Show a progress bar on standard error.
    """
    device = next(network.parameters()).device

    def encoded() -> Iterator[Batch]:
        planned = batches([len(tokens) for tokens in chains.tokens])
        bar = Console(stderr=True)
        for items in track(planned, "bounding", console=bar, transient=True, disable=not progress):
            backbone = Backbone.collate([chains.arrays[item] for item in items]).to(device)
            native = collate_tokens([chains.tokens[item] for item in items]).to(device)
            with torch.no_grad():
                yield Batch(native, network.eval().encode(backbone), backbone.mask & (native < UNKNOWN_TOKEN))

    return evaluate_bound(network, Objective(Masked(NUM_TOKENS, MASK_TOKEN)), encoded(), seed=seed)


def batches(lengths: list[int]) -> list[list[int]]:
    """Chains by falling length, in batches of at most a fixed number of residues, padding included."""
    order = sorted(range(len(lengths)), key=lambda item: (-lengths[item], item))
    result: list[list[int]] = []
    for item in order:
        if result and lengths[result[-1][0]] * (len(result[-1]) + 1) <= _BATCH_RESIDUES:
            result[-1].append(item)
        else:
            result.append([item])
    return result
